"""`drain` from wherever it may be called: callbacks of every kind, and several threads at once.

Rules of this file:
    * The time that a drain is given is so long that a call which waited for it would fail the test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.diary import WITHIN_S, until

from multielect import ClosedError, DemotionReason, ElectionGroup, MultielectError, Term

from .conftest import Stand

LONG_S = 10 * WITHIN_S
DRAINED = DemotionReason.DRAINED


def give_up(term: Term, _deadline: float) -> None:
    term.finish_drain()


class Caller:
    """Calls `drain` once, from inside, and keeps what came of it."""

    def __init__(self) -> None:
        self.group: ElectionGroup | None = None
        self.answers: list[bool] = []
        self._once = threading.Lock()

    def call(self, *_: object) -> None:
        if self.group is not None and self._once.acquire(blocking=False):
            self.answers.append(self.group.drain(LONG_S))


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("where", ["on_elected", "on_demoted", "on_draining", "on_error"])
def test_a_callback_begins_a_drain_and_does_not_wait(
    redis_url: str, stand: Stand, where: str, balance: bool, threads: int
) -> None:
    caller = Caller()
    elected: list[Term] = []
    demoted: list[tuple[str, DemotionReason]] = []
    callbacks: dict[str, Callable[..., object]] = {
        "on_elected": elected.append,
        "on_demoted": lambda term, reason: demoted.append((term.key, reason)),
        "on_draining": give_up,
        "on_error": lambda _error: None,
    }
    plain = callbacks[where]

    def with_call(*told: object) -> None:
        caller.call()
        plain(*told)

    group, _ = stand(
        redis_url,
        "a",
        "b",
        "c",
        balance=balance,
        callback_threads=threads,
        drain_timeout=LONG_S,
        **(callbacks | {where: with_call}),
    )
    until(lambda: len(elected) == 3)
    caller.group = group
    if where == "on_elected":
        group.add("d")
    elif where == "on_demoted":
        group.remove("c")
    elif where == "on_error":
        group._node.report(MultielectError("something went wrong"))
    else:
        assert group.drain(LONG_S)
    until(lambda: bool(caller.answers) and not group.led)
    left = {"on_demoted": 2, "on_elected": 4}.get(where, 3)
    until(lambda: [reason for _, reason in demoted].count(DRAINED) == left)
    # And it stands for nothing any more.
    with pytest.raises(ClosedError, match="drains, or has drained"):
        group.add("late")
    assert group.drain()


@pytest.mark.parametrize("balance", [True, False])
def test_threads_that_drain_at_once_drain_once(redis_url: str, stand: Stand, balance: bool) -> None:
    drains: list[Term] = []
    gate = threading.Event()

    def on_draining(term: Term, _deadline: float) -> None:
        drains.append(term)
        assert gate.wait(WITHIN_S)
        term.finish_drain()

    keys = [f"k{number}" for number in range(20)]
    group, told = stand(redis_url, *keys, balance=balance, on_draining=on_draining)
    until(lambda: len(group.led) == 20)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(group.drain, LONG_S) for _ in range(4)]
        until(lambda: len(drains) == 8)
        assert len(group.led) == 20
        gate.set()
        assert [call.result(WITHIN_S) for call in calls] == [True] * 4
    until(lambda: len(told.demotions()) == 20)
    assert sorted(term.key for term in drains) == sorted(keys)
    assert {entry.reason for entry in told.demotions()} == {DRAINED}


def test_a_second_drain_brings_the_end_forward_and_does_not_put_it_off(
    redis_url: str, stand: Stand
) -> None:
    deadlines: list[float] = []
    group, _ = stand(redis_url, "a", on_draining=lambda _term, until_s: deadlines.append(until_s))
    until(lambda: len(group.led) == 1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(group.drain, LONG_S)
        until(lambda: len(deadlines) == 1)
        assert group.drain(0.05)
        assert first.result(WITHIN_S)
    assert group.drain(LONG_S)


def test_a_stop_ends_a_drain_that_somebody_waits_for(redis_url: str, stand: Stand) -> None:
    draining = threading.Event()
    group, told = stand(redis_url, "a", on_draining=lambda _term, _by: draining.set())
    until(lambda: len(group.led) == 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(group.drain, LONG_S)
        assert draining.wait(WITHIN_S)
        group.stop()
        assert waiting.result(WITHIN_S)
    assert [entry.reason for entry in told.demotions()] == [DemotionReason.STOPPED]


def test_a_drain_before_the_start_is_one_of_nothing(redis_url: str) -> None:
    group = ElectionGroup(redis_url, prefix="drain", balance=True)
    group.add("a")
    assert group.drain()
    with pytest.raises(ClosedError, match="drains, or has drained"):
        group.start()
    group.stop()


@pytest.mark.parametrize("balance", [True, False])
def test_what_would_never_lead_any_more_is_refused(
    redis_url: str, stand: Stand, balance: bool
) -> None:
    group, told = stand(redis_url, "a", balance=balance)
    told.wait_elected("a")
    assert group.drain(LONG_S)
    never: list[Callable[[], object]] = [
        lambda: group.add("late"),
        lambda: group.add("a"),
        lambda: group.add_many(["late"]),
        group["a"].campaign,
        group["a"].wait,
        lambda: group["a"].wait(0),
    ]
    for call in never:
        with pytest.raises(ClosedError, match="drains, or has drained"):
            call()
    assert list(group) == ["a"]
    group.remove("a")


def test_who_waits_hears_of_a_drain(redis_url: str, stand: Stand) -> None:
    first, _ = stand(redis_url, "a")
    assert first["a"].wait(WITHIN_S)
    second, _ = stand(redis_url, "a")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(second["a"].wait)
        second.drain()
        with pytest.raises(ClosedError, match="drains"):
            waiting.result(WITHIN_S)
