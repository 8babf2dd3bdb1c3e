"""TLS outside of a handshake: checks its files, and whether a server uses it.

Rules of this file:
    * Each file is checked before it is needed, and named in the error. OpenSSL says that something
      is missing, but not what.
    * A separate connection finds out whether a server uses TLS, and only when a failed attempt left
      that open. It checks no certificate and sends no request.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError

_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_WRONG_HOST = {62: "name", 64: "address"}  # X509_V_ERR_HOSTNAME_MISMATCH, ..._IP_ADDRESS_MISMATCH
_EXPIRED = 10
_PLAIN_ANSWERS = (b"+", b"-")


def check_files(settings: Mapping[str, Any]) -> None:
    """Check that the files of TLS in a connection's settings can be read and used.

    Raises:
        ConfigError: if one cannot.
    """
    for name in _FILES:
        if settings.get(name):
            _check_file(name, settings[name])
    folder = settings.get("ssl_ca_path")
    if folder and not Path(folder).is_dir():
        raise ConfigError(f"ssl_ca_path: there is no folder {str(folder)!r}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificate, key = settings.get("ssl_certfile"), settings.get("ssl_keyfile")
    authorities = settings.get("ssl_ca_certs")
    try:
        if authorities:
            context.load_verify_locations(cafile=authorities)
    except ssl.SSLError as error:
        raise ConfigError(
            f"ssl_ca_certs: no certificate in {str(authorities)!r}: {error}"
        ) from error
    if key and not certificate:
        raise ConfigError("ssl_keyfile needs ssl_certfile: pass the certificate too")
    try:
        if certificate:
            # Without a password, OpenSSL would ask for it at the terminal.
            password = settings.get("ssl_password") or ""
            context.load_cert_chain(certificate, key or None, password=password)
    except ssl.SSLError as error:
        where = f"{str(certificate)!r}" + (f" and ssl_keyfile {str(key)!r}" if key else "")
        raise ConfigError(
            f"no certificate with its key in ssl_certfile {where}, or a wrong ssl_password: {error}"
        ) from error


def _check_file(name: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {str(path)!r}: {error.strerror}") from error


def certificate_fault(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    """Return why a certificate was not accepted, and what to do about it."""
    why = error.verify_message.rstrip(".")
    if error.verify_code in _WRONG_HOST:
        what = _WRONG_HOST[error.verify_code]
        return (
            f"its certificate is for another {what}: {why}",
            f"Connect by the {what} in the certificate, or give the server another certificate",
        )
    if error.verify_code == _EXPIRED:
        return f"its certificate has expired: {why}", "Give the server another certificate"
    return (
        f"its certificate is not trusted: {why}",
        "Pass the file of the authority that signed it: ssl_ca_certs=FILE",
    )


def speaks_plainly(host: str, port: int, timeout_s: float) -> bool:
    """Return whether a Redis without TLS answers at a port."""
    try:
        with socket.create_connection((host, port), timeout_s) as link:
            link.sendall(b"PING\r\n")
            return link.recv(1) in _PLAIN_ANSWERS
    except OSError:
        return False


def speaks_tls(host: str, port: int, timeout_s: float) -> bool:
    """Return whether a server that uses TLS answers at a port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # No certificate is needed, as nothing is sent or received.
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout_s) as link,
            context.wrap_socket(link, server_hostname=host),
        ):
            return True
    except ssl.SSLError as error:
        # An alert is an answer in TLS as well.
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
