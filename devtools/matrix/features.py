"""The rows of the matrix: which processes show a feature, and when it is a yes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools.matrix.machines import Machines, Ran
from devtools.servers import Pilotlight

# `torch.__version__` says nothing of the variable that came with 2.7; older torch knows host and port only.
_WORK = ("inference", "training")
_CALLS_IN_GUARDS = 4


@dataclass(frozen=True)
class Cell:
    """What one feature does under one torch."""

    answer: str
    """`yes`, `no` or `n/a`."""
    note: str = ""

    def __str__(self) -> str:
        return f"{self.answer}: {self.note}" if self.note else self.answer


@dataclass
class Seen:
    """The processes of one torch. What is warm ran on a machine of its own, after the cold one's had gone."""

    cold: Ran
    warm: Ran
    narrow: Ran
    """Warm as well, but the CPU says it has no AVX-512."""
    alone: Ran
    """Its server is dead."""
    stock_cold: Ran
    stock_warm: Ran
    """Without the plug-in, torch's own switches pointing to our server."""

    def runs(self) -> dict[str, Ran]:
        return vars(self)


def watch(python: Path, home: Path, say: Callable[[str], None]) -> Seen:
    """Runs the scenario under one torch. A process that fails is a finding, not an error."""
    machines = Machines(python, home)
    everything = (*_WORK, "guards", "vectors", "profile")
    with Pilotlight(home / "data") as server, Pilotlight(home / "stock") as other:
        url = f"pilotlight://{server.host}:{server.port}"
        stock = {
            "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "1",
            "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": "1",
            # 2.6 knows host and port, later versions the URL; each leaves the other alone.
            "TORCHINDUCTOR_REDIS_URL": other.redis_url,
            "TORCHINDUCTOR_REDIS_HOST": other.host,
            "TORCHINDUCTOR_REDIS_PORT": str(other.port),
        }

        def run(what: str, *sections: str, env: dict[str, str], plugin: bool = True) -> Ran:
            say(what)
            return machines.run(*sections, env=env, plugin=plugin)

        cold = run("cold machine", *everything, env={"PILOTLIGHT_URL": url})
        warm = run("second machine", *everything, env={"PILOTLIGHT_URL": url})
        narrow = run("machine without AVX-512", "vectors", env={"PILOTLIGHT_URL": url, "ATEN_CPU_CAPABILITY": "avx2"})
        stock_cold = run("stock client, cold", "inference", env=stock, plugin=False)
        stock_warm = run("stock client, second machine", "inference", env=stock, plugin=False)
        server.stop()
        alone = run("dead server", "inference", env={"PILOTLIGHT_URL": url})
    return Seen(cold, warm, narrow, alone, stock_cold, stock_warm)


def _active(seen: Seen) -> Cell:
    if failed := _failure(seen.cold):
        return failed
    return _yes_if(seen.cold.active, "not loaded by `import torch`")


def _numbers(seen: Seen) -> Cell:
    for name in ("cold", "warm"):
        ran = seen.runs()[name]
        if failed := _failure(ran):
            return failed
        if not ran.equal:
            wrong = ", ".join(section for section, part in ran.sections.items() if not part.equal)
            return Cell("no", f"wrong numbers on the {name} machine: {wrong}")
    return Cell("yes")


def _remote_hits(kind: str) -> Callable[[Seen], Cell]:
    def found(seen: Seen) -> Cell:
        if failed := _failure(seen.warm):
            return failed
        puts = seen.cold.count(f"put {kind}", *_WORK)
        hits, misses = (seen.warm.count(f"{outcome} {kind}", *_WORK) for outcome in ("hit", "miss"))
        if not puts:
            return Cell("no", "nothing was put")
        return Cell("yes", f"{hits} of {hits}") if hits and not misses else Cell("no", f"{hits} hits, {misses} misses")

    return found


def _kernels(seen: Seen) -> Cell:
    """Without the profile, which makes for another graph on purpose."""
    if failed := _failure(seen.warm):
        return failed
    hits, misses = seen.warm.count("kernel hits"), seen.warm.count("kernel misses")
    if misses or not hits:
        return Cell("no", f"{hits} hits, {misses} misses")
    return Cell("yes", f"{hits} of {hits}")


def _compilers(seen: Seen) -> Cell:
    if failed := _failure(seen.warm):
        return failed
    # Older torch asks for the version in more than one place.
    compiled = [line for line in seen.warm.compilers if not line.endswith("--version")]
    asked = ", for its version" if seen.warm.compilers and not compiled else ""
    note = f"{len(seen.cold.compilers)} runs cold, {len(seen.warm.compilers)} warm{asked}"
    return Cell("no" if compiled else "yes", note)


