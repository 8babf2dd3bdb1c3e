"""Over TLS all works the same, through a relay; only a thread that keeps the GIL costs leases.

Rules of this file:
    * The certificate is made for the test run, by the openssl command line, and names the
      loopback address alone. Where that, or the server, knows no TLS, the tests are skipped.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import redis
from tests.diary import WITHIN_S, Diary, until
from tests.ports import free_port

from multielect import ConnectionLostError, DemotionReason, ElectionGroup, aio
from multielect._connection.relay import Relay

from .certificates import make_certificate, start_tls_server

PREFIX = "tls"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that is its own authority; its key lies beside it."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def tls_url(binary: str, certificate: Path) -> Iterator[str]:
    """The address of a server that speaks TLS, with what is needed to trust it."""
    port = free_port()
    server = start_tls_server(binary, certificate, tls_port=port)
    try:
        yield f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
    finally:
        server.stop()


@pytest.fixture
def admin(tls_url: str) -> Iterator[redis.Redis]:
    """A client of the server, which holds no keys yet."""
    with redis.Redis.from_url(tls_url) as client:
        client.flushall()
        yield client


def a_group(url: str, diary: Diary, *, ttl: float) -> ElectionGroup:
    return ElectionGroup(
        url,
        prefix=PREFIX,
        ttl=ttl,
        on_elected=diary.elected,
        on_demoted=diary.demoted,
        on_error=diary.error,
    )


def keys(count: int) -> list[str]:
    return [f"election-{number}" for number in range(count)]


def test_leases_are_taken_refreshed_and_released(tls_url: str, admin: redis.Redis) -> None:
    diary = Diary()
    with a_group(tls_url, diary, ttl=0.9) as group:
        group.add_many(keys(50))
        diary.wait_for(lambda: len(diary.entries) == 50)
        until(lambda: group.counters.refreshes >= 6 * 50)
        assert group.counters.demoted == 0
        assert len(admin.keys("*:leader")) == 50
    assert diary.errors == []
    assert {entry.reason for entry in diary.demotions()} == {DemotionReason.STOPPED}
    assert not admin.keys("*:leader")


def test_more_is_carried_than_fits_a_buffer(tls_url: str, admin: redis.Redis) -> None:
    diary = Diary()
    long_keys = [f"{number}-{'x' * 480}" for number in range(5000)]
    group = a_group(tls_url, diary, ttl=10)
    group.add_many(long_keys)
    with group:
        diary.wait_for(lambda: len(diary.entries) == 5000)
        assert {election.key for election in group.led} == set(long_keys)
    assert diary.errors == []
    assert not admin.keys("*:leader")


def test_who_waits_is_woken_at_once(tls_url: str, admin: redis.Redis) -> None:
    with ElectionGroup(tls_url, prefix=PREFIX, ttl=60) as leader:
        assert leader.add("a").wait(WITHIN_S)
        with ElectionGroup(tls_url, prefix=PREFIX, ttl=60) as successor:
            election = successor.add("a")
            until(lambda: election.leader_id == leader.node_id)
            leader.stop()
            assert election.wait(WITHIN_S)
            assert successor.counters.wakeups == 1


def test_a_connection_that_is_killed_comes_back(tls_url: str, admin: redis.Redis) -> None:
    diary = Diary()
    with a_group(tls_url, diary, ttl=5) as group:
        group.add_many(keys(50))
        diary.wait_for(lambda: len(diary.entries) == 50)
        epochs = {election.key: election.epoch for election in group.led}
        for lost in range(1, 4):
            before = group.counters.refreshes
            admin.client_kill_filter(_type="pubsub", skipme=True)
            diary.wait_for(lambda lost=lost: len(diary.errors) == lost)  # type: ignore[misc]
            until(lambda before=before: group.counters.refreshes >= before + 50)  # type: ignore[misc]
        assert group.counters.reconnects == 3
        assert {election.key: election.epoch for election in group.led} == epochs
        assert diary.demotions() == []
    assert all(isinstance(error, ConnectionLostError) for error in diary.errors)
    assert not admin.keys("*:leader")


def test_a_kept_gil_costs_the_leases_but_cleanly(tls_url: str, admin: redis.Redis) -> None:
    """What the docs say of TLS, and so the contrast to `test_gil_held.py`."""
    diary = Diary()
    with a_group(tls_url, diary, ttl=0.9) as group:
        group.add_many(keys(50))
        diary.wait_for(lambda: len(diary.entries) == 50)
        ctypes.PyDLL(None).usleep(2_700_000)
        assert group.led == []
        diary.wait_for(lambda: len(diary.elections()) == 100)
    for key, epochs in diary.terms().items():
        assert len(epochs) == 2
        reasons = [None, DemotionReason.EXPIRED, None, DemotionReason.STOPPED]
        assert diary.told(key) == reasons


def test_from_a_loop(tls_url: str, admin: redis.Redis) -> None:
    async def scenario() -> None:
        async with aio.ElectionGroup(tls_url, prefix=PREFIX, ttl=60) as group:
            assert await group.add("a").wait(WITHIN_S)

    asyncio.run(scenario(), debug=True)
    assert not admin.keys("*:leader")


def test_nothing_is_left(tls_url: str, admin: redis.Redis) -> None:
    def come_and_go() -> None:
        with ElectionGroup(tls_url, prefix=PREFIX, ttl=60) as group:
            assert group.add("a").wait(WITHIN_S)

    def descriptors() -> int:
        gc.collect()
        return len(list(Path("/dev/fd").iterdir()))

    come_and_go()
    threads = set(threading.enumerate())
    until(lambda: not [t for t in threading.enumerate() if t.name == "multielect-tls"])
    open_before, clients = descriptors(), len(admin.client_list())
    for _ in range(20):
        come_and_go()
    until(lambda: not set(threading.enumerate()) - threads)
    until(lambda: descriptors() <= open_before)
    until(lambda: len(admin.client_list()) <= clients)


@pytest.mark.parametrize("direction", ["out", "in"])
def test_a_slow_end_gets_every_byte(direction: str) -> None:
    """The relay alone, between sockets that take little at a time."""
    encrypted, server = socket.socketpair()
    encrypted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    # A socket without TLS does as well: the relay only sends, receives and waits.
    relay = Relay(cast("ssl.SSLSocket", encrypted))
    relay._far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    relay.near.settimeout(WITHIN_S)
    server.settimeout(WITHIN_S)
    source, sink = (relay.near, server) if direction == "out" else (server, relay.near)
    sent = random.Random(1).randbytes(1 << 20)
    sender = threading.Thread(target=source.sendall, args=(sent,))
    with server, relay.near, encrypted:
        relay.start()
        sender.start()
        received = bytearray()
        while len(received) < len(sent):
            received += sink.recv(1000)
        assert received == sent
        sender.join(WITHIN_S)
        # Whichever end is closed, that is the end of it; the other end is told if it is ours.
        source.close()
        if direction == "in":
            assert sink.recv(1) == b""
        relay.join(WITHIN_S)
        assert not relay.is_alive()
