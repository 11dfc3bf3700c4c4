"""What the plug-in did in this process: counted as it happens, told at the first use and at exit.

| variable | effect |
|---|---|
| `PILOTLIGHT_QUIET=1` | no start line and no summary |
| `PILOTLIGHT_SUMMARY=0`, `=1` | no summary; a summary also of a process that did nothing, and of every rank |
| `PILOTLIGHT_REPORT=FILE` | one JSON line per process is appended to FILE |

Only the process that was started by a person or a launcher speaks. Compile workers and forked children are silent.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pilotlight import _speech
from pilotlight._forks import Lock

if TYPE_CHECKING:
    from pilotlight._native import Client

# Why an entry is not used that nobody trusted signed; with `_` for `-`, the client's counters of them.
SIGNATURE_REASONS = ("unsigned", "unknown-signer", "bad-signature", "revoked", "expired", "out-of-scope")
OUTCOMES = ("hit", "miss", "put", "drop", "bypass", "backfill", "refused", "wait")


class Report:
    """Counts by outcome, then by kind and reason."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.counts: dict[str, Counter[tuple[str, str]]] = {outcome: Counter() for outcome in OUTCOMES}
        self.saved_ms = 0
        self.waited_ms = 0

    def record(self, outcome: str, kind: str, reason: str = "", *, count: int = 1, saved_ms: int = 0) -> None:
        """`kind` is a word of DESIGN.md section 2, `reason` says why a miss, drop, bypass or refusal came about."""
        with self._lock:
            self.counts[outcome][kind, reason] += count
            self.saved_ms += saved_ms

    def record_wait(self, kind: str, seconds: float, *, came: bool) -> None:
        """Another's compile was waited for, and came or not."""
        self.record("wait", kind, "came" if came else "timed out")
        with self._lock:
            self.waited_ms += int(seconds * 1000)

    def total(self, outcome: str) -> int:
        """All of one outcome."""
        return sum(self.counts[outcome].values())

    def by_reason(self, outcome: str) -> dict[str, int]:
        """Most frequent first."""
        sums: Counter[str] = Counter()
        for (_, reason), count in self.counts[outcome].items():
            sums[reason or "other"] += count
        return dict(sums.most_common())

    def as_dict(self) -> dict[str, Any]:
        """For `PILOTLIGHT_REPORT`: `{"hit": {"fx-graph": {"": 3}}, ..., "saved_ms": 1200}`."""
        told: dict[str, Any] = {}
        for outcome in OUTCOMES:
            kinds: dict[str, dict[str, int]] = {}
            for (kind, reason), count in sorted(self.counts[outcome].items()):
                kinds.setdefault(kind, {})[reason] = count
            told[outcome] = kinds
        return {**told, "saved_ms": self.saved_ms, "waited_ms": self.waited_ms}

    def lines(self) -> list[str]:
        """For people."""
        hits, misses, puts = self.total("hit"), self.total("miss"), self.total("put")
        first = f"{_plural(hits, 'hit')}, {_plural(misses, 'miss')}{_reasons(self.by_reason('miss'))}, {_plural(puts, 'put')}"
        lines = [f"{first}; {self.saved_ms / 1000:.1f} s of compiling saved"]
        if waits := self.total("wait"):
            seconds = f"{self.waited_ms / 1000:.1f} s"
            lines.append(f"waited {seconds} for {_plural(waits, 'compile')} of others{_reasons(self.by_reason('wait'))}")
        if dropped := self.total("drop"):
            lines.append(f"{_plural(dropped, 'put')} dropped{_reasons(self.by_reason('drop'))}")
        if refused := self.total("refused"):
            lines.append(f"{_plural(refused, 'entry')} refused{_reasons(self.by_reason('refused'))}")
        if bypassed := self.total("bypass"):
            lines.append(f"{_plural(bypassed, 'graph')} bypassed the cache{_reasons(self.by_reason('bypass'))}")
        return lines


report = Report()
record = report.record
record_wait = report.record_wait

_started_pid = 0
_announced = False
# Parts of the plug-in that the user has switched off.
_off: Sequence[str] = ()


