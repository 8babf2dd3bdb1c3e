"""The checks of callbacks and loggers that users pass in.

Rules of this file:
    * A function that would never run, or whose work would not be done when it returns, is refused
      at once. A plain function that returns a coroutine cannot be recognised, and fails when it is
      called.
    * A callback receives as many arguments as it takes, and no more than there are.
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
    what: str, callback: Callable[..., object] | None, max_count: int, *, may_await: bool = False
) -> Callable[..., object] | None:
    """Return a function that calls `callback` with as many arguments as it takes; None for None.

    Args:
        what: the name of the argument, for messages.
        callback: the user's callback.
        max_count: how many arguments there are.
        may_await: whether an awaitable that it returns is awaited.

    Raises:
        ConfigError: if it cannot be called so, or would never run.
    """
    if callback is None:
        return None
    check_function(what, callback, may_await=may_await)
    count = _arguments_taken(what, callback, max_count)

    def call(*arguments: object) -> object:
        outcome = callback(*arguments[:count])
        refuse_unfinished(what, outcome, may_await=may_await)
        return outcome

    return call


def check_function(
    what: str, given: object, *, may_await: bool = False, elsewhere: str = "multielect.aio"
) -> None:
    """Refuse an argument that cannot be called, or that does nothing when it is called.

    Args:
        what: the name of the argument, for messages.
        given: the user's argument.
        may_await: whether an awaitable that it returns is awaited.
        elsewhere: the name of what takes coroutine functions, for messages.

    Raises:
        ConfigError: if it is refused.
    """
    if not callable(given):
        raise ConfigError(f"{what} must be a function or None, not {given!r}")
    for function in layers_of(given):
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(f"{what} must not be a generator, which would never run: {given!r}")
        if inspect.iscoroutinefunction(function) and not may_await:
            raise ConfigError(
                f"{what} must be a plain function, as nothing would await {given!r}: coroutine"
                f" functions are for {elsewhere}"
            )


def check_beside_worker(worker: object, on_draining: object) -> None:
    """Refuse an `on_draining` beside a worker, as both would decide when a term is handed over.

    Raises:
        ConfigError: if there are both.
    """
    if worker is not None and on_draining is not None:
        raise ConfigError(
            "on_draining cannot be used with worker: term.stopping tells the worker of a drain, and"
            " the term is handed over when the worker returns"
        )


def refuse_unfinished(
    what: str, outcome: object, *, may_await: bool = False, elsewhere: str = "multielect.aio"
) -> None:
    """Refuse the result of a function if it is work that nothing would run.

    Args:
        what: the name of the function, for messages.
        outcome: its result.
        may_await: whether an awaitable is awaited.
        elsewhere: the name of what takes coroutines, for messages.

    Raises:
        TypeError: if it is a generator, or a coroutine that is not awaited.
    """
    if inspect.iscoroutine(outcome) and not may_await:
        outcome.close()  # without this, Python warns that it was never awaited
        raise TypeError(
            f"{what} returned a coroutine, which nothing awaits: coroutines are for {elsewhere}"
        )
    # A generator that can be awaited is a coroutine of the old kind (`types.coroutine`).
    is_idle = inspect.isgenerator(outcome) and not inspect.isawaitable(outcome)
    if is_idle or inspect.isasyncgen(outcome):
        raise TypeError(f"{what} returned a generator, which nothing runs")


def checked_logger(logger: Any) -> logging.Logger:  # noqa: ANN401
    """Return the user's logger, or the library's own logger for None.

    Raises:
        ConfigError: if it lacks a logger's methods.
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
    """Yield `given` and the functions below it: inside partials, methods and callable objects."""
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


def _arguments_taken(what: str, callback: Callable[..., object], max_count: int) -> int:
    try:
        parameters = list(inspect.signature(callback).parameters.values())
    except (TypeError, ValueError):
        # Some built-in callables have no signature; they get all arguments.
        return max_count
    positional = [each for each in parameters if each.kind in _POSITIONAL]
    required = [each for each in positional if each.default is each.empty]
    if any(each.kind is each.KEYWORD_ONLY and each.default is each.empty for each in parameters):
        raise ConfigError(
            f"{what} must take at most {max_count} arguments, by position: {callback!r}"
        )
    if len(required) > max_count:
        raise ConfigError(
            f"{what} must take at most {max_count} arguments, not {len(required)}: {callback!r}"
        )
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return max_count
    return min(len(positional), max_count)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
