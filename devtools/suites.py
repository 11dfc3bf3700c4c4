"""Run the tests of Redis and of redis-py that we claim to pass against our server: `make test-suites`.

Both suites are fetched into `target/suites`, through apt-get and pip; none of their code is in this repository. What is run,
and what is left out for which reason, stands in tests/suites. What cannot be fetched is named on stderr and skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from devtools import paths
from devtools.install import install_venv, say
from devtools.servers import Pilotlight

SUITES = paths.ROOT / "target" / "suites"
LISTS = paths.ROOT / "tests" / "suites"
# The list was made for this one: tests come and go between versions.
REDIS_VERSION = "7.0."
REDIS_PY_MAJORS = (5, 8)
# These ask for a server that the suite starts and stops itself, or for replicas, snapshots and DEBUG commands we lack.
DENIED_TAGS = ("-needs:debug", "-needs:repl", "-needs:save", "-cluster", "-external:skip")


class Unavailable(Exception):
    """A suite cannot be had here; the message says why."""


def entries(file: Path) -> list[tuple[str, str]]:
    """The lines `what | name` of a list, without comments."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return [(what, name) for what, _, name in (line.partition(" | ") for line in lines)]


def fetch_redis() -> Path:
    """The distribution's source package of Redis, unpacked."""
    if shutil.which("apt-get") is None or shutil.which("tclsh") is None:
        raise Unavailable("it takes apt-get and tclsh")
    apt = SUITES / "apt"
    (apt / "lists").mkdir(parents=True, exist_ok=True)
    if not list(SUITES.glob("redis_*.orig.tar.*")):
        targets = [
            "apt-get",
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI) $(CODENAME) $(COMPONENT)",
            "Created-By: Packages",
        ]
        known = set(subprocess.run(targets, check=True, capture_output=True, text=True).stdout.splitlines())
        sources = sorted(f"deb-src {line.partition(' ')[2]}" for line in known if line.startswith(("Debian ", "Ubuntu ")))
        (apt / "sources.list").write_text("".join(f"{line}\n" for line in sources))
        # Directories of our own: nothing on the system changes, and nothing needs root.
        settings = {"Dir::Etc::SourceList": apt / "sources.list", "Dir::Etc::SourceParts": "/dev/null"}
        settings |= {"Dir::State::Lists": apt / "lists", "Dir::Cache": apt, "APT::Sandbox::User": ""}
        command = ["apt-get", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
        for words in (["update"], ["source", "--download-only", "redis"]):
            done = subprocess.run([*command, *words], cwd=SUITES, capture_output=True, text=True)
            if done.returncode != 0:
                raise Unavailable(f"apt-get {words[0]} failed: {(done.stderr.splitlines() or [''])[-1]}")
    return _unpack(next(SUITES.glob("redis_*.orig.tar.*")))


def fetch_redis_py(requirements: Path) -> Path:
    """The source distribution of a redis-py, unpacked: unlike the wheel it has the tests."""
    requirement = requirements.read_text().strip()
    archive = SUITES / f"{requirement.replace('==', '-')}.tar.gz"
    if not archive.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--dest",
            str(SUITES),
        ]
        done = subprocess.run([*command, requirement], capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(f"pip download failed: {(done.stderr.splitlines() or [''])[-1]}")
    return _unpack(archive)


def run_redis(server: Pilotlight, directory: Path) -> bool:
    """Every unit of the list; says how many tests passed, failed and were skipped."""
    listed = entries(LISTS / "redis.txt")
    skipped = "\n".join(name for what, name in listed if what != "unit")
    passed = True
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as skip_file:
        skip_file.write(skipped)
        skip_file.flush()
        command = ["./runtest", "--host", server.host, "--port", str(server.port), "--durable", "--tags", " ".join(DENIED_TAGS)]
        for unit in (name for what, name in listed if what == "unit"):
            words = [*command, "--skipfile", skip_file.name, "--single", unit]
            done = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=600)
            output = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
            count = Counter(re.findall(r"^\[(ok|err|skip|ignore|exception)\]", output, re.MULTILINE))
            failed = done.returncode != 0 or not count["ok"] or bool(count["err"] + count["exception"])
            left_out = f"{count['skip']} skipped, {count['ignore']} not for a server started before"
            say(f"redis {unit}: {'FAILED, ' if failed else ''}{count['ok']} passed, {left_out}")
            if failed:
                say(output)
            passed = passed and not failed
    return passed


def run_redis_py(server: Pilotlight, requirements: Path) -> bool:
    """Every file of the list that this version has, in both protocols."""
    directory = fetch_redis_py(requirements)
    venv = SUITES / f"venv-{requirements.stem}"
    install_venv(venv, [LISTS / "requirements.txt", requirements])
    files = [name for what, name in entries(LISTS / "redis-py.txt") if what == "file" and (directory / name).exists()]
    command = [str(venv / "bin" / "python"), "-m", "pytest", "-c", str(LISTS / "pytest.ini"), "--rootdir", str(directory)]
    command += [
        "-p",
        "devtools.suites_plugin",
        "-p",
        "no:cacheprovider",
        "-q",
        "--disable-warnings",
        "--tb=line",
        "--timeout=60",
    ]
    command += ["-m", "not onlycluster and not redismod and not ssl and not experimental"]
    command += ["--redis-url", f"{server.redis_url}/9"]
    passed = True
    for protocol in ("2", "3"):
        say(f"{directory.name}, RESP{protocol}")
        # Its own directory comes first on the path, where its package `tests` is.
        env = {**os.environ, "PYTHONPATH": f"{directory}:{paths.ROOT}"}
        words = [*command, "--protocol", protocol, *files]
        passed = subprocess.run(words, cwd=directory, env=env).returncode == 0 and passed
    return passed


def _unpack(archive: Path) -> Path:
    with tarfile.open(archive) as tar:
        top = SUITES / tar.getnames()[0].partition("/")[0]
        if not top.exists():
            tar.extractall(SUITES, filter="data")
    return top


def main(arguments: Sequence[str]) -> int:
    """Run the suites that are named, by default all."""
    SUITES.mkdir(parents=True, exist_ok=True)
    requirements = {f"redis-py-{n}": paths.ROOT / "tests" / "clients" / f"requirements-redis-{n}.txt" for n in REDIS_PY_MAJORS}
    failed = []
    for name in arguments or ["redis", *requirements]:
        try:
            with tempfile.TemporaryDirectory() as data_dir, Pilotlight(Path(data_dir) / "data", max_size="10GiB") as server:
                if name == "redis":
                    directory = fetch_redis()
                    if not directory.name.startswith(f"redis-{REDIS_VERSION}"):
                        raise Unavailable(f"this system has {directory.name}, and the list is for {REDIS_VERSION}x")
                    passed = run_redis(server, directory)
                else:
                    passed = run_redis_py(server, requirements[name])
        except Unavailable as error:
            say(f"warning: {name} SKIPPED: {error}")
            continue
        failed += [] if passed else [name]
    if failed:
        say(f"error: {', '.join(failed)} failed\nhint: a test that is out of scope goes into {LISTS.relative_to(paths.ROOT)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
