"""The process' one client, made from the environment when it is first asked for."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Mapping
from typing import Final, TypedDict, cast

from pilotlight import _speech
from pilotlight._forks import Lock
from pilotlight._native import Client

URL_VARIABLE: Final = "PILOTLIGHT_URL"
# Each variable, in seconds, and the client's setting that it stands for.
TIMEOUT_VARIABLES: Final = {
    "PILOTLIGHT_CONNECT_TIMEOUT": "connect_timeout",
    "PILOTLIGHT_STALL_TIMEOUT": "stall_timeout",
    "PILOTLIGHT_TOTAL_TIMEOUT": "total_timeout",
    "PILOTLIGHT_TROUBLE_BUDGET": "trouble_budget",
}

# Each variable, and the client's setting that it stands for: PEM files for TLS.
TLS_VARIABLES: Final = {
    "PILOTLIGHT_CLIENT_CERT": "client_cert",
    "PILOTLIGHT_CLIENT_KEY": "client_key",
    "PILOTLIGHT_SERVER_CA": "server_ca",
}

# Each variable of signing, and the client's setting that it stands for.
SIGNING_VARIABLES: Final = {
    "PILOTLIGHT_SIGNING_KEY": "signing_key",
    "PILOTLIGHT_VERIFY": "verify",
    "PILOTLIGHT_TRUST": "trust",
    "PILOTLIGHT_NAMESPACE": "namespace",
}

_log = logging.getLogger("pilotlight")
# Without a handler anywhere, logging would write to stderr too, and the user would read everything twice.
_log.addHandler(logging.NullHandler())
_lock = Lock()
_client: Client | None = None
# All that were made, for what they have to say.
_made: list[Client] = []
_made_for: str | None = None


class Timeouts(TypedDict, total=False):
    """Settings of the client's, in seconds."""

    connect_timeout: float
    stall_timeout: float
    total_timeout: float
    trouble_budget: float


class Signing(TypedDict, total=False):
    """Who signs what is put, and whose signatures are asked for: names of files, a policy, a namespace."""

    signing_key: str
    verify: str
    trust: str
    namespace: str


def client() -> Client | None:
    """The client for `PILOTLIGHT_URL`, always the same one; `None` if that is unset, empty or cannot be understood.

    Never raises: who asks is a compiler at work. What is wrong with a setting is said once.
    """
    global _client, _made_for
    url = os.environ.get(URL_VARIABLE, "").strip()
    if url == _made_for:
        return _client
    with _lock:
        if url != _made_for:
            _client = _make(url)
            _made_for = url
        return _client


def tell(message: str) -> None:
    """Say something to the user: to the log, and on stderr unless `PILOTLIGHT_QUIET=1`."""
    _log.warning("%s", message)
    if not _speech.is_quiet():
        _speech.say(message)


def pass_notices() -> None:
    """Hand what the client has to say to `tell`. Cheap, and may be called after every operation."""
    for client in _made:
        while (notice := client.notice()) is not None:
            tell(notice)


def timeouts(environ: Mapping[str, str]) -> Timeouts:
    """The client's settings from the environment; one that is no number of seconds is said and left out."""
    found: dict[str, float] = {}
    for variable, setting in TIMEOUT_VARIABLES.items():
        text = environ.get(variable, "").strip()
        if not text:
            continue
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if seconds >= 0:
            found[setting] = seconds
        else:
            tell(f"{variable} is {text!r}, expected a number of seconds; using the default")
    return cast(Timeouts, found)


class TlsFiles(TypedDict, total=False):
    """PEM files for TLS."""

    client_cert: str
    client_key: str
    server_ca: str


def tls_files(environ: Mapping[str, str]) -> TlsFiles:
    """The client's files for TLS from the environment."""
    found = {setting: environ[variable] for variable, setting in TLS_VARIABLES.items() if environ.get(variable)}
    return cast(TlsFiles, found)


def signing(environ: Mapping[str, str]) -> Signing:
    """The client's settings from the environment; the usual trust file where none is named. A key is a file, never a value."""
    found = {setting: environ[variable] for variable, setting in SIGNING_VARIABLES.items() if environ.get(variable)}
    if "trust" not in found and (usual := _usual_trust_file(environ)) is not None:
        found["trust"] = usual
    return cast(Signing, found)


def _usual_trust_file(environ: Mapping[str, str]) -> str | None:
    """Where `pilotlight keys trust` writes."""
    chosen = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(chosen):
        home = environ.get("HOME")
        if not home:
            return None
        chosen = os.path.join(home, ".config")
    path = os.path.join(chosen, "pilotlight", "keys", "trusted.toml")
    return path if os.path.exists(path) else None


def make(url: str) -> Client:
    """A client for `url` with the settings of the environment. Raises `ValueError` for a URL that cannot be understood."""
    made = Client(url, **timeouts(os.environ), **tls_files(os.environ), **signing(os.environ))
    if not _made:
        atexit.register(pass_notices)
    _made.append(made)
    return made


def _make(url: str) -> Client | None:
    if not url:
        return None
    try:
        return make(url)
    except ValueError as error:
        # The message has a hint and no password.
        tell(f"{URL_VARIABLE}: {error}")
        return None
