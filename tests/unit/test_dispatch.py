"""Callbacks: one after the other for one key, side by side for others, none able to harm another.

Nothing here sleeps: callbacks wait for events that the test sets.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from multielect._callbacks.dispatcher import MAX_ERRORS, Delivery, ThreadDispatcher
from multielect._callbacks.mailbox import Kind, TermEvent
from multielect._runtime.foreign import in_words
from multielect.errors import CallbackError, MultielectError

LONG_S = 20.0
LOGGER = logging.getLogger("multielect.test")


class Told(NamedTuple):
    key: str
    epoch: int
    is_begin: bool


class Stage:
    """A dispatcher whose callbacks note what they are told, and wait where they are held."""

    def __init__(self, threads: int = 4) -> None:
        self.told: list[Told] = []
        self.errors: list[MultielectError] = []
        self.gates: dict[Told, threading.Event] = {}
        self.arrived: dict[Told, threading.Event] = {}
        self.act: Callable[[Told], object] = lambda _: None
        self.dispatcher: ThreadDispatcher[Told] = ThreadDispatcher(
            Delivery(
                notify=self._tell,
                notify_error=self.errors.append,
                threads=threads,
                name="stage",
                logger=LOGGER,
            )
        )
        self.dispatcher.start()

    def begin(self, key: str, epoch: int) -> Told:
        return self._put(Told(key, epoch, is_begin=True))

    def end(self, key: str, epoch: int) -> Told:
        return self._put(Told(key, epoch, is_begin=False))

    def hold(self, key: str, epoch: int, *, is_begin: bool = True) -> Told:
        """Have the callback of this event wait until `release`."""
        told = Told(key, epoch, is_begin)
        self.gates[told] = threading.Event()
        self.arrived[told] = threading.Event()
        return told

    def await_callback(self, told: Told) -> None:
        assert self.arrived[told].wait(LONG_S), f"{told} was never told"

    def release(self, told: Told) -> None:
        self.gates[told].set()

    def close(self) -> bool:
        return self.dispatcher.close(LONG_S)

    def _put(self, told: Told) -> Told:
        self.dispatcher.put(
            TermEvent(told.key, told.epoch, Kind.BEGIN if told.is_begin else Kind.END, told)
        )
        return told

    def _tell(self, told: Told) -> None:
        self.told.append(told)
        gate = self.gates.get(told)
        if gate is not None:
            self.arrived[told].set()
            assert gate.wait(LONG_S), f"{told} was held for ever"
        self.act(told)


@pytest.fixture
def stage() -> Iterator[Stage]:
    staged = Stage()
    yield staged
    for gate in staged.gates.values():
        gate.set()
    staged.dispatcher.close(0)


def test_for_one_key_callbacks_run_in_order_and_never_at_once(stage: Stage) -> None:
    inside: list[Told] = []

    def check(told: Told) -> None:
        inside.append(told)
        assert inside == [told], "two callbacks of one key at once"
        inside.remove(told)

    stage.act = check
    expected = []
    for epoch in range(1, 200):
        first = stage.hold("a", epoch)
        expected.append(stage.begin("a", epoch))
        stage.await_callback(first)
        expected.append(stage.end("a", epoch))
        stage.release(first)
    assert stage.close()
    assert stage.told == expected
    assert stage.errors == []


def test_while_one_is_told_the_next_of_its_key_waits(stage: Stage) -> None:
    held = stage.hold("a", 1)
    stage.begin("a", 1)
    stage.await_callback(held)
    ended = stage.end("a", 1)
    other = stage.hold("b", 1)
    stage.begin("b", 1)
    stage.await_callback(other)
    assert stage.told == [held, other], "the other key's came in between, the same key's did not"
    stage.release(held)
    stage.release(other)
    assert stage.close()
    assert stage.told[-1] == ended


def test_for_different_keys_callbacks_run_side_by_side() -> None:
    stage = Stage(threads=3)
    together = threading.Barrier(3)
    stage.act = lambda _: together.wait(LONG_S)
    for key in "abc":
        stage.begin(key, 1)
    assert stage.close()
    assert stage.errors == []
    assert not together.broken


def test_no_more_run_at_once_than_there_are_threads() -> None:
    stage = Stage(threads=2)
    held = [stage.hold(key, 1) for key in "ab"]
    for key in "abc":
        stage.begin(key, 1)
    for told in held:
        stage.await_callback(told)
    assert len(stage.told) == 2
    for told in held:
        stage.release(told)
    assert stage.close()
    assert len(stage.told) == 3


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't create new thread at interpreter shutdown")


def test_where_no_more_threads_can_be_started_the_first_tells_all(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", refuse)
    on: set[threading.Thread] = set()
    stage.act = lambda _: on.add(threading.current_thread())
    held = stage.hold("a", 1)
    stage.begin("a", 1)
    stage.await_callback(held)
    others = [stage.begin(key, 1) for key in "bcd"]
    stage.dispatcher.put_error(MultielectError("told like the rest"))
    stage.release(held)
    assert stage.close()
    assert stage.told == [held, *others]
    assert len(stage.errors) == 1
    assert len(on) == 1
    assert threading.current_thread() not in on


def test_the_first_thread_is_there_from_the_start_if_anybody_listens() -> None:
    def made(*, notify: bool, notify_error: bool) -> int:
        # Threads of the one before may still be on their way out.
        name = f"counted-{notify}-{notify_error}"
        dispatcher: ThreadDispatcher[None] = ThreadDispatcher(
            Delivery(
                notify=(lambda _: None) if notify else None,
                notify_error=(lambda _: None) if notify_error else None,
                threads=4,
                name=name,
                logger=LOGGER,
            )
        )
        dispatcher.start()
        dispatcher.start()
        count = sum(thread.name.startswith(name) for thread in threading.enumerate())
        assert dispatcher.close(LONG_S)
        return count

    assert made(notify=True, notify_error=False) == 1
    assert made(notify=False, notify_error=True) == 1
    assert made(notify=False, notify_error=False) == 0


def test_a_start_that_is_refused_says_so_and_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    dispatcher: ThreadDispatcher[str] = ThreadDispatcher(
        Delivery(notify=told.append, notify_error=None, threads=1, name="stage", logger=LOGGER)
    )
    with monkeypatch.context() as ending:
        ending.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            dispatcher.start()
    dispatcher.start()
    dispatcher.put(TermEvent("a", 1, Kind.BEGIN, "begin"))
    assert dispatcher.close(LONG_S)
    assert told == ["begin"]


def test_a_term_that_ended_before_its_begin_was_told_is_not_told(stage: Stage) -> None:
    held = stage.hold("a", 1)
    stage.begin("a", 1)
    stage.await_callback(held)
    end_of_first = stage.end("a", 1)
    for epoch in range(2, 1000):
        stage.begin("a", epoch)
        stage.end("a", epoch)
    last = stage.begin("a", 1000)
    stage.release(held)
    assert stage.close()
    assert stage.told == [held, end_of_first, last], "what waits for one key is bounded"


def test_an_end_is_not_dropped_with_anothers_begin(stage: Stage) -> None:
    held = stage.hold("a", 1)
    stage.begin("a", 1)
    stage.await_callback(held)
    stage.end("a", 1)
    stage.begin("a", 2)
    # Not the epoch that waits: that would be an error elsewhere, and both must be seen.
    stage.end("a", 3)
    stage.release(held)
    assert stage.close()
    assert len(stage.told) == 4


@pytest.mark.parametrize(
    "raised",
    [
        RuntimeError("no"),
        pytest.param(SystemExit(1)),
        pytest.param(KeyboardInterrupt()),
    ],
    ids=lambda raised: type(raised).__name__,
)
def test_an_exception_is_reported_and_nothing_else_suffers(
    stage: Stage, raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(told: Told) -> None:
        if told.key == "bad":
            raise raised

    stage.act = fail
    held = stage.hold("bad", 1)
    stage.begin("bad", 1)
    stage.await_callback(held)
    stage.end("bad", 1)
    stage.begin("good", 1)
    stage.release(held)
    assert stage.dispatcher.close(2.0)
    assert sorted(told.key for told in stage.told) == ["bad", "bad", "good"]
    assert len(stage.errors) == 2
    for error in stage.errors:
        assert isinstance(error, CallbackError)
        assert error.__cause__ is raised
    assert [str(error) for error in stage.errors] == [
        f"on_elected failed for election 'bad' at epoch 1: {in_words(raised)}",
        f"on_demoted failed for election 'bad' at epoch 1: {in_words(raised)}",
    ]
    assert [record.getMessage() for record in caplog.records] == list(map(str, stage.errors))


def test_an_exception_while_an_error_is_told_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    def fail(error: MultielectError) -> None:
        seen.append(error)
        raise ValueError("in on_error")

    dispatcher: ThreadDispatcher[None] = ThreadDispatcher(
        Delivery(notify=lambda _: None, notify_error=fail, threads=1, name="stage", logger=LOGGER)
    )
    dispatcher.start()
    for number in range(3):
        dispatcher.put_error(MultielectError(str(number)))
    assert dispatcher.close(LONG_S)
    assert [str(error) for error in seen] == ["0", "1", "2"]
    assert "on_error failed" in caplog.text


def test_errors_that_wait_are_bounded_and_the_newest_are_kept() -> None:
    gate, inside = threading.Event(), threading.Event()
    seen: list[str] = []

    def notify(error: MultielectError) -> None:
        seen.append(str(error))
        inside.set()
        assert gate.wait(LONG_S)

    dispatcher: ThreadDispatcher[None] = ThreadDispatcher(
        Delivery(notify=lambda _: None, notify_error=notify, threads=2, name="stage", logger=LOGGER)
    )
    dispatcher.put_error(MultielectError("first"))
    assert inside.wait(LONG_S)
    for number in range(10 * MAX_ERRORS):
        dispatcher.put_error(MultielectError(str(number)))
    gate.set()
    assert dispatcher.close(LONG_S)
    newest = [str(number) for number in range(9 * MAX_ERRORS, 10 * MAX_ERRORS)]
    assert seen == ["first", *newest]


def test_errors_are_told_one_after_the_other() -> None:
    running: list[str] = []

    def notify(error: MultielectError) -> None:
        running.append(str(error))
        assert len(running) == 1
        running.clear()

    dispatcher: ThreadDispatcher[None] = ThreadDispatcher(
        Delivery(notify=lambda _: None, notify_error=notify, threads=4, name="stage", logger=LOGGER)
    )
    for number in range(100):
        dispatcher.put_error(MultielectError(str(number)))
    assert dispatcher.close(LONG_S)


def test_an_error_that_nobody_listens_to_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher: ThreadDispatcher[None] = ThreadDispatcher(
        Delivery(notify=lambda _: None, notify_error=None, threads=1, name="stage", logger=LOGGER)
    )
    dispatcher.start()
    dispatcher.put_error(MultielectError("what went wrong"))
    assert dispatcher.close(LONG_S)
    assert "what went wrong" in caplog.text


def test_closing_waits_for_what_waits(stage: Stage) -> None:
    held = stage.hold("a", 1)
    stage.begin("a", 1)
    stage.await_callback(held)
    stage.end("a", 1)
    closed: list[bool] = []
    closing = threading.Thread(target=lambda: closed.append(stage.close()))
    closing.start()
    assert closed == []
    stage.release(held)
    closing.join(LONG_S)
    assert closed == [True]
    assert len(stage.told) == 2


def test_closing_is_bounded(stage: Stage) -> None:
    held = stage.hold("a", 1)
    stage.begin("a", 1)
    stage.await_callback(held)
    assert not stage.dispatcher.close(0.01)
    stage.release(held)


def test_closing_from_inside_a_callback_does_not_wait_for_itself(stage: Stage) -> None:
    answers: list[bool] = []
    done = threading.Event()

    def close(told: Told) -> None:
        answers.append(stage.dispatcher.close(LONG_S))
        done.set()

    stage.act = close
    stage.begin("a", 1)
    assert done.wait(LONG_S / 2)
    assert answers == [False]


def test_after_closing_nothing_more_is_told(stage: Stage) -> None:
    assert stage.close()
    stage.begin("a", 1)
    stage.dispatcher.put_error(MultielectError("late"))
    assert stage.close()
    assert stage.told == []
    assert stage.errors == []


def test_what_waited_is_still_told_after_closing_ran_out_of_time(stage: Stage) -> None:
    held, last = stage.hold("a", 1), stage.hold("a", 1, is_begin=False)
    stage.begin("a", 1)
    stage.await_callback(held)
    stage.end("a", 1)
    assert not stage.dispatcher.close(0)
    stage.release(held)
    stage.await_callback(last)
    stage.release(last)
