"""Fixtures: a real server per test, programs in processes of their own, and fresh machines within this process.

Importing torch and its compiler takes seconds, so most tests act several machines in one process: a machine is a cache
directory, and torch forgets what it knows when it moves to another one. The models are single matrix products, whose
graphs need no C++ kernel, so that no compiler runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devtools import paths
from devtools.servers import Pilotlight

if TYPE_CHECKING:
    from pilotlight._native import Client
    from pilotlight._summary import Report

PYTHON = paths.ROOT / "python"
PROCESS_TIMEOUT_S = 300.0
sys.path.insert(0, str(PYTHON))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Pilotlight]:
    """A server with nothing in it."""
    with Pilotlight(tmp_path / "data") as running:
        yield running


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installed distribution adds to the path: the entry point that torch looks for."""
    directory = tmp_path_factory.mktemp("site")
    metadata = directory / "pilotlight-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pilotlight\nVersion: 0.1\n")
    (metadata / "entry_points.txt").write_text("[torch.backends]\npilotlight = pilotlight.torch:_autoload\n")
    return directory


@dataclass
class Ran:
    """What a program did."""

    status: int
    out: str
    err: str
    reports: list[dict[str, Any]] = field(default_factory=list)

    @property
    def report(self) -> dict[str, Any]:
        assert len(self.reports) == 1, (self.reports, self.err)
        return self.reports[0]

    def count(self, outcome: str, kind: str, reason: str = "") -> int:
        return int(self.report[outcome].get(kind, {}).get(reason, 0))

    def report_total(self, outcome: str) -> int:
        return sum(sum(reasons.values()) for reasons in self.report[outcome].values())


class Programs:
    """Runs programs as a user would, each on a fresh machine unless told which."""

    def __init__(self, directory: Path, site: Path) -> None:
        self._directory = directory
        self._site = site
        self._count = 0

    def run(
        self,
        code: str,
        *arguments: str,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        machine: Path | None = None,
        name: str = "program.py",
    ) -> Ran:
        """Runs `code` as a script and demands that it ends well."""
        self._count += 1
        here = machine or self._directory / f"machine-{self._count}"
        (here / "tmp").mkdir(parents=True, exist_ok=True)
        script = self._directory / f"script-{self._count}" / name
        script.parent.mkdir()
        script.write_text(code)
        report = self._directory / f"report-{self._count}"
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            env=self._environment(here, report, url) | dict(env or {}),
            capture_output=True,
            text=True,
            timeout=PROCESS_TIMEOUT_S,
            cwd=here,
        )
        lines = report.read_text().splitlines() if report.exists() else []
        ran = Ran(done.returncode, done.stdout, done.stderr, [json.loads(line) for line in lines])
        assert ran.status == 0, ran.err
        return ran

    def _environment(self, machine: Path, report: Path, url: str | None) -> dict[str, str]:
        dropped = ("PILOTLIGHT_", "TORCH", "PYTHON", "ATEN_")
        env = {variable: value for variable, value in os.environ.items() if not variable.startswith(dropped)}
        env |= {
            "PYTHONPATH": os.pathsep.join((str(PYTHON), str(self._site))),
            "TORCHINDUCTOR_CACHE_DIR": str(machine / "cache"),
            "TMPDIR": str(machine / "tmp"),
            "PILOTLIGHT_REPORT": str(report),
            # Finding out runs a compiler for seconds, which few tests are about.
            "TORCHINDUCTOR_VEC_ISA_OK": "1",
        }
        return env if url is None else env | {"PILOTLIGHT_URL": url}


@pytest.fixture
def programs(tmp_path: Path, site: Path) -> Programs:
    return Programs(tmp_path, site)


def url_of(server: Pilotlight) -> str:
    return f"pilotlight://{server.host}:{server.port}"


class Fleet:
    """Machines that share a server, acted in this process."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directory = directory
        self._monkeypatch = monkeypatch
        self._count = 0

    @property
    def client(self) -> Client:
        from pilotlight import _client

        client = _client.client()
        assert client is not None
        return client

    def use(self, url: str) -> None:
        """Points the plug-in to another remote cache; entries checked before are checked anew."""
        from pilotlight.torch import backfill
        from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache

        self._monkeypatch.setenv("PILOTLIGHT_URL", url)
        AOTAutogradCache.get_remote_cache.cache_clear()
        backfill._checked.clear()
        backfill._spent_s = 0.0

    @contextlib.contextmanager
    def traffic(self) -> Iterator[list[tuple[str, list[str]]]]:
        """What is asked of the remote about entries of torch's own: the operation, and the kinds of the keys."""
        from pilotlight import _client
        from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache

        noted: list[tuple[str, list[str]]] = []
        with self._monkeypatch.context() as proxied:
            proxied.setattr(_client, "_client", _Noting(self.client, noted))
            AOTAutogradCache.get_remote_cache.cache_clear()
            yield noted
        AOTAutogradCache.get_remote_cache.cache_clear()

    @contextlib.contextmanager
    def machine(self, directory: Path | None = None) -> Iterator[Report]:
        """A fresh machine, or one that was there before; yields what the plug-in counts on it."""
        from pilotlight import _summary
        from pilotlight.torch import lookups

        self._count += 1
        where = directory or self._directory / f"cache-{self._count}"
        self._monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(where))
        forget()
        lookups._prefetched.clear()
        report = _summary.Report()
        self._monkeypatch.setattr(_summary, "report", report)
        self._monkeypatch.setattr(_summary, "record", report.record)
        yield report
        forget()


class _Noting:
    """Stands before a client."""

    def __init__(self, client: Client, noted: list[tuple[str, list[str]]]) -> None:
        self._client = client
        self._noted = noted

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._client, name)
        if not callable(operation) or name in ("stats", "thread_stats", "notice", "ping"):
            return operation

        def noting(keys: Any, *more: Any, **named: Any) -> Any:
            asked = [keys] if isinstance(keys, bytes) else keys
            kinds = [key.split(b":")[1].decode() for key in asked if key.startswith(b"pt2:")]
            if kinds:
                self._noted.append((name, kinds))
            return operation(keys, *more, **named)

        return noting


def forget() -> None:
    """Makes torch forget what it has in memory, as a new process has nothing."""
    import torch
    from torch._dynamo import pgo
    from torch._dynamo.utils import counters
    from torch._inductor import remote_cache
    from torch._inductor.utils import clear_caches

    torch._dynamo.reset()
    clear_caches()
    pgo.reset_code_state()
    counters.clear()
    remote_cache.cache_stats._stats.clear()


@pytest.fixture
def fleet(server: Pilotlight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """The plug-in active in this process, with a server of its own behind it."""
    monkeypatch.setenv("PILOTLIGHT_URL", url_of(server))
    # The plug-in is active for good once a test has asked for it; this one must not speak at the end.
    os.environ["PILOTLIGHT_QUIET"] = "1"
    # What the vector ISA is has no part in these tests, and finding out runs a compiler.
    os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
    import pilotlight.torch

    pilotlight.torch._autoload()
    acted = Fleet(tmp_path, monkeypatch)
    acted.use(url_of(server))
    return acted
