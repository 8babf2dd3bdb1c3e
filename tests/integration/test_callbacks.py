"""Promise 5: callbacks come in order, in pairs and side by side, suffer alone, and wait in bounds.

Those that block, or call back into their group, are in `test_callbacks_reenter.py`.
"""

from __future__ import annotations

import logging
import random
import re
import threading
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
import redis
from tests.diary import WITHIN_S, until

from multielect import CallbackError, DemotionReason, MultielectError, Term

from .conftest import Stand
from .lease import LAYOUT
from .record import Record


def test_an_exception_is_logged_and_reported_and_nothing_else_suffers(
    redis_url: str, stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    told = Record()

    def elected(term: Term) -> None:
        told.elected(term)
        if term.key == "bad":
            raise ZeroDivisionError("by design")

    keys = ["bad", *(f"good{n}" for n in range(20))]
    group, errors = stand(
        redis_url, *keys, callback_threads=1, on_elected=elected, on_demoted=told.demoted
    )
    for key in keys:
        told.wait_elected(key)
    error = errors.wait_error(CallbackError, "on_elected failed for election 'bad' at epoch ")
    assert isinstance(error, CallbackError)
    assert (error.callback, error.key, error.epoch) == ("on_elected", "bad", group["bad"].epoch)
    assert str(error.epoch) in str(error)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert [type(each) for each in errors.errors] == [CallbackError]
    until(
        lambda: any(
            record.exc_info and isinstance(record.exc_info[1], ZeroDivisionError)
            for record in caplog.records
            if record.name == "multielect"
        )
    )
    assert len(group.led) == len(keys)
    group.stop()
    for key in keys:
        assert told.wait_demoted(key).reason is DemotionReason.STOPPED


def test_on_error_that_raises_hurts_nobody(
    redis_url: str, stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    failed = threading.Semaphore(0)

    def elected(_: Term) -> None:
        raise ZeroDivisionError("by design")

    def error(_: MultielectError) -> None:
        failed.release()
        raise KeyError("from on_error")

    group, told = stand(redis_url, "a", "b", on_elected=elected, on_error=error)
    assert failed.acquire(timeout=WITHIN_S)
    assert failed.acquire(timeout=WITHIN_S)
    until(lambda: sum("on_error failed" in text for text in caplog.messages) == 2)
    assert len(group.led) == 2
    group.stop()
    assert told.wait_demoted("a").reason is DemotionReason.STOPPED


def test_callbacks_come_in_order_and_in_pairs_however_leases_come_and_go(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    random_of_test = random.Random(7)
    keys = [f"k{n}" for n in range(10)]
    inside: Counter[str] = Counter()
    at_once: list[str] = []
    told = Record()

    def enter(term: Term) -> None:
        inside[term.key] += 1
        if inside[term.key] > 1:
            at_once.append(term.key)

    def elected(term: Term) -> None:
        enter(term)
        told.elected(term)
        inside[term.key] -= 1

    def demoted(term: Term, reason: DemotionReason) -> None:
        enter(term)
        told.demoted(term, reason)
        inside[term.key] -= 1

    group, _ = stand(redis_url, *keys, ttl=0.3, on_elected=elected, on_demoted=demoted)

    def flap() -> None:
        until(lambda: len(group.led) == len(keys))
        demotions = group.counters.demoted
        for key in random_of_test.sample(keys, 4):
            redis_client.delete(LAYOUT.leader_key(key.encode()))
        random_key = random_of_test.choice(keys)
        group[random_key].resign()
        group[random_key].campaign()
        until(lambda: group.counters.demoted >= demotions + 4)

    for _ in range(10):
        flap()
    group.stop()

    of_key = defaultdict(list)
    for entry in told.entries:
        of_key[entry.key].append(entry)
    assert sorted(of_key) == keys
    for entries in of_key.values():
        assert [entry.reason is None for entry in entries] == [True, False] * (len(entries) // 2)
        terms = list(zip(entries[::2], entries[1::2], strict=True))
        assert all(began.epoch == ended.epoch for began, ended in terms)
        assert all(one.epoch < two.epoch for (one, _), (two, _) in pairwise(terms))
        assert all(one.at_ns <= two.at_ns for one, two in pairwise(entries))
    assert at_once == []
    reasons = {entry.reason for entry in told.entries}
    assert reasons >= {DemotionReason.LOST, DemotionReason.RESIGNED, DemotionReason.STOPPED}


def test_callbacks_of_different_elections_run_side_by_side(redis_url: str, stand: Stand) -> None:
    met = threading.Barrier(3)
    stand(redis_url, "a", "b", callback_threads=2, on_elected=lambda _: met.wait(WITHIN_S))
    met.wait(WITHIN_S)


def test_what_waits_for_a_slow_callback_is_bounded(redis_url: str, stand: Stand) -> None:
    told = Record()
    go_on = threading.Event()
    entered = threading.Event()

    def elected(term: Term) -> None:
        if term.key == "k":
            entered.set()
            go_on.wait(WITHIN_S)
        told.elected(term)

    group, _ = stand(redis_url, "k", ttl=5.0, on_elected=elected, on_demoted=told.demoted)
    epochs = []
    try:
        for _ in range(20):
            assert group["k"].wait(WITHIN_S)
            assert entered.wait(WITHIN_S)
            epochs.append(group["k"].epoch)
            group["k"].resign()
            group["k"].campaign()
        assert group["k"].wait(WITHIN_S)
        epochs.append(group["k"].epoch)
        # Events are brought in order: what comes later says that all of the above has come.
        group.add("later")
        told.wait_elected("later")
    finally:
        go_on.set()
    told.wait_elected("k", above=epochs[-2])
    # The one being told, its end, and what is so now: what came and went between is not told.
    assert [(entry.epoch, entry.reason) for entry in told.of("k")] == [
        (epochs[0], None),
        (epochs[0], DemotionReason.RESIGNED),
        (epochs[-1], None),
    ]


def test_errors_that_wait_for_a_slow_on_error_are_bounded(redis_url: str, stand: Stand) -> None:
    go_on = threading.Event()
    entered = threading.Event()
    raised = Counter[str]()
    errors: list[MultielectError] = []
    keys = [f"k{n}" for n in range(300)]

    def elected(term: Term) -> None:
        raised[term.key] += 1
        raise ZeroDivisionError(term.key)

    def error(each: MultielectError) -> None:
        entered.set()
        go_on.wait(WITHIN_S)
        errors.append(each)

    group, told = stand(redis_url, *keys, ttl=5.0, on_elected=elected, on_error=error)
    try:
        assert entered.wait(WITHIN_S)
        until(lambda: len(raised) == len(keys))
        # An on_error that blocks holds up no other callback.
        group.remove("k0")
        told.wait_demoted("k0")
    finally:
        go_on.set()
    group.stop()
    # The one being told and a hundred more, of which the newest are kept.
    assert 100 <= len(errors) <= 110


def test_a_callback_is_given_as_many_arguments_as_it_takes(redis_url: str, stand: Stand) -> None:
    told: list[object] = []

    def on_draining(term: Term) -> None:
        told.append(term.key)
        term.finish_drain()

    group, _ = stand(
        redis_url,
        "k",
        on_elected=lambda: told.append("elected"),
        on_draining=on_draining,
        on_demoted=lambda term: told.append(term.reason),
        on_error=lambda: told.append("error"),
    )
    until(lambda: told == ["elected"])
    group._node.report(MultielectError("planted"))
    until(lambda: told == ["elected", "error"])
    assert group.drain(WITHIN_S)
    until(lambda: told[2:] == ["k", DemotionReason.DRAINED])


def test_a_coroutine_that_is_returned_is_told_of_as_never_awaited(
    redis_url: str, stand: Stand
) -> None:
    async def work(_: Term) -> None: ...

    def on_elected(term: Term) -> object:
        return work(term)

    _, told = stand(redis_url, "k", on_elected=on_elected)
    error = told.wait_error(CallbackError, "on_elected returned a coroutine, which nothing awaits")
    assert "multielect.aio" in str(error)


def test_callbacks_that_hold_all_threads_are_told_of(
    redis_url: str, stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()
    group, _ = stand(
        redis_url,
        *(f"k{number}" for number in range(50)),
        ttl=0.3,
        callback_threads=8,
        on_elected=lambda _: go_on.wait(2 * WITHIN_S),
    )

    def told() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "block all" in record.getMessage()]

    try:
        until(lambda: len(told()) == 1)
    finally:
        go_on.set()
    assert told()[0].levelname == "WARNING"
    text = told()[0].getMessage()
    assert re.search(r"callbacks block all 8 callback threads, each for longer than 0\.3 s", text)
    assert re.search(r"(on_elected of 'k\d+', ){2}on_elected of 'k\d+' and 5 more", text)
    assert "42 other callbacks wait" in text
    assert "worker=" in text
    assert "callback_threads" in text
    assert len(group.led) == 50


def test_callbacks_that_take_turns_are_not(
    redis_url: str, stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    turns = threading.Semaphore(0)
    entered = threading.Semaphore(0)

    def elected(_: Term) -> None:
        entered.release()
        turns.acquire(timeout=WITHIN_S)

    group, _ = stand(redis_url, "a", "b", "c", ttl=2.0, callback_threads=1, on_elected=elected)
    for _ in range(3):
        assert entered.acquire(timeout=WITHIN_S)
        turns.release()
    group.stop()
    assert "block all" not in caplog.text
