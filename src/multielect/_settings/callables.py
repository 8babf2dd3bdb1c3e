"""Callbacks and loggers as users give them: what is taken, and with what they are called.

Rules of this file:
    * What would never run, or not be done when it has returned, is refused at the door; what cannot
      be seen there, as a plain function that returns a coroutine, fails when it is called.
    * A callback is given as many arguments as it takes, and no more than there are.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import ConfigError

_LOGGER_METHODS = ("debug", "info", "warning", "error", "exception", "log")


def fitted(
    what: str, callback: Callable[..., object] | None, most: int, *, may_await: bool = False
) -> Callable[..., object] | None:
    """Return a function that calls `callback` with as many arguments as it takes; None for None.

    Args:
        what: the name of the argument, for messages.
        callback: what the user gave.
        most: how many arguments there are.
        may_await: whether what it returns is awaited where it can be.

    Raises:
        ConfigError: for what cannot be called so, or would never run.
    """
    if callback is None:
        return None
    check_function(what, callback, may_await=may_await)
    count = _arguments_taken(what, callback, most)

    def call(*arguments: object) -> object:
        outcome = callback(*arguments[:count])
        refuse_unfinished(what, outcome, may_await=may_await)
        return outcome

    return call


def check_function(
    what: str, given: object, *, may_await: bool = False, elsewhere: str = "multielect.aio"
) -> None:
    """Refuse what cannot be called, or does nothing when it is.

    Args:
        what: the name of the argument, for messages.
        given: what the user gave.
        may_await: whether what it returns is awaited where it can be.
        elsewhere: what takes coroutine functions, for messages.

    Raises:
        ConfigError: for those.
    """
    if not callable(given):
        raise ConfigError(f"{what} must be a function or None, not {given!r}")
    for function in layers_of(given):
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(f"{what} must not be a generator, which would never run: {given!r}")
        if inspect.iscoroutinefunction(function) and not may_await:
            raise ConfigError(
                f"{what} must be a plain function here, as nobody would await {given!r}: coroutine"
                f" functions are for {elsewhere}"
            )


def check_beside_worker(worker: object, on_draining: object) -> None:
    """Refuse what would say twice when a term may be handed over.

    Raises:
        ConfigError: for both at once.
    """
    if worker is not None and on_draining is not None:
        raise ConfigError(
            "on_draining is of no use beside worker: a worker is told by term.stopping, and its"
            " term is handed over when it returns"
        )


def refuse_unfinished(
    what: str, outcome: object, *, may_await: bool = False, elsewhere: str = "multielect.aio"
) -> None:
    """Refuse what a function returned if that has still to be run, and nobody will.

    Args:
        what: the name of the argument, for messages.
        outcome: what it returned.
        may_await: whether that is awaited where it can be.
        elsewhere: what takes coroutines, for messages.

    Raises:
        TypeError: for a generator, or a coroutine that is not awaited.
    """
    if inspect.iscoroutine(outcome) and not may_await:
        outcome.close()  # or Python warns that it was never awaited
        raise TypeError(
            f"{what} returned a coroutine, which nobody awaits here: coroutines are for {elsewhere}"
        )
    # A generator that can be awaited is a coroutine of the old kind (`types.coroutine`).
    is_idle = inspect.isgenerator(outcome) and not inspect.isawaitable(outcome)
    if is_idle or inspect.isasyncgen(outcome):
        raise TypeError(f"{what} returned a generator, which nobody runs")


def checked_logger(logger: Any) -> logging.Logger:  # noqa: ANN401
    """Return where to log: what the user gave, or the library's own logger for None.

    Raises:
        ConfigError: for what cannot be logged to.
    """
    if logger is None:
        return logging.getLogger("multielect")
    if isinstance(logger, type) or not all(
        callable(getattr(logger, name, None)) for name in _LOGGER_METHODS
    ):
        raise ConfigError(
            f"logger must be a logging.Logger, or have the methods of one"
            f" ({', '.join(_LOGGER_METHODS)}), not {logger!r}"
        )
    found: logging.Logger = logger
    return found


def layers_of(given: Any) -> Iterator[object]:  # noqa: ANN401
    """Go through what is called when `given` is: below partials, methods and objects."""
    seen = 0
    while given is not None and seen < 100:
        seen += 1
        yield given
        if isinstance(given, functools.partial):
            given = given.func
        elif inspect.ismethod(given):
            given = given.__func__
        elif isinstance(given, type) or inspect.isroutine(given):
            return
        else:
            given = getattr(type(given), "__call__", None)  # noqa: B004  # it is called by its type


def _arguments_taken(what: str, callback: Callable[..., object], most: int) -> int:
    try:
        parameters = list(inspect.signature(callback).parameters.values())
    except (TypeError, ValueError):
        # Some built-in callables do not tell; they take what they are given.
        return most
    by_place = [each for each in parameters if each.kind in _BY_PLACE]
    required = [each for each in by_place if each.default is each.empty]
    if any(each.kind is each.KEYWORD_ONLY and each.default is each.empty for each in parameters):
        raise ConfigError(f"{what} must take at most {most} arguments, by position: {callback!r}")
    if len(required) > most:
        raise ConfigError(
            f"{what} must take at most {most} arguments, not {len(required)}: {callback!r}"
        )
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return most
    return min(len(by_place), most)


_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
