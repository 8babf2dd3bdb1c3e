"""Words for what is not ours: exceptions and objects of the user's.

Rules of this file:
    * `__repr__` and `__str__` of an object that a user made may raise anything. Here they may:
      what comes back is text in any case.
    * They may also take their time, so none of this is called on a thread that keeps leases.
"""

from __future__ import annotations

import contextlib
from types import TracebackType


def repr_of(thing: object) -> str:
    """Return the repr of any object, or what can be said of it where it has none to give."""
    try:
        return repr(thing)
    # Also SystemExit and its like: there is nothing here for them to end.
    except BaseException:  # noqa: BLE001
        return f"<{type(thing).__qualname__} whose repr fails>"


def text_of(thing: object) -> str:
    """Return the text of any object, or what can be said of it where it has none to give."""
    try:
        return str(thing)
    except BaseException:  # noqa: BLE001
        return f"<{type(thing).__qualname__} whose text fails>"


def in_words(error: BaseException | None) -> str:
    """Return an error as Python shows it; with its text also where its repr leaves that out.

    The repr of redis-py's errors does.
    """
    words, text = repr_of(error), text_of(error)
    return words if text in words else f"{type(error).__qualname__}({text!r})"


def ordinary(error: BaseException) -> Exception:
    """Return an error that can be told of: itself, if it is an `Exception` whose text can be had.

    Another says what can be said of it, and has it as its cause.
    """
    with contextlib.suppress(BaseException):
        f"{error!r}{error!s}"
        if isinstance(error, Exception):
            return error
    told = RuntimeError(f"{type(error).__qualname__} was raised: {repr_of(error)}")
    told.__cause__ = error
    return told


def place_of(error: BaseException) -> str:
    """Return where an exception was raised: file and line, empty where it was not."""
    place = ""
    # An exception may have attributes of its own.
    with contextlib.suppress(BaseException):
        trace: TracebackType | None = error.__traceback__
        while trace is not None:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
            trace = trace.tb_next
    return place