def _guards(seen: Seen) -> Cell:
    if failed := _failure(seen.warm):
        return failed
    hits, misses = seen.warm.count("hit fx-graph", "guards"), seen.warm.count("miss fx-graph", "guards")
    return Cell("no" if misses or not hits else "yes", f"{misses} misses in {_CALLS_IN_GUARDS} calls")


def _fingerprint(seen: Seen) -> Cell:
    if seen.cold.capability != "AVX512":
        return Cell("n/a", "this CPU has no AVX-512 to differ by")
    if failed := _failure(seen.narrow):
        return failed
    if seen.narrow.capability != "AVX2":
        return Cell("n/a", "ATEN_CPU_CAPABILITY is not followed")
    if not seen.narrow.equal:
        return Cell("no", "wrong numbers")
    return _yes_if(not seen.narrow.count("hit fx-graph"), "a graph made for AVX-512 was used")


def _profile(seen: Seen) -> Cell:
    if failed := _failure(seen.warm):
        return failed
    cold, warm = (ran.count("graphs", "profile") for ran in (seen.cold, seen.warm))
    if not seen.cold.count("put pgo"):
        return Cell("no", "no profile was put")
    return Cell("yes" if warm < cold and seen.warm.count("hit pgo") else "no", f"{cold} graphs cold, {warm} warm")


def _dead(seen: Seen) -> Cell:
    if failed := _failure(seen.alone):
        return failed
    return _yes_if(seen.alone.equal, "wrong numbers")


def _stock(cache: str) -> Callable[[Seen], Cell]:
    def found(seen: Seen) -> Cell:
        if failed := _failure(seen.stock_cold) or _failure(seen.stock_warm):
            return failed
        if not seen.stock_warm.equal:
            return Cell("no", "wrong numbers")
        hits, misses = (seen.stock_warm.count(f"torch {outcome} {cache}") for outcome in ("hit", "miss"))
        return Cell("no" if misses or not hits else "yes", f"{hits} hits, {misses} misses")

    return found


def _patches(seen: Seen) -> Cell:
    left = dict.fromkeys(
        match[0].strip("`:, ")
        for ran in seen.runs().values()
        for line in ran.heard
        for match in [re.search(r"[\w.]+(?= of this torch takes| \(and perhaps| is not as expected)", line)]
        if match
    )
    return Cell("no", "left alone: " + ", ".join(left)) if left else Cell("yes")


def _quiet(seen: Seen) -> Cell:
    """A process that warns says so; with a dead server it has to, and what a patch says has a row of its own."""
    said = [line for name, ran in seen.runs().items() if name != "alone" for line in ran.heard if "as it" not in line]
    return Cell("no", said[0].removeprefix("pilotlight: ")[:120]) if said else Cell("yes")


FEATURES: dict[str, Callable[[Seen], Cell]] = {
    "comes in with `import torch`": _active,
    "right numbers, cold and from the cache": _numbers,
    "graphs from the cache": _remote_hits("fx-graph"),
    "AOTAutograd entries from the cache": _remote_hits("aot-autograd"),
    "C++ kernels from the cache": _kernels,
    "nothing is compiled on the second machine": _compilers,
    "all guard variants from the cache": _guards,
    "code for another CPU is not used": _fingerprint,
    "profiles spare a recompile": _profile,
    "a dead server fails nothing": _dead,
    "every patch fits": _patches,
    "no errors of the plug-in's own": _quiet,
    "stock torch, no plug-in: graphs": _stock("RemoteFxGraphCache"),
    "stock torch, no plug-in: AOTAutograd entries": _stock("RemoteAOTAutogradCache"),
}
"""Row -> what it says of what was seen."""


def judge(seen: Seen) -> dict[str, Cell]:
    """One column."""
    return {name: feature(seen) for name, feature in FEATURES.items()}


def _failure(ran: Ran) -> Cell | None:
    return Cell("no", ran.failure) if ran.failure else None


def _yes_if(condition: bool, otherwise: str) -> Cell:
    return Cell("yes") if condition else Cell("no", otherwise)


def table(columns: dict[str, dict[str, Cell]], names: Sequence[str] = tuple(FEATURES)) -> str:
    """Markdown that is readable as it is."""
    head = ["", *(f"torch {version}" for version in columns)]
    rows = [[name, *(str(cells[name]).replace("|", "/") for cells in columns.values())] for name in names]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
