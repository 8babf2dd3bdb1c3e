"""`stop()` returns in time, whoever does not answer: Redis, a callback, or the GIL.

Rules of this file:
    * It is bounded from above by its timeout and `WIDE_S`, which is for a busy machine; what
      has nothing to wait for is bounded by far less than its timeout.
    * However it ends, this node leads nothing from its first moment on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.diary import WITHIN_S, Diary, until

from multielect import DemotionReason, ElectionGroup, Elector, Term, aio
from multielect._connection.connector import Connector
from multielect.embedded import EmbeddedServer

PREFIX = "stop-bounded"
WIDE_S = 3.0
LONG_S = 60.0


@contextmanager
def frozen(server: EmbeddedServer) -> Iterator[None]:
    """Freeze the server; it lives on afterwards."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def leading(url: str, diary: Diary, ttl: float = 60) -> ElectionGroup:
    """Return a group that leads a hundred elections."""
    group = ElectionGroup(
        url, prefix=PREFIX, ttl=ttl, on_elected=diary.elected, on_demoted=diary.demoted
    )
    group.add_many(f"election-{number}" for number in range(100))
    group.start()
    diary.wait_for(lambda: len(diary.entries) == 100)
    return group


def seconds_to_stop(group: ElectionGroup | Elector, timeout: float) -> float:
    before = time.monotonic()
    group.stop(timeout)
    return time.monotonic() - before


@pytest.mark.parametrize("timeout", [0.0, 0.5])
def test_while_redis_is_frozen(
    private_server: EmbeddedServer,
    timeout: float,
    record_property: Callable[[str, object], None],
) -> None:
    diary = Diary()
    group = leading(private_server.url, diary)
    election = group["election-7"]
    with frozen(private_server):
        took_s = seconds_to_stop(group, timeout)
        assert timeout <= took_s < timeout + WIDE_S
        record_property("stop_took_s", round(took_s, 3))
        assert not election.is_leader
        diary.wait_for(lambda: len(diary.entries) == 200)
        # Nor do its threads wait for Redis any longer.
        name = f"multielect-{group.node_id}"
        until(lambda: not [t for t in threading.enumerate() if t.name.startswith(name)], WIDE_S)
    assert {entry.reason for entry in diary.demotions()} == {DemotionReason.STOPPED}


def test_of_a_loop_while_redis_is_frozen(private_server: EmbeddedServer) -> None:
    diary = Diary()

    async def scenario() -> None:
        group = aio.ElectionGroup(
            private_server.url, prefix=PREFIX, ttl=60, on_demoted=diary.demoted
        )
        await group.start()
        assert await group.add("a").wait(WITHIN_S)
        with frozen(private_server):
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0.01)

            counting = asyncio.create_task(count())
            before = time.monotonic()
            await group.stop(0.5)
            assert 0.5 <= time.monotonic() - before < 0.5 + WIDE_S
            # The loop was free all the while.
            assert turns >= 10
            counting.cancel()
        assert diary.told("a") == [DemotionReason.STOPPED]

    asyncio.run(scenario(), debug=True)


def test_while_a_callback_blocks(redis_url: str) -> None:
    blocked, gate = threading.Event(), threading.Event()

    def block(_: Term) -> None:
        blocked.set()
        assert gate.wait(LONG_S)

    group = ElectionGroup(redis_url, prefix=PREFIX, ttl=60, on_elected=block)
    group.add("a")
    group.start()
    assert blocked.wait(WITHIN_S)
    try:
        assert 0.5 <= seconds_to_stop(group, 0.5) < 0.5 + WIDE_S
    finally:
        gate.set()


def test_with_nothing_in_the_way_it_does_not_wait(redis_url: str) -> None:
    group = leading(redis_url, Diary())
    assert seconds_to_stop(group, LONG_S) < WIDE_S


def test_with_nothing_in_the_way_the_connectors_thread_is_gone_as_well(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Connector.run

    def run_slowly(connector: Connector) -> None:
        run(connector)
        threading.Event().wait(0.2)

    monkeypatch.setattr(Connector, "run", run_slowly)
    group = leading(redis_url, Diary())
    assert seconds_to_stop(group, LONG_S) < WIDE_S
    connector = f"multielect-{group.node_id}-connect"
    assert connector not in {thread.name for thread in threading.enumerate()}


def test_while_threads_compete_for_the_gil(redis_url: str) -> None:
    diary = Diary()
    group = leading(redis_url, diary)
    ending = threading.Event()

    def spin() -> None:
        while not ending.is_set():
            sum(range(1000))

    def keep() -> None:
        while not ending.is_set():
            ctypes.PyDLL(None).usleep(100_000)

    rivals = [threading.Thread(target=target) for target in (spin, spin, keep)]
    for rival in rivals:
        rival.start()
    try:
        # Each step of it that needs the GIL may have to wait for it.
        assert seconds_to_stop(group, 10.0) < 10.0 + WIDE_S
        assert len(diary.entries) == 200
    finally:
        ending.set()
        for rival in rivals:
            rival.join()


def test_while_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        elector = Elector(f"redis://127.0.0.1:{unused.getsockname()[1]}", prefix=PREFIX)
        failed = threading.Event()
        group = ElectionGroup(
            f"redis://127.0.0.1:{unused.getsockname()[1]}",
            prefix=PREFIX,
            on_error=lambda _: failed.set(),
        )
        group.add("a")
        for subject in (group, elector):
            subject.start()
        assert failed.wait(WITHIN_S)
        for subject in (group, elector):
            assert seconds_to_stop(subject, LONG_S) < WIDE_S


def test_while_a_server_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # At this TTL an attempt to connect takes five seconds to fail.
        group = ElectionGroup(f"redis://127.0.0.1:{silent.getsockname()[1]}", prefix=PREFIX, ttl=60)
        group.add("a")
        group.start()
        peer, _ = silent.accept()
        with peer:
            assert peer.recv(100)
            assert seconds_to_stop(group, LONG_S) < WIDE_S


def test_from_many_threads_at_once(redis_url: str) -> None:
    diary = Diary()
    group = leading(redis_url, diary)
    together = threading.Barrier(4)
    took_s: list[float] = []

    def stop() -> None:
        together.wait(WITHIN_S)
        took_s.append(seconds_to_stop(group, LONG_S))

    threads = [threading.Thread(target=stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
    assert len(took_s) == 4
    assert max(took_s) < WIDE_S
    assert len(diary.entries) == 200


def test_twice_writes_to_nobody_else(redis_url: str) -> None:
    """Descriptors that a group has closed are other people's: nothing may be written there."""
    group = ElectionGroup(redis_url, prefix=PREFIX, ttl=60)
    group.add("a")
    group.start()
    assert group["a"].wait(WITHIN_S)
    highest = max(int(entry.name) for entry in Path("/dev/fd").iterdir())
    group.stop()
    with contextlib.ExitStack() as theirs:
        pairs = [socket.socketpair() for _ in range(highest)]
        for end in [end for pair in pairs for end in pair]:
            theirs.enter_context(end)
            end.setblocking(False)
        assert min(end.fileno() for pair in pairs for end in pair) < highest
        group.stop()
        for end in [end for pair in pairs for end in pair]:
            with pytest.raises(BlockingIOError):
                end.recv(1)
