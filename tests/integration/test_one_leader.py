"""Promise 1: one leader, by a deadline that counts from the send, also for a frozen process.

Two processes stand for one election, the first of them behind a wire that the test holds. What
they believe is sampled inside them, on a clock that both share.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from tests.diary import until

from multielect import ConnectionLostError
from multielect._runtime.clock import Clock

from .conftest import Stand
from .lease import PREFIX, Lease
from .process import Candidate, overlaps
from .proxy import Command, Proxy, script_name

TTL_S = 1.2
TTL_NS = 1_200_000_000


class At:
    """Acts on the first command of one of our scripts, once armed.

    Attributes:
        seen_ns: when the proxy saw it, a little after the node sent it.
        previous_ns: when it saw the script before it.
    """

    def __init__(
        self, proxy: Proxy, script: str, act: Callable[[], None], *, armed: bool = True
    ) -> None:
        self.seen_ns = 0
        self.previous_ns = 0
        self.is_armed = armed
        self._script = script
        self._act = act
        proxy.on_command = self

    def __call__(self, command: Command) -> None:
        if self.seen_ns or script_name(command) is None:
            return
        if self.is_armed and script_name(command) == self._script:
            self.seen_ns = Clock().now_ns()
            self._act()
        else:
            self.previous_ns = Clock().now_ns()


def assert_no_overlap(first: Candidate, second: Candidate) -> None:
    """Hold what both believed until now against each other, once the second leads."""
    second.wait("believes")
    second.say("stop")
    assert second.wait_end() == 0
    assert first.beliefs()
    assert second.beliefs()
    assert overlaps(first.beliefs(), second.beliefs()) == []


@pytest.mark.parametrize(("late", "counts"), [(0.2, True), (0.5, False)])
def test_a_late_answer_to_a_refresh_makes_no_second_leader(
    late: float, counts: bool, proxy: Proxy, redis_url: str
) -> None:
    def slow() -> None:
        proxy.reply_delay_s = late * TTL_S
        proxy.drops_requests = True

    refresh = At(proxy, "refresh", slow, armed=False)
    with Candidate(proxy.url, prefix=PREFIX, key="k", ttl=TTL_S) as first:
        first.wait("elected")
        with Candidate(redis_url, prefix=PREFIX, key="k", ttl=TTL_S) as second:
            second.wait("started")
            refresh.is_armed = True
            ended = first.wait("demoted")
            began = second.wait("elected")
            assert ended["reason"] == "EXPIRED"
            assert ended["at_ns"] <= refresh.seen_ns + 0.9 * TTL_NS
            # An answer that comes after the response timeout leaves the older deadline.
            assert (ended["at_ns"] > refresh.previous_ns + 0.9 * TTL_NS) == counts
            assert ended["at_ns"] <= began["at_ns"]
            first.wait("believed")
            assert_no_overlap(first, second)


def test_an_answer_to_an_acquire_that_never_comes_gives_no_leadership(
    proxy: Proxy, redis_client: redis.Redis, stand: Stand
) -> None:
    lease = Lease(redis_client)
    acquire = At(proxy, "acquire", proxy.hold_replies)
    group, told = stand(proxy.url, "k", ttl=2.0)
    until(lambda: lease.is_held)
    taken = lease.epoch
    told.wait_error(ConnectionLostError, "did not answer")
    assert acquire.seen_ns
    assert not group["k"].is_leader
    assert told.entries == []
    proxy.pass_replies()
    assert told.wait_elected("k").epoch > taken
    assert [entry.epoch for entry in told.entries if entry.epoch <= taken] == []


def test_an_answer_to_an_acquire_after_the_deadline_gives_no_leadership(
    proxy: Proxy, redis_client: redis.Redis
) -> None:
    lease = Lease(redis_client)
    At(proxy, "acquire", proxy.hold_replies)
    with Candidate(proxy.url, prefix=PREFIX, key="k", ttl=TTL_S) as candidate:
        until(lambda: lease.is_held)
        taken = lease.epoch
        # Frozen, it cannot give the connection up before the answer is there.
        candidate.interrupt()
        proxy.pass_replies()
        until(lambda: not lease.is_held)
        candidate.thaw()
        assert candidate.wait("elected")["epoch"] > taken
        candidate.say("stop")
        assert candidate.wait_end() == 0
        assert all(line["epoch"] > taken for line in candidate.lines("demoted"))


def test_a_process_frozen_beyond_its_deadline_does_not_lead_when_it_goes_on(
    redis_url: str,
) -> None:
    with Candidate(redis_url, prefix=PREFIX, key="k", ttl=TTL_S) as first:
        led = first.wait("elected")
        with Candidate(redis_url, prefix=PREFIX, key="k", ttl=TTL_S) as second:
            second.wait("started")
            first.freeze()
            began = second.wait("elected")
            first.thaw()
            thawed = first.wait("thawed")
            assert not thawed["leads"]
            assert thawed["at_ns"] > began["at_ns"] > led["at_ns"]
            ended = first.wait("demoted")
            assert ended["reason"] == "EXPIRED"
            assert ended["epoch"] == led["epoch"] < began["epoch"]
            assert ended["at_ns"] <= began["at_ns"]
            first.wait("believed")
            assert_no_overlap(first, second)
