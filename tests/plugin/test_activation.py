"""How the plug-in comes in, what it costs, what it says, and that it never stands in the way."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from devtools.servers import Pilotlight
from tests.plugin.conftest import PYTHON, Programs, url_of

pytest.importorskip("torch")

COMPILE = """
import torch
torch.manual_seed(0)
x, w = torch.randn(8, 16), torch.randn(16, 4)
def product(x, w): return x @ w
with torch.no_grad():
    print("equal", torch.equal(torch.compile(product)(x, w), product(x, w)))
"""

# What these tests look at happens at import; a dead address shows that nothing waits for it.
NOWHERE = "pilotlight://127.0.0.1:9"


def import_seconds(env: dict[str, str]) -> float:
    """The least of several, with what torch has imported long before it comes to its entry points."""
    code = (
        "import importlib.metadata, collections, json, logging, time, typing, threading, multiprocessing, os, sys\n"
        "begin = time.perf_counter(); import pilotlight.torch; print(time.perf_counter() - begin)"
    )
    run = [sys.executable, "-c", code]
    return min(float(subprocess.check_output(run, env={"PYTHONPATH": str(PYTHON), **env})) for _ in range(5))


def test_without_a_url_nothing_is_imported_and_nothing_set(programs: Programs) -> None:
    ran = programs.run(
        "import sys, os, torch\n"
        "print(sorted(m for m in sys.modules if m.startswith('pilotlight')),\n"
        "      os.environ.get('TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE'))"
    )
    assert ran.out == "['pilotlight', 'pilotlight.torch'] None\n"
    assert ran.err == ""
    assert ran.reports == []


def test_without_a_url_it_costs_less_than_two_milliseconds() -> None:
    assert import_seconds({}) < 0.002


def test_with_a_url_import_torch_neither_connects_nor_imports_the_compiler(programs: Programs) -> None:
    ran = programs.run("import sys, torch\nprint('torch._inductor.config' in sys.modules)", url=NOWHERE)
    assert ran.out == "False\n"
    assert ran.err == "", "a program that compiles nothing hears nothing"


SETTINGS = """
import os, threading
import torch, torch._inductor.config as inductor, torch._functorch.config as functorch, torch._dynamo.config as dynamo
AFTER
def show():
    print(inductor.fx_graph_remote_cache, inductor.autotune_remote_cache, functorch.enable_remote_autograd_cache,
          dynamo.automatic_dynamic_remote_pgo, inductor.bundled_autotune_remote_cache)
