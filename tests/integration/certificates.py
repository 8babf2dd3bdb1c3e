"""Certificates for a test run, made by the openssl command line; and servers that use them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from multielect.embedded import EmbeddedServer, EmbeddedServerError


def make_certificate(folder: Path) -> Path:
    """Make a certificate of the loopback that is its own authority; its key lies beside it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=multielect test"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder / "certificate.pem"


def start_tls_server(binary: str, certificate: Path, **settings: str | int) -> EmbeddedServer:
    """Start a server that speaks TLS; skip where this one was built without."""
    server = EmbeddedServer(
        binary=binary,
        settings={
            "bind": "127.0.0.1",
            "tls-cert-file": str(certificate),
            "tls-key-file": str(certificate.with_name("key.pem")),
            "tls-ca-cert-file": str(certificate),
            "tls-auth-clients": "no",
            **{name.replace("_", "-"): value for name, value in settings.items()},
        },
    )
    try:
        server.start()
    except EmbeddedServerError as error:
        if "tls" not in str(error).lower():
            raise
        pytest.skip("this server was built without TLS")
    return server
