"""Callbacks that block, raise, or call back into their group cost nobody anything.

Rules of this file:
    * A callback blocks on an event that the test sets: it blocks for as long as it takes to
      see that nothing else is late, counted in refreshes, and not a moment longer.
    * Every call from inside ends long before a stop would give up waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from tests.diary import WITHIN_S, Diary, until

from multielect import CallbackError, DemotionReason, ElectionGroup, MultielectError, Term

PREFIX = "reenter"
STOP_GIVES_UP_S = 30.0
RESIGNED, REMOVED = DemotionReason.RESIGNED, DemotionReason.REMOVED
STOPPED = DemotionReason.STOPPED


def a_group(
    url: str,
    diary: Diary,
    *,
    on_elected: Callable[[Term], object] | None = None,
    on_demoted: Callable[[Term, DemotionReason], object] | None = None,
    ttl: float = 60,
    callback_threads: int = 8,
) -> ElectionGroup:
    return ElectionGroup(
        url,
        prefix=PREFIX,
        ttl=ttl,
        on_elected=on_elected or diary.elected,
        on_demoted=on_demoted or diary.demoted,
        on_error=diary.error,
        callback_threads=callback_threads,
    )


@pytest.mark.parametrize("callback_threads", [1, 8])
@pytest.mark.parametrize("ttl", [0.6, pytest.param(5.0, marks=pytest.mark.slow)])
def test_one_that_blocks_makes_nothing_late(
    redis_url: str,
    callback_threads: int,
    ttl: float,
    record_property: Callable[[str, object], None],
) -> None:
    diary = Diary()
    blocked, gate = threading.Event(), threading.Event()

    def on_elected(term: Term) -> None:
        if term.key == "slow":
            blocked.set()
            assert gate.wait(2 * ttl + WITHIN_S)
        diary.elected(term)

    group = a_group(
        redis_url, diary, on_elected=on_elected, ttl=ttl, callback_threads=callback_threads
    )
    slow = group.add("slow")
    with group:
        assert blocked.wait(WITHIN_S)
        group.add_many(f"quick-{number}" for number in range(50))
        until(lambda: len(group.led) == 51)
        epoch, before, began_s = slow.epoch, group.counters, time.monotonic()
        # For two TTLs at the least, by their refreshes.
        until(lambda: group.counters.refreshes >= before.refreshes + 7 * 51)
        assert group.counters.demoted == 0
        assert (slow.is_leader, slow.epoch) == (True, epoch)
        if callback_threads > 1:
            diary.wait_for(lambda: len(diary.entries) == 50)
            group.remove("quick-7")
            diary.wait_for(lambda: diary.told("quick-7") == [None, REMOVED])
        assert "slow" not in {entry.key for entry in diary.entries}
        record_property("blocked_s", round(time.monotonic() - began_s, 1))
        gate.set()
        diary.wait_for(lambda: len(diary.elections()) == 51)
    assert diary.told("slow") == [None, STOPPED]
    assert len(diary.terms()) == 51
    assert diary.errors == []


def test_one_that_raises_is_reported_and_the_others_are_told(redis_url: str) -> None:
    diary = Diary()

    def on_elected(term: Term) -> None:
        diary.elected(term)
        if term.key == "bad":
            raise LookupError("planted")

    def on_demoted(term: Term, reason: DemotionReason) -> None:
        diary.demoted(term, reason)
        if term.key == "bad":
            raise LookupError("planted again")

    group = a_group(redis_url, diary, on_elected=on_elected, on_demoted=on_demoted)
    group.add_many(["bad", "good"])
    with group:
        diary.wait_for(lambda: len(diary.entries) == 2 and len(diary.errors) == 1)
        assert group["bad"].is_leader
        assert group["good"].is_leader
    assert diary.told("bad") == diary.told("good") == [None, STOPPED]
    assert [str(error.__cause__) for error in diary.errors] == ["planted", "planted again"]
    assert all(isinstance(error, CallbackError) for error in diary.errors)


@pytest.mark.parametrize("when", ["elected", "demoted"])
def test_stop_from_inside(redis_url: str, when: str) -> None:
    """It waits for no callback, and the other elections' callbacks are told all the same."""
    diary = Diary()
    took_s: list[float] = []
    gate = threading.Event()

    def stop() -> None:
        before = time.monotonic()
        group.stop(timeout=STOP_GIVES_UP_S)
        took_s.append(time.monotonic() - before)

    def on_elected(term: Term) -> None:
        diary.elected(term)
        if when == "elected" and term.key == "stopper":
            assert gate.wait(WITHIN_S)
            stop()

    def on_demoted(term: Term, reason: DemotionReason) -> None:
        diary.demoted(term, reason)
        if when == "demoted" and term.key == "stopper" and reason is RESIGNED:
            stop()
            raise LookupError("planted, after the stop")

    group = a_group(redis_url, diary, on_elected=on_elected, on_demoted=on_demoted)
    group.add_many(["stopper", "b", "c"])
    group.start()
    diary.wait_for(lambda: len(diary.entries) == 3)
    if when == "demoted":
        group["stopper"].resign()
    gate.set()
    diary.wait_for(lambda: len(diary.demotions()) == 3)
    until(lambda: len(took_s) == 1)
    assert took_s[0] < STOP_GIVES_UP_S / 2
    assert diary.told("b") == diary.told("c") == [None, STOPPED]
    assert diary.told("stopper") == [None, STOPPED if when == "elected" else RESIGNED]
    if when == "demoted":
        diary.wait_for(lambda: len(diary.errors) == 1)
        assert isinstance(diary.errors[0], CallbackError)
    before = time.monotonic()
    group.stop(timeout=STOP_GIVES_UP_S)
    assert time.monotonic() - before < STOP_GIVES_UP_S / 2


