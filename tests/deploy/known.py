"""What there is to be set: every flag, variable and key that this build knows, as it says itself."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from devtools import paths

DEPLOY = paths.ROOT / "deploy"
DOCS = [paths.ROOT / "docs" / name for name in ("deployment.md", "sizing.md")]


def pilotlight(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command, with no variables but `env`: those of the shell must not decide."""
    command = [str(paths.pilotlight()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=dict(env or {}), stdin=subprocess.DEVNULL, timeout=60)


@functools.cache
def help_of(*command: str) -> str:
    done = pilotlight(*command, "--help")
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def subcommands(*command: str) -> frozenset[str]:
    """The commands below this one."""
    _, found, rest = help_of(*command).partition("\nCommands:\n")
    listed = rest.split("\n\n")[0] if found else ""
    return frozenset(re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE))


@functools.cache
def settings() -> frozenset[str]:
    """The keys of `serve`'s configuration file."""
    return frozenset(re.findall(r"^# ([a-z_]+) = ", pilotlight("config", "--example").stdout, re.MULTILINE))


@functools.cache
def variables() -> frozenset[str]:
    """`serve`'s variables, and those of the commands and the plug-in."""
    source = (paths.ROOT / "crates" / "pilotlight" / "src" / "environment.rs").read_text()
    table = re.search(r"const OTHERS: \[&str; \d+\] = \[(.*?)\];", source, re.DOTALL)
    assert table is not None
    others = re.findall(r'"([A-Z_]+)"', table.group(1))
    return frozenset(f"PILOTLIGHT_{name}" for name in [*others, *(key.upper() for key in settings())])


def documents() -> Iterator[Path]:
    """Every file that names settings for others to copy."""
    yield from (path for path in sorted(DEPLOY.rglob("*")) if path.is_file())
    yield from DOCS


def commands(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Every command of ours in a text, in prose and in lists of words too: what is called, and the flags it is given."""
    plain = re.sub(r"\\\n", " ", text).translate(str.maketrans("", "", "\"',[]"))
    for match in re.finditer(r"(?:^|[\s`/(])pilotlight +([^\n`|&;#]*)", plain):
        words = match.group(1).split()
        called: list[str] = []
        while words and words[0] in subcommands(*called):
            called.append(words.pop(0))
        if called:
            yield called, [word.partition("=")[0].rstrip(".:)") for word in words if re.match(r"--[a-z]", word)]


def validate(arguments: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """`pilotlight serve --validate-config` with a deployment's own arguments and environment."""
    assert arguments[0] == "serve"
    return pilotlight(*arguments, "--validate-config", env=env)
