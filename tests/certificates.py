"""Authorities and certificates of our own, made by openssl."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from devtools import paths

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(directory: Path, arguments: Sequence[str]) -> None:
    binary = paths.tool("openssl")
    if binary is None:
        pytest.skip("openssl is not installed")
    subprocess.run([binary, *arguments], cwd=directory, check=True, capture_output=True)


class Authority:
    """An authority that signs certificates: `<name>.pem` and `<name>.key` in `directory`."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        names = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        openssl(directory, ["req", "-x509", *_KEY, "-days", "2", *names])

    @property
    def pem(self) -> Path:
        return self.directory / f"{self.name}.pem"

    def sign(self, name: str, subject: str, alternative: str) -> tuple[Path, Path]:
        """A certificate for `subject` (`/CN=...`), also called `alternative` (`DNS:...`): its file and its key's."""
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        (self.directory / f"{name}.ext").write_text(f"subjectAltName={alternative}\nbasicConstraints=CA:FALSE\n")
        openssl(self.directory, ["req", *_KEY, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr"])
        signing = ["-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-CAcreateserial", "-days", "2"]
        extensions = ["-extfile", f"{name}.ext", "-out", f"{name}.pem"]
        openssl(self.directory, ["x509", "-req", "-in", f"{name}.csr", *signing, *extensions])
        key.chmod(0o600)
        return certificate, key
