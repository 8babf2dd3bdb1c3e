"""TLS that does not come about: one end speaks it, a certificate is not trusted, a file is gone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from tests.diary import WITHIN_S
from tests.ports import free_port

from multielect import ConfigError, ConnectionLostError, ElectionGroup, ServerUnusableError
from multielect._connection.server import _FIRST_TLS_WAIT_S
from multielect.embedded import EmbeddedServer

from .certificates import make_certificate, start_tls_server
from .conftest import Stand
from .record import Record


@dataclass(frozen=True)
class Ports:
    """A server that listens with TLS, and without."""

    tls: int
    plain: int
    server: EmbeddedServer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def ports(binary: str, certificate: Path) -> Iterator[Ports]:
    tls, plain = free_port(), free_port()
    server = start_tls_server(binary, certificate, tls_port=tls, port=plain)
    try:
        yield Ports(tls, plain, server)
    finally:
        server.stop()


def refused(told: Record, words: str) -> None:
    error = told.wait_error(ServerUnusableError, words)
    assert isinstance(error, ServerUnusableError)
    assert error.reason == "tls"
    # Said at once: nothing was waited for in vain before.
    assert told.errors[0] is error
    assert told.entries == []


def test_without_tls_to_a_port_with(ports: Ports, stand: Stand) -> None:
    _, told = stand(f"redis://127.0.0.1:{ports.tls}", "k", ttl=10.0)
    refused(told, f"127.0.0.1:{ports.tls}: it uses TLS, and this node does not. Use rediss://")


def test_with_tls_to_a_port_without(ports: Ports, certificate: Path, stand: Stand) -> None:
    url = f"rediss://127.0.0.1:{ports.plain}?ssl_ca_certs={certificate}"
    _, told = stand(url, "k", ttl=10.0)
    refused(told, f"127.0.0.1:{ports.plain}: it does not use TLS. Use redis://")


def test_a_certificate_that_nobody_trusts(ports: Ports, stand: Stand) -> None:
    group, told = stand(f"rediss://127.0.0.1:{ports.tls}", "k")
    refused(told, "its certificate is not trusted: self-signed certificate. Pass the file of")
    assert not group["k"].is_leader


def test_a_certificate_of_another_host(ports: Ports, certificate: Path, stand: Stand) -> None:
    _, told = stand(f"rediss://localhost:{ports.tls}?ssl_ca_certs={certificate}", "k")
    refused(told, "its certificate is for another name: Hostname mismatch")


def test_a_server_that_wants_a_certificate_of_its_client(
    ports: Ports, certificate: Path, stand: Stand
) -> None:
    with redis.Redis.from_url(ports.server.url) as admin:
        admin.config_set("tls-auth-clients", "yes")
        try:
            url = f"rediss://127.0.0.1:{ports.tls}?ssl_ca_certs={certificate}"
            _, told = stand(url, "k")
            refused(told, "It may require a client certificate: ssl_certfile=FILE")
            key = certificate.with_name("key.pem")
            group, _ = stand(f"{url}&ssl_certfile={certificate}&ssl_keyfile={key}", "k")
            assert group["k"].wait(WITHIN_S)
        finally:
            admin.config_set("tls-auth-clients", "no")


def test_a_slow_handshake_is_waited_for(ports: Ports, certificate: Path, stand: Stand) -> None:
    url = f"rediss://127.0.0.1:{ports.tls}?ssl_ca_certs={certificate}"
    os.kill(ports.server.pid, signal.SIGSTOP)
    # Longer than what a first attempt waits before it asks whether the port speaks TLS at all.
    waking = threading.Timer(2 * _FIRST_TLS_WAIT_S, os.kill, (ports.server.pid, signal.SIGCONT))
    waking.start()
    try:
        group, told = stand(url, "k", ttl=10.0)
        assert group["k"].wait(WITHIN_S)
        assert told.errors == []
    finally:
        waking.join()


def test_a_port_that_hangs_up_in_the_midst(stand: Stand) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, told = stand(f"rediss://127.0.0.1:{listener.getsockname()[1]}", "k")
        listener.settimeout(WITHIN_S)
        link, _ = listener.accept()
        link.recv(1 << 16)
        link.close()
        told.wait_error(ConnectionLostError, "cannot connect to 127.0.0.1")


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_ca_path"])
def test_a_file_that_is_not_there_is_named_at_the_door(name: str, certificate: Path) -> None:
    more = f"&ssl_certfile={certificate}" if name == "ssl_keyfile" else ""
    with pytest.raises(ConfigError, match=rf"{name}: .*'/nowhere/file\.pem'"):
        ElectionGroup(f"rediss://127.0.0.1:1?{name}=/nowhere/file.pem{more}", prefix="p")


def test_a_file_without_a_certificate(tmp_path: Path, certificate: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    for more, said in [
        (f"ssl_ca_certs={empty}", f"ssl_ca_certs: no certificate in '{empty}'"),
        (f"ssl_certfile={empty}", f"no certificate with its key in ssl_certfile '{empty}', or"),
        (f"ssl_keyfile={certificate}", "ssl_keyfile needs ssl_certfile"),
    ]:
        with pytest.raises(ConfigError) as caught:
            ElectionGroup(f"rediss://127.0.0.1:1?{more}", prefix="p")
        assert said in str(caught.value)


def test_a_file_that_is_gone_later(
    ports: Ports, certificate: Path, tmp_path: Path, stand: Stand
) -> None:
    copy = tmp_path / "authority.pem"
    shutil.copy(certificate, copy)
    given = f"rediss://127.0.0.1:{ports.tls}?ssl_ca_certs={copy}"
    with redis.Redis.from_url(given) as client:
        group, told = stand(client, "k")
        assert group["k"].wait(WITHIN_S)
        copy.unlink()
        with redis.Redis.from_url(ports.server.url) as admin:
            admin.client_kill_filter(_type="pubsub")
        words = f"a file for TLS can no longer be used: ssl_ca_certs: cannot read '{copy}'"
        error = told.wait_error(ServerUnusableError, words)
        assert isinstance(error, ServerUnusableError)
        assert error.reason == "tls"
        shutil.copy(certificate, copy)
        assert group["k"].wait(WITHIN_S)
