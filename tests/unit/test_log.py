"""The log: loggers that raise or block cost a line, and nobody else anything."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from tests.diary import until

from multielect._logging.book import MAX_WAITING
from multielect._logging.thread_log import ThreadLog
from multielect._runtime.foreign import in_words
from multielect.errors import (
    CallbackError,
    ConnectionLostError,
    HandlerError,
    MultielectError,
    ServerError,
)

LONG_S = 20.0


class Kept(logging.Handler):
    """Keeps what it is given; and first does what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.act: Callable[[], object] = lambda: None

    def handle(self, record: logging.LogRecord) -> bool:
        self.act()
        self.records.append(record)
        return True

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def logger(kept: Kept) -> logging.Logger:
    made = logging.Logger("kept", logging.INFO)  # noqa: LOG001  # of the test alone
    made.addHandler(kept)
    return made


@pytest.fixture
def told() -> list[MultielectError]:
    return []


@pytest.fixture
def log(logger: logging.Logger, told: list[MultielectError]) -> Iterator[ThreadLog]:
    made = ThreadLog(logger, "orders/a", told.append)
    made.open()
    yield made
    made.close(LONG_S)


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "multielect-log"]


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def raise_it(*_: object) -> NoReturn:
        raise error

    return raise_it


def raised(error: BaseException) -> BaseException:
    """Return it with a traceback."""
    with pytest.raises(type(error)):
        raising(error)()
    return error


def test_lines_say_who_and_come_on_a_thread_of_their_own(log: ThreadLog, kept: Kept) -> None:
    log.report(MultielectError("it broke"))
    log.say("started", "started")
    log.close(LONG_S)
    assert kept.texts == ["orders/a: it broke", "orders/a: started"]
    assert [record.levelname for record in kept.records] == ["WARNING", "INFO"]
    assert {record.threadName for record in kept.records} == {"multielect-log"}


@pytest.mark.parametrize(
    "fault",
    [ValueError("no"), pytest.param(SystemExit(1)), pytest.param(KeyboardInterrupt())],
    ids=lambda fault: type(fault).__name__,
)
def test_a_logger_that_raises_is_told_of_once_and_its_losses_are_counted(
    log: ThreadLog, kept: Kept, told: list[MultielectError], fault: BaseException
) -> None:
    kept.act = raising(fault)
    for number in range(3):
        log.say(f"kind {number}", f"lost {number}")
    until(lambda: bool(told))
    until(lambda: log._book._lost == 3)
    kept.act = lambda: None
    log.say("kind 4", "back")
    log.close(LONG_S)
    assert len(told) == 1
    assert "kept" in str(told[0])
    assert in_words(fault) in str(told[0])
    assert told[0].__cause__ is fault
    assert kept.texts == [
        f"3 lines before this one were lost: the logger raised {in_words(fault)}",
        "orders/a: back",
    ]


def test_a_logger_that_blocks_blocks_nobody_else(
    log: ThreadLog, kept: Kept, logger: logging.Logger
) -> None:
    inside, gate = threading.Event(), threading.Event()

    def block() -> None:
        inside.set()
        assert gate.wait(LONG_S)

    kept.act = block
    log.say("first", "first")
    assert inside.wait(LONG_S)
    for number in range(MAX_WAITING + 100):
        log.say("more", f"more {number}")
    log.close(0.01)
    another = ThreadLog(logger, "orders/b")
    another.open()
    another.say("second", "second")
    another.close(0.01)
    assert kept.texts == []
    gate.set()
    until(lambda: not writers())
    assert kept.texts[:3] == [
        "orders/a: first",
        "101 reports before this one were lost: the log's queue was full",
        "orders/a: more 0",
    ]
    assert [text.endswith("10,000 in all)") for text in kept.texts[3:]] == [True]


def test_a_text_that_fails_costs_its_own_line(log: ThreadLog, kept: Kept) -> None:
    class MuteError(MultielectError):
        def __str__(self) -> str:
            raise SystemExit(3)

    log.report(MuteError())
    log.say("next", "next")
    log.close(LONG_S)
    assert "MuteError whose text fails" in kept.texts[0]
    assert kept.texts[1] == "orders/a: next"