def test_stop_from_all_at_once(redis_url: str) -> None:
    diary = Diary()
    together = threading.Barrier(4)
    stopped: list[str] = []

    def on_elected(term: Term) -> None:
        diary.elected(term)
        together.wait(WITHIN_S)
        group.stop(timeout=STOP_GIVES_UP_S)
        stopped.append(term.key)

    group = a_group(redis_url, diary, on_elected=on_elected)
    keys = ["a", "b", "c"]
    group.add_many(keys)
    group.start()
    together.wait(WITHIN_S)
    group.stop(timeout=STOP_GIVES_UP_S)
    until(lambda: sorted(stopped) == keys)
    diary.wait_for(lambda: len(diary.demotions()) == 3)
    assert [diary.told(key) for key in keys] == [[None, STOPPED]] * 3


def test_stop_from_on_error(redis_url: str) -> None:
    diary = Diary()
    stopped = threading.Event()

    def fail(_: Term) -> None:
        raise LookupError("planted")

    def on_error(_: MultielectError) -> None:
        group.stop(timeout=STOP_GIVES_UP_S)
        stopped.set()

    group = ElectionGroup(
        redis_url,
        prefix=PREFIX,
        ttl=60,
        on_elected=fail,
        on_demoted=diary.demoted,
        on_error=on_error,
    )
    group.add_many(["a", "b"])
    group.start()
    assert stopped.wait(STOP_GIVES_UP_S / 2)
    diary.wait_for(lambda: len(diary.demotions()) == 2)


def test_remove_from_inside(redis_url: str) -> None:
    diary = Diary()

    def on_elected(term: Term) -> None:
        diary.elected(term)
        group.remove(term.key)
        assert not term.is_leader

    group = a_group(redis_url, diary, on_elected=on_elected)
    keys = [f"election-{number}" for number in range(20)]
    with group:
        group.add_many(keys)
        diary.wait_for(lambda: len(diary.entries) == 40)
        assert len(group) == 0
    assert [diary.told(key) for key in keys] == [[None, REMOVED]] * 20
    assert diary.errors == []


def test_resign_and_add_from_inside(redis_url: str) -> None:
    diary = Diary()
    again: list[bool] = []

    def on_elected(term: Term) -> None:
        diary.elected(term)
        if diary.told("a") == [None]:
            assert term.resign()
            term.campaign()
            group.add("another")

    def on_demoted(term: Term, reason: DemotionReason) -> None:
        diary.demoted(term, reason)
        if reason is RESIGNED:
            # A term that is over cannot end the one that came after it.
            assert group["a"].wait(WITHIN_S)
            again.append(term.resign())

    group = a_group(redis_url, diary, on_elected=on_elected, on_demoted=on_demoted)
    group.add("a")
    with group:
        diary.wait_for(lambda: len(diary.entries) == 4)
        assert diary.told("a") == [None, RESIGNED, None]
        assert diary.told("another") == [None]
        assert group["a"].is_leader
    assert again == [False]
    assert diary.errors == []
    assert len(diary.terms()["a"]) == 2


def test_wait_from_inside(redis_url: str) -> None:
    diary = Diary()
    led: list[bool] = []

    def on_elected(term: Term) -> None:
        diary.elected(term)
        if term.key == "first":
            led.append(group.add("second").wait(WITHIN_S))

    group = a_group(redis_url, diary, on_elected=on_elected, callback_threads=1)
    group.add("first")
    with group:
        diary.wait_for(lambda: len(diary.entries) == 2)
    assert led == [True]