show()
# Backward graphs are compiled in threads of autograd's.
thread = threading.Thread(target=show); thread.start(); thread.join()
print([name for name in os.environ if "REMOTE" in name])
"""


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_switches_are_on_in_every_thread_and_in_no_child_s_environment(programs: Programs, by_hand: bool) -> None:
    """A child in an environment without the package would go to a Redis of its own."""
    code = SETTINGS.replace("AFTER", "import pilotlight.torch" if by_hand else "")
    ran = programs.run(code, url=NOWHERE, env={"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"} if by_hand else {})
    assert ran.out == "True True True True None\n" * 2 + "[]\n"


def test_a_switch_that_the_user_sets_after_importing_torch_counts(programs: Programs) -> None:
    code = 'import os, torch\nos.environ["TORCHINDUCTOR_AUTOTUNE_REMOTE_CACHE"] = "0"\n' + SETTINGS.replace("AFTER", "")
    ran = programs.run(code, url=NOWHERE)
    assert ran.out == "True False True True None\n" * 2 + "['TORCHINDUCTOR_AUTOTUNE_REMOTE_CACHE']\n"


def test_with_a_url_nobody_understands_torch_is_left_alone(programs: Programs) -> None:
    """With its switches set and nothing in the place of its Redis, torch would go and ask one on this host."""
    ran = programs.run(
        "import os, torch\nprint(*(name for name in os.environ if name.startswith('TORCHINDUCTOR_') and 'REMOTE' in name))",
        url="gopher://nowhere",
    )
    assert ran.out == "\n"
    assert "hint:" in ran.err


def test_with_a_url_it_costs_less_than_thirty_milliseconds() -> None:
    assert import_seconds({"PILOTLIGHT_URL": NOWHERE}) < 0.030


@pytest.mark.parametrize(
    ("env", "graphs_and_autograd"),
    [
        ({"TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "0"}, ("False", "None")),
        ({"TORCHINDUCTOR_FX_GRAPH_CACHE": "0"}, ("None", "None")),
        ({"TORCHINDUCTOR_AUTOGRAD_CACHE": "0"}, ("True", "None")),
        ({"TORCHINDUCTOR_AUTOGRAD_CACHE": "0", "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": "1"}, ("True", "True")),
    ],
    ids=["graphs", "local graphs", "local autograd", "remote autograd"],
)
def test_settings_of_the_user_s_stay(programs: Programs, env: dict[str, str], graphs_and_autograd: tuple[str, str]) -> None:
    ran = programs.run(SETTINGS.replace("AFTER", ""), url=NOWHERE, env=env)
    graphs, autograd = graphs_and_autograd
    named = [name for name in env if "REMOTE" in name]
    assert ran.out == f"{graphs} True {autograd} True None\n" * 2 + f"{named}\n"


def test_it_says_where_it_is_and_what_it_did(programs: Programs, server: Pilotlight) -> None:
    cold = programs.run(COMPILE, url=url_of(server))
    assert cold.out == "equal True\n"
    first, *rest = [line for line in cold.err.splitlines() if line.startswith("pilotlight")]
    assert first.startswith(f"pilotlight: {url_of(server)}, ")
    assert first.endswith(" ms")
    assert rest == [
        f"pilotlight: 0 hits, {cold.report_total('miss')} misses ({cold.report_total('miss')} absent), "
        f"{cold.report_total('put')} puts; 0.0 s of compiling saved"
    ]
    warm = programs.run(COMPILE, url=url_of(server), env={"PILOTLIGHT_QUIET": "1"})
    assert warm.out == "equal True\n"
    assert warm.err == ""
    assert (warm.count("hit", "fx-graph"), warm.count("hit", "aot-autograd")) == (1, 1)
    assert warm.report["saved_ms"] > 0


NO_GRAPHS = {"TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "0"}
NO_KERNELS = {"PILOTLIGHT_KERNELS": "0"}
NO_PROFILES = {"TORCH_DYNAMO_AUTOMATIC_DYNAMIC_REMOTE_PGO": "0"}


# What a program with a kernel asks first.
KERNEL = "import torch\nfrom pilotlight.torch.toolchain import toolchain\ntoolchain('g++').answers()\n"


@pytest.mark.parametrize(
    ("code", "env", "parts", "off"),
    [
        (COMPILE, NO_KERNELS, "graphs and profiles, kernels off", ["kernels"]),
        (COMPILE, NO_GRAPHS | NO_KERNELS, "profiles, graphs and kernels off", ["graphs", "kernels"]),
        (KERNEL, NO_GRAPHS | NO_PROFILES, "kernels, graphs and profiles off", ["graphs", "profiles"]),
    ],
    ids=["kernels", "graphs and kernels", "graphs and profiles"],
)
def test_it_says_what_is_switched_off(
    programs: Programs, server: Pilotlight, code: str, env: dict[str, str], parts: str, off: list[str]
) -> None:
    ran = programs.run(code, url=url_of(server), env=env)
    first = next(line for line in ran.err.splitlines() if line.startswith("pilotlight"))
    assert first.startswith(f"pilotlight: {url_of(server)}, {parts}, round trip "), ran.err
    assert ran.report["off"] == off


def test_a_rank_says_which_it_is(programs: Programs, server: Pilotlight) -> None:
    ran = programs.run(COMPILE, url=url_of(server), env={"RANK": "11", "LOCAL_RANK": "3", "PILOTLIGHT_SUMMARY": "1"})
    said = [line for line in ran.err.splitlines() if line.startswith("pilotlight")]
    assert len(said) == 1, "only the first rank of a host has a start line"
    assert said[0].startswith("pilotlight: rank 11: 0 hits, ")
    assert (ran.report["rank"], ran.report["local_rank"]) == (11, 3)
    server.stop()
    alone = programs.run(COMPILE, url=url_of(server), env={"LOCAL_RANK": "0"})
    start, notice, *_ = [line for line in alone.err.splitlines() if line.startswith("pilotlight")]
    assert start == f"pilotlight: local rank 0: {url_of(server)}, graphs, kernels and profiles, no answer"
    assert notice.startswith("pilotlight: local rank 0: the cache at ")
    assert "rank" not in alone.report


def test_imported_by_hand_after_the_compiler_it_does_the_same(programs: Programs, server: Pilotlight) -> None:
    code = "import torch._inductor.compile_fx, torch._dynamo.pgo\nimport pilotlight.torch\nimport pilotlight.torch\n" + COMPILE
    by_hand = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "PILOTLIGHT_SUMMARY": "0"}
    programs.run(code, url=url_of(server), env=by_hand)
    warm = programs.run(code, url=url_of(server), env=by_hand)
    assert warm.out == "equal True\n"
    assert (warm.count("hit", "fx-graph"), warm.count("hit", "aot-autograd")) == (1, 1)
    assert not any("saved" in line for line in warm.err.splitlines())


def test_a_url_that_cannot_be_understood_ends_nothing(programs: Programs) -> None:
    ran = programs.run(COMPILE, url="gopher://nowhere")
    assert ran.out == "equal True\n"
    assert "PILOTLIGHT_URL" in ran.err


def test_children_are_silent(programs: Programs, server: Pilotlight) -> None:
    code = """
