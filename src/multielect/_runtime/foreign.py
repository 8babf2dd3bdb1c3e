"""Texts of foreign objects: exceptions and objects of the user.

Rules of this file:
    * `__repr__` and `__str__` of a user's object may raise anything. These functions return a text
      in any case.
    * Both may be slow, so no thread that refreshes leases calls these functions.
"""

from __future__ import annotations

import contextlib
from types import TracebackType


def repr_of(thing: object) -> str:
    """Return the repr of any object, or a substitute if that raises."""
    try:
        return repr(thing)
    # SystemExit as well: a repr must not end the thread.
    except BaseException:  # noqa: BLE001
        return f"<{type(thing).__qualname__} whose repr fails>"


def text_of(thing: object) -> str:
    """Return the text of any object, or a substitute if that raises."""
    try:
        return str(thing)
    except BaseException:  # noqa: BLE001
        return f"<{type(thing).__qualname__} whose text fails>"


def in_words(error: BaseException | None) -> str:
    """Return an error's repr, with its text even if the repr leaves that out.

    The repr of redis-py's errors does so.
    """
    shown, text = repr_of(error), text_of(error)
    return shown if text in shown else f"{type(error).__qualname__}({text!r})"


def ordinary(error: BaseException) -> Exception:
    """Return `error` if it is an `Exception` with a text, or else an error that describes it.

    The cause of the latter is `error`.
    """
    with contextlib.suppress(BaseException):
        f"{error!r}{error!s}"
        if isinstance(error, Exception):
            return error
    substitute = RuntimeError(f"{type(error).__qualname__} was raised: {repr_of(error)}")
    substitute.__cause__ = error
    return substitute


def place_of(error: BaseException) -> str:
    """Return the file and line where an exception was raised; empty if it was not raised."""
    place = ""
    # A user's exception may define these attributes itself.
    with contextlib.suppress(BaseException):
        trace: TracebackType | None = error.__traceback__
        while trace is not None:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
            trace = trace.tb_next
    return place
