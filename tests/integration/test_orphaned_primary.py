"""A primary that was stopped, and lost its office meanwhile, answers what waited in its socket.

The epoch that it then gives is its time, and so above that of the lawful leader, whom the replica
that was promoted had elected before. One fenced write under it must not shut the lawful leader out
for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from tests.diary import until
from tests.ports import free_port
from tests.streams.rig import Work, append, check_whole, done, written

from multielect import DemotionReason, StaleEpochError, Term
from multielect.embedded import EmbeddedServer
from multielect.fencing import Fence
from multielect.streams import StreamConsumer

from .conftest import Stand
from .lease import PREFIX
from .record import Record

ORPHAN_TTL_S = 60.0
"""What its server is late with must still count where it was asked for."""


class Pair:
    """A primary and its replica, the first of which can be stopped and replaced by the second."""

    def __init__(self, binary: str) -> None:
        port = free_port()
        self._open = contextlib.ExitStack()
        listening: dict[str, str | int] = {
            "port": port,
            "bind": "127.0.0.1",
            "repl-diskless-sync-delay": 0,
        }
        self.old = self._open.enter_context(EmbeddedServer(binary=binary, settings=listening))
        self.new = self._open.enter_context(EmbeddedServer(binary=binary))
        self.client: Any = self._open.enter_context(redis.Redis.from_url(self.new.url))
        self._open.callback(os.kill, self.old.pid, signal.SIGCONT)
        self.client.replicaof("127.0.0.1", port)
        until(lambda: self.client.info("replication")["master_link_status"] == "up")

    def stop_old(self) -> None:
        os.kill(self.old.pid, signal.SIGSTOP)

    def promote_new(self) -> None:
        self.client.replicaof("NO", "ONE")

    def wake_old(self) -> None:
        os.kill(self.old.pid, signal.SIGCONT)

    def wait_until_after(self, epoch: int) -> None:
        """Let the time pass an epoch that was minted by it."""

        def now_ms() -> int:
            seconds, microseconds = self.client.time()
            return int(seconds * 1000 + microseconds // 1000)

        until(lambda: now_ms() > epoch)

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def pair(binary: str) -> Iterator[Pair]:
    made = Pair(binary)
    try:
        yield made
    finally:
        made.close()


class Orphan:
    """A node whose connection goes to the old primary."""

    def __init__(self, pair: Pair, stand: Stand) -> None:
        self._pair = pair
        self.group, self._told = stand(pair.old.url, "another", ttl=ORPHAN_TTL_S)
        self._told.wait_elected("another")

    def ask(self, key: str) -> None:
        """Have an acquire wait in the socket of the old primary, which does not run."""
        asked = self.group.counters.checks
        self.group.add(key)
        until(lambda: self.group.counters.checks > asked)

    def elected(self, key: str) -> Term:
        return self._told.wait_elected(key).term

    def write(self, term: Term) -> None:
        """Write to the new primary, as a client does that follows it, and then be gone."""
        Fence(self._pair.client, self.group).set(term, f"{PREFIX}:data", "orphan")
        self.group.stop(timeout=0.5)


def test_the_lawful_leader_gives_up_and_leads_again(pair: Pair, stand: Stand) -> None:
    orphan = Orphan(pair, stand)
    pair.stop_old()
    orphan.ask("k")
    pair.promote_new()
    group, told = stand(pair.new.url, "k")
    lawful = told.wait_elected("k").term
    fence = Fence(pair.client, group)
    assert fence.set(lawful, f"{PREFIX}:data", "lawful")
    pair.wait_until_after(lawful.epoch)
    pair.wake_old()

    unlawful = orphan.elected("k")
    assert unlawful.epoch > lawful.epoch, "else there is nothing to be seen here"
    orphan.write(unlawful)
    with pytest.raises(StaleEpochError):
        fence.set(lawful, f"{PREFIX}:data", "lawful")
    assert told.wait_demoted("k").reason is DemotionReason.SUPERSEDED
    again = told.wait_elected("k", above=unlawful.epoch).term
    assert fence.set(again, f"{PREFIX}:data", "lawful again")
    assert pair.client.get(f"{PREFIX}:data") == b"lawful again"


def test_a_consumer_goes_on(pair: Pair, stand: Stand) -> None:
    orphan = Orphan(pair, stand)
    pair.stop_old()
    orphan.ask("s0")
    pair.promote_new()
    append(pair.client, 3, keys=["s0"])
    diary = Record()
    consumer = StreamConsumer(
        pair.new.url,
        prefix=PREFIX,
        partitions=["s0"],
        handler=Work(),
        ttl=5.0,
        on_error=diary.error,
    )
    with consumer:
        until(lambda: done(pair.client, 3, ["s0"]))
        ((_, lawful), *_) = written(pair.client, "s0")
        pair.wait_until_after(lawful)
        pair.wake_old()
        unlawful = orphan.elected("s0")
        assert unlawful.epoch > lawful
        orphan.write(unlawful)
        append(pair.client, 3, first=3, keys=["s0"])
        until(lambda: done(pair.client, 6, ["s0"]))
    check_whole(pair.client, 6, ["s0"])
    assert written(pair.client, "s0")[-1][1] > unlawful.epoch
    assert any(isinstance(error.__cause__, StaleEpochError) for error in diary.errors)