def start() -> None:
    """Marks this process as one that may speak. Called once, at activation."""
    global _started_pid
    if not _started_pid:
        _started_pid = os.getpid()
        atexit.register(_finish)


def announce(client: Client, on: Sequence[str], off: Sequence[str] = ()) -> None:
    """The start line, at the first use of the cache: a ping at import would make every import wait for the network.

    `on` and `off` are the parts that are and that could be.
    """
    global _announced, _off
    if _announced or not may_speak():
        return
    _announced, _off = True, off
    if _speech.is_quiet() or not _first_rank():
        return
    seconds = client.ping()
    answer = "no answer" if seconds is None else f"round trip {seconds * 1000:.2f} ms"
    parts = (_listed(on), f"{_listed(off)} off" if off else "")
    _speech.say(", ".join(filter(None, (client.url, *parts, answer))))


def _take_kernels() -> None:
    """Compiled C++ kernels are counted where they are cached."""
    kernels = sys.modules.get("pilotlight.torch.cpp_stats")
    if kernels is None:
        return
    for name, outcome in (
        ("hits", "hit"),
        ("misses", "miss"),
        ("puts", "put"),
        ("back_filled", "backfill"),
        ("dropped", "drop"),
        ("refused", "refused"),
    ):
        for reason, count in kernels.reasons(name).items():
            record(outcome, "cpp-kernel", reason or ("not usable" if outcome == "refused" else ""), count=count)


def _finish() -> None:
    if not may_speak():
        return
    try:
        _take_kernels()
        _append_report()
        if _wants_summary():
            for line in [*report.lines(), *_signature_lines()]:
                _speech.say(line)
    except Exception:  # the process ends well without it
        return


def _signature_lines() -> list[str]:
    """What became of entries that nobody trusted signed. A cache that lets nothing through must not look like an empty one."""
    client = _client()
    stats = {} if client is None else client.stats()
    counts = {reason: stats.get(reason.replace("-", "_"), 0) for reason in SIGNATURE_REASONS}
    counts = {reason: count for reason, count in counts.items() if count}
    if not counts:
        return []
    is_warning = os.environ.get("PILOTLIGHT_VERIFY") == "warn"
    what = "used that nobody trusted signed" if is_warning else "not used for their signature"
    lines = [f"{_plural(sum(counts.values()), 'entry')} {what}{_reasons(counts)}"]
    if not is_warning and not stats.get("hits"):
        lines.append(
            "hint: none was used; `pilotlight doctor` says whose signatures are missing, docs/signing.md how to switch them on"
        )
    return lines


def _client() -> Client | None:
    """The process' client, if it has one; to make it now would be too late."""
    clients = sys.modules.get("pilotlight._client")
    made: Client | None = clients.client() if clients is not None else None
    return made


def _wants_summary() -> bool:
    asked = os.environ.get("PILOTLIGHT_SUMMARY", "")
    if _speech.is_quiet() or asked == "0":
        return False
    return asked == "1" or (_first_rank() and any(report.counts.values()))


def _append_report() -> None:
    path = os.environ.get("PILOTLIGHT_REPORT")
    if not path:
        return
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    line = {"pid": os.getpid(), "program": program, **_speech.ranks(), "off": list(_off), **report.as_dict()}
    client = _client()
    if client is not None:
        line |= {"url": client.url, "client": client.stats()}
    try:
        # One write of less than a page under O_APPEND: the lines of several processes do not mix.
        with open(path, "ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")
    except OSError as error:
        _speech.say(f"cannot write PILOTLIGHT_REPORT: {error}")


def may_speak() -> bool:
    """Not a forked child, not a worker of torch's or multiprocessing's."""
    if os.getpid() != _started_pid:
        return False
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return False
    return not any("compile_worker" in argument for argument in sys.orig_argv[:4])


def _first_rank() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _plural(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1] + 'ies' if noun.endswith('y') else noun + ('es' if noun.endswith('s') else 's')}"


def _reasons(counts: dict[str, int]) -> str:
    if not counts:
        return ""
    return " (" + ", ".join(f"{count} {reason}" for reason, count in list(counts.items())[:4]) + ")"