def test_an_exception_without_a_text_is_told_with_its_traceback(
    log: ThreadLog, kept: Kept, told: list[MultielectError]
) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise SystemExit(3)

    formatter = logging.Formatter()

    def handle(record: logging.LogRecord) -> bool:
        formatter.format(record)
        kept.records.append(record)
        return True

    kept.handle = handle  # type: ignore[method-assign]
    log.report(failing("on_elected", raised(MuteError())))
    log.close(LONG_S)
    [text] = kept.texts
    assert text.startswith("orders/a: on_elected failed for election 'a' at epoch 7: ")
    assert "MuteError" in text
    assert told == []


def test_what_is_no_logger_at_all_harms_nothing(told: list[MultielectError]) -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]

        def __bool__(self) -> bool:
            raise ValueError

        def __repr__(self) -> str:
            raise ValueError

    odd: Any = Odd()
    log = ThreadLog(odd, "orders/a", told.append)
    log.open()
    log.say("kind", "text")
    log.close(LONG_S)
    assert "Odd whose repr fails" in str(told[0])


def failing(callback: str, cause: BaseException) -> CallbackError:
    error = CallbackError(callback, "a", 7)
    error.__cause__ = cause
    return error


def test_a_handler_may_close_the_log(log: ThreadLog, kept: Kept) -> None:
    kept.act = lambda: log.close(LONG_S)
    log.say("kind", "text")
    until(lambda: kept.texts == ["orders/a: text"] and not writers())


def test_groups_of_one_logger_share_its_lines(logger: logging.Logger, kept: Kept) -> None:
    logs = [ThreadLog(logger, f"orders/{number}") for number in range(100)]
    for log in logs:
        log.open()
    for log in logs:
        log.report(ConnectionLostError("cannot connect to localhost:1: refused"))
    for log in logs:
        log.close(LONG_S)
    assert len(kept.texts) == 2
    assert "(99 more in " in kept.texts[1]


def test_after_the_last_has_closed_there_is_no_thread_and_nothing_is_remembered(
    logger: logging.Logger, kept: Kept
) -> None:
    logs = [ThreadLog(logger, "orders/a") for _ in range(2)]
    for log in logs:
        log.open()
        log.say("kind", "text")
        log.close(LONG_S)
        until(lambda: not writers())
    assert kept.texts == ["orders/a: text"] * 2
    # Said by a group that has stopped, as by a callback that ends late.
    logs[0].say("kind", "late")
    until(lambda: kept.texts[2:] == ["orders/a: late"] and not writers())


def test_errors_differ_in_kind_by_what_they_are_not_by_their_numbers(
    log: ThreadLog, kept: Kept
) -> None:
    for number in range(50):
        log.report(ServerError(f"OOM at key 'k{number}'", request="acquire", elections=number))
        log.report(ConnectionLostError(f"Redis did not answer for 0.{number} seconds"))
        log.report(ConnectionLostError("cannot connect to a.example:6379: refused"))
        log.report(ConnectionLostError("cannot connect to b.example:6379: refused"))
        log.report(ServerError("NOPERM this user", request="acquire", elections=number))
    log.close(LONG_S)
    assert len(kept.texts) == 10


def test_of_many_failing_callbacks_one_has_a_traceback(log: ThreadLog, kept: Kept) -> None:
    for number in range(4_000):
        log.report(failing("on_elected", raised(ValueError(number))))
    log.close(LONG_S)
    assert 2 <= len(kept.texts) <= 5
    assert sum(record.exc_info is not None for record in kept.records) == 1
    assert "4,000 in all" in kept.texts[-1]


