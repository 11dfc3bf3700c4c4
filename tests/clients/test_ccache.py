"""ccache with the server as its remote storage: a second machine's build hits."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from devtools.servers import Pilotlight
from tests.clients.conftest import Launch, need_tool

SOURCES = {
    "answer.hpp": "#pragma once\n#include <vector>\nint answer(const std::vector<int>&);\n",
    "answer.cpp": '#include "answer.hpp"\n#include <numeric>\n'
    "int answer(const std::vector<int>& v) { return std::accumulate(v.begin(), v.end(), 0); }\n",
    "text.cpp": "#include <string>\nstd::string text(int n) { return std::to_string(n * 2); }\n",
    "main.cpp": '#include "answer.hpp"\nint main() { return answer({40, 2}) - 42; }\n',
}


class Machine:
    """A checkout's sources and an empty local ccache: what a fresh build machine has."""

    def __init__(self, home: Path, sources: Path, remote: str) -> None:
        self._home = home
        self._sources = sources
        self._ccache = need_tool("ccache")
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("CCACHE_")}
        # Named both ways: "secondary" is what versions before 4.7 say.
        self._env |= {
            "CCACHE_DIR": str(home),
            "CCACHE_CONFIGPATH": str(home / "none.conf"),
            "CCACHE_REMOTE_STORAGE": remote,
            "CCACHE_SECONDARY_STORAGE": remote,
        }
        home.mkdir()

    def build(self) -> dict[str, bytes]:
        """Compile every source; returns the objects' bytes."""
        gxx = shutil.which("g++")
        if gxx is None:
            pytest.skip("there is no g++")
        objects = {}
        for source in sorted(self._sources.glob("*.cpp")):
            target = self._home / f"{source.stem}.o"
            command = [self._ccache, gxx, "-O1", "-c", source.name, "-o", str(target)]
            subprocess.run(command, cwd=self._sources, env=self._env, check=True, capture_output=True)
            objects[source.name] = target.read_bytes()
        return objects

    def stats(self) -> dict[str, int]:
        text = subprocess.run([self._ccache, "--print-stats"], env=self._env, check=True, capture_output=True, text=True).stdout
        stats = {name: int(value) for name, value in (line.split("\t") for line in text.splitlines())}
        # Before 4.7 they were called secondary storage.
        return {name.replace("secondary_storage", "remote_storage"): value for name, value in stats.items()}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    directory = tmp_path / "sources"
    directory.mkdir()
    for name, text in SOURCES.items():
        (directory / name).write_text(text)
    return directory


def _storage(server: Pilotlight, protocol: str) -> str:
    return server.redis_url if protocol == "redis" else f"{server.http_url}/cache"


@pytest.mark.parametrize("protocol", ["redis", "http"])
def test_second_build_hits_in_a_fresh_cache_directory(launch: Launch, tmp_path: Path, sources: Path, protocol: str) -> None:
    server = launch()
    files = sum(name.endswith(".cpp") for name in SOURCES)

    first = Machine(tmp_path / "first", sources, _storage(server, protocol))
    built = first.build()
    stats = first.stats()
    assert stats["cache_miss"] == files
    assert stats.get("remote_storage_error", 0) == stats.get("remote_storage_timeout", 0) == 0

    server.stop()
    server.start()

    second = Machine(tmp_path / "second", sources, _storage(server, protocol))
    assert second.build() == built
    stats = second.stats()
    assert stats["cache_miss"] == 0
    assert stats["direct_cache_hit"] + stats["preprocessed_cache_hit"] == files
    assert stats["remote_storage_hit"] == files
    assert stats.get("remote_storage_error", 0) == stats.get("remote_storage_timeout", 0) == 0
