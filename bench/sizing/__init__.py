"""What fleets of GPUs ask of one Pilotlight: requests, bytes, CPU, memory, disk, money. docs/sizing.md explains the tables.

`python -m bench.sizing`; nothing is measured and nothing is started. Starts of processes are drawn from a seed, and what each
asks for is counted by the second:

- A process that starts makes one connection. What is there it fetches in a few round trips, over the seconds of its first call.
- Of those that miss the same version of a model, the first compiles; the others ask every half second until it is put, as the
  plug-in does, and then fetch it all within a second.

What it is not: a queue. Of a second in which more is asked for than a network card carries or cores do, the next has the rest;
nobody gives up over it. Caches on the hosts' own disks are left out, so real fleets ask for less.
"""

from __future__ import annotations

from devtools import paths

DOCUMENT = paths.ROOT / "docs" / "sizing.md"
GPUS = (10, 1_000, 20_000, 100_000)
"""The fleets of the document."""
SEED = 20_261_128
"""Its draws."""