import multiprocessing, os, sys
import torch
from pilotlight import _client, _summary

def child():
    _summary.announce(_client.client(), ["kernels"])
    print("asked", _client.client().put(b"k-%d" % os.getpid(), b"v"), flush=True)

if __name__ == "__main__":
    _client.client().put(b"parent", b"v")
    for how in ("spawn", "fork"):
        process = multiprocessing.get_context(how).Process(target=child)
        process.start(); process.join(); print(how, process.exitcode, flush=True)
    if (pid := os.fork()) == 0:
        child(); sys.exit(0)
    os.waitpid(pid, 0)
"""
    ran = programs.run(code, url=url_of(server))
    assert ran.out.splitlines() == ["asked True", "spawn 0", "asked True", "fork 0", "asked True"]
    assert ran.err == ""
    assert len(ran.reports) == 1, "only the program itself reports"


def test_a_function_of_another_shape_is_left_alone_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    from pilotlight.torch import replacing

    class Cache:
        def get(self, key: str) -> str:
            return key

        def put(self, key: str, value: str, surprise: int) -> str:
            return key

        @staticmethod
        def clear(surprise: int) -> None: ...

    replacing._warned = False
    plain_put, plain_clear = Cache.put, Cache.clear
    assert replacing.replace(Cache, "get", "self key", lambda original: lambda self, key: "ours")
    assert not replacing.replace(Cache, "put", "self key value", lambda original: lambda self, key, value: "ours")
    assert not replacing.replace(Cache, "clear", "", lambda original: lambda: None)
    assert not replacing.replace(Cache, "missing", "", lambda original: lambda: None)
    assert Cache().get("k") == "ours"
    assert (Cache.put, Cache.clear) == (plain_put, plain_clear)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_what_may_follow_the_parameters_is_not_looked_at() -> None:
    from pilotlight.torch import replacing

    class Cache:
        @staticmethod
        @functools.cache
        def get(key: str, later: int = 0) -> str:
            return key

    replacing._warned = False
    assert not replacing.replace(Cache, "get", "key", lambda original: lambda key, later=0: "ours")
    assert not replacing.replace(Cache, "get", "name ...", lambda original: lambda key, later=0: "ours")
    assert not replacing.replace_if_there(Cache, "missing", "...", lambda original: lambda: None)
    assert replacing.replace(Cache, "get", "key ...", lambda original: lambda key, later=0: original(key, later) + "+")
    assert Cache.get("k") == "k+"
    Cache.get.cache_clear()  # torch's own code calls it


def test_each_of_several_replaces_once() -> None:
    from pilotlight.torch import replacing

    class Cache:
        def get(self, key: str) -> str:
            return key

        @classmethod
        def kind(cls) -> str:
            return ""

    def dotted(original: Any) -> Any:
        return lambda self, key: original(self, key) + "."

    for _ in range(2):
        replacing.replace(Cache, "get", "self key", lambda original: lambda self, key: original(self, key) + "+")
        replacing.replace(Cache, "get", "self key", dotted)
        replacing.replace(Cache, "kind", "cls", lambda original: lambda cls: original(cls) + cls.__name__)
    assert Cache().get("k") == "k+."
    assert Cache.kind() == "Cache"


def test_a_hook_that_fails_leaves_the_import_alone(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight import _hooks

    (tmp_path / "watched_by_test.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen: list[ModuleType] = []

    def failing(module: ModuleType) -> None:
        raise RuntimeError("of the hook's own")

    _hooks.when_imported("watched_by_test", failing)
    _hooks.when_imported("watched_by_test", seen.append)
    import watched_by_test  # type: ignore[import-not-found]

    assert watched_by_test.value == 1
    assert seen == [watched_by_test]
    _hooks.when_imported("watched_by_test", seen.append)
    assert seen == [watched_by_test] * 2, "of a module that is there already, at once"


def test_the_summary_names_the_reasons() -> None:
    from pilotlight._summary import Report

    report = Report()
    report.record("hit", "fx-graph", count=2, saved_ms=61_500)
    report.record("miss", "fx-graph", "absent", count=3)
    report.record("miss", "fx-graph", "fingerprint")
    report.record("drop", "pgo", "full")
    report.record("bypass", "aot-autograd", "Unsupported operator")
    report.record("refused", "fx-graph", "wrong type")
    assert report.lines() == [
        "2 hits, 4 misses (3 absent, 1 fingerprint), 0 puts; 61.5 s of compiling saved",
        "1 put dropped (1 full)",
        "1 entry refused (1 wrong type)",
        "1 graph bypassed the cache (1 Unsupported operator)",
    ]


@pytest.mark.parametrize(
    ("env", "did", "told"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"PILOTLIGHT_SUMMARY": "1"}, False, True),
        ({"PILOTLIGHT_SUMMARY": "0"}, True, False),
        ({"PILOTLIGHT_QUIET": "1", "PILOTLIGHT_SUMMARY": "1"}, True, False),
        ({"LOCAL_RANK": "3"}, True, False),
        ({"LOCAL_RANK": "3", "PILOTLIGHT_SUMMARY": "1"}, True, True),
    ],
)
def test_who_is_told(env: dict[str, str], did: bool, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight import _summary

    for variable in ("PILOTLIGHT_SUMMARY", "PILOTLIGHT_QUIET", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    report = _summary.Report()
    if did:
        report.record("hit", "pgo")
    monkeypatch.setattr(_summary, "report", report)
    assert _summary._wants_summary() == told


def test_a_report_that_cannot_be_written_is_told_and_the_summary_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pilotlight import _summary

    monkeypatch.setenv("PILOTLIGHT_REPORT", str(tmp_path / "absent" / "report.json"))
    monkeypatch.setenv("PILOTLIGHT_SUMMARY", "1")
    monkeypatch.setattr(_summary, "_started_pid", os.getpid())
    monkeypatch.setattr(_summary, "may_speak", lambda: True)
    _summary._finish()
    said = capsys.readouterr().err
    assert "pilotlight: cannot write PILOTLIGHT_REPORT: [Errno 2]" in said
    assert "s of compiling saved" in said


def test_the_worker_of_a_compile_pool_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from pilotlight import _summary

    monkeypatch.setattr(_summary, "_started_pid", os.getpid())
    monkeypatch.setattr(
        _summary, "sys", SimpleNamespace(modules={}, orig_argv=["python", "/x/torch/_inductor/compile_worker/__main__.py"])
    )
    assert not _summary.may_speak()
    monkeypatch.setattr(_summary, "sys", SimpleNamespace(modules={}, orig_argv=["python", "train.py"]))
    assert _summary.may_speak()
