"""A CA and certificates of 127.0.0.1, made for one test run by the openssl command."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    """Files in PEM; `own` shows either side's certificate, with its key."""

    ca: Path
    own: Path
    cert: Path
    key: Path


def make_certificates(directory: Path) -> Certificates:
    """A CA of its own per directory."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    directory.mkdir(exist_ok=True)
    ca, key, cert, own = (directory / name for name in ("ca.pem", "key.pem", "cert.pem", "own.pem"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    _openssl("req", "-x509", *curve, "-keyout", str(directory / "ca.key"), "-out", str(ca),
             "-subj", "/CN=test CA", "-addext", "basicConstraints=critical,CA:TRUE",
             "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    _openssl("req", "-x509", *curve, "-keyout", str(key), "-out", str(cert),
             "-CA", str(ca), "-CAkey", str(directory / "ca.key"), "-subj", "/CN=test",
             "-addext", "basicConstraints=critical,CA:FALSE",
             "-addext", "subjectAltName=IP:127.0.0.1")  # fmt: skip
    own.write_text(cert.read_text() + key.read_text())
    return Certificates(ca, own, cert, key)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