@pytest.mark.parametrize(
    "error",
    [
        CallbackError("worker", "a", 7),
        HandlerError("a", 7, ("1-0", "1-9"), 1, "retry"),
        CallbackError("on_elected", "a", 7),
        CallbackError("on_error", "", 0),
    ],
    ids=lambda error: error.callback,
)
def test_what_code_of_the_users_raised_is_told_with_its_traceback(
    log: ThreadLog, kept: Kept, error: CallbackError
) -> None:
    error.__cause__ = raised(ValueError("no"))
    log.report(error)
    log.close(LONG_S)
    [record] = kept.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error.__cause__
    assert record.levelname == "ERROR"


def test_what_is_summed_up_wakes_the_writer_once(log: ThreadLog, kept: Kept) -> None:
    puts: list[object] = []
    put = log._put
    log._put = lambda make: (puts.append(make), put(make))  # type: ignore[assignment,func-returns-value]
    for _ in range(1_000):
        log.sum_up("began", lambda n: f"{n} terms began", 2, level=logging.INFO)
    log.close(LONG_S)
    assert kept.texts == ["orders/a: 2000 terms began"]
    assert len(puts) < 100


def test_what_is_put_runs_nothing_of_the_users_where_it_is_put(log: ThreadLog, kept: Kept) -> None:
    threads: list[str] = []

    class NotingError(MultielectError):
        def __str__(self) -> str:
            threads.append(threading.current_thread().name)
            return "noted"

    log.report(NotingError())
    log.close(LONG_S)
    assert kept.texts == ["orders/a: noted"]
    assert set(threads) == {"multielect-log"}


def test_a_forked_child_has_a_writer_of_its_own(log: ThreadLog, kept: Kept) -> None:
    inside, gate = threading.Event(), threading.Event()

    def block() -> None:
        if os.getpid() == parent:
            inside.set()
            gate.wait(LONG_S)

    parent = os.getpid()
    kept.act = block
    log.say("held", "held")
    assert inside.wait(LONG_S)
    child = os.fork()
    if not child:
        status = 1
        try:
            mine = ThreadLog(log._book.logger, "orders/child")
            mine.open()
            mine.say("kind", "text")
            mine.close(LONG_S)
            status = 0 if kept.texts == ["orders/child: text"] else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    gate.set()
    assert status == 0


def test_a_thread_that_is_refused_is_asked_for_again(
    logger: logging.Logger, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ThreadLog(logger, "orders/a")
    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", raising(RuntimeError("no thread")))
        with pytest.raises(RuntimeError, match="no thread"):
            log.open()
        log.say("kind", "text")
    log.open()
    log.close(LONG_S)
    assert kept.texts == ["orders/a: text"]


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # this interpreter
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )


def test_what_waits_at_the_interpreters_exit_is_written() -> None:
    done = run("""
        import logging
        from multielect._logging.thread_log import ThreadLog
        logging.basicConfig(level=logging.INFO)
        log = ThreadLog(logging.getLogger(), "orders/a")
        log.open()
        log.sum_up("sum", lambda n: f"{n} terms began", 3, level=logging.INFO)
        log.sum_up("sum", lambda n: f"{n} terms began", 4, level=logging.INFO)
    """)
    assert done.returncode == 0
    assert "orders/a: 7 terms began" in done.stderr


def test_a_logger_that_blocks_does_not_keep_the_interpreter_from_ending() -> None:
    done = run("""
        import logging, threading
        from multielect._logging.thread_log import ThreadLog
        class Blocking(logging.Filter):
            def filter(self, record):
                threading.Event().wait()
        logger = logging.getLogger()
        logger.addFilter(Blocking())
        log = ThreadLog(logger, "orders/a")
        log.open()
        log.report(__import__("multielect").MultielectError("it broke"))
    """)
    assert done.returncode == 0, done.stderr


def test_a_book_goes_with_its_logs(logger: logging.Logger) -> None:
    log = ThreadLog(logger, "orders/a")
    log.open()
    log.close(LONG_S)
    until(lambda: not writers())
    from multielect._logging import writer  # noqa: PLC0415  # what it keeps is nobody else's affair

    assert id(logger) in writer.WRITER._books
    del log
    gc.collect()
    assert id(logger) not in writer.WRITER._books
