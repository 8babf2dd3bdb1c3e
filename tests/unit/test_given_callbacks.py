"""Callbacks and loggers as all public classes take them: what is taken, what would never run."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from multielect import ElectionGroup, Elector, aio
from multielect._settings.callables import fitted
from multielect.errors import ConfigError

THREADED = [ElectionGroup, Elector]
ASYNC = [aio.ElectionGroup, aio.Elector]
ALL = THREADED + ASYNC
CALLBACKS = {"on_elected": 1, "on_demoted": 2, "on_draining": 2, "on_error": 1}


def public_classes(kinds: list[Any]) -> list[Any]:
    """Every public class with every callback that it has."""
    return [
        pytest.param(kind, what, id=f"{kind.__module__}.{kind.__name__}-{what}")
        for kind in kinds
        for what in CALLBACKS
        if what != "on_draining" or "Group" in kind.__name__
    ]


def made(kind: Any, **given: Any) -> Any:
    return kind("redis://localhost", prefix="p", **given)


class Noted:
    """Callbacks as methods."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def none(self) -> None:
        self.seen.append(())

    def one(self, term: object) -> None:
        self.seen.append((term,))

    def two(self, term: object, reason: object) -> None:
        self.seen.append((term, reason))

    def perhaps(self, term: object = None, *, loud: bool = True) -> None:
        self.seen.append((term, loud))

    def all(self, *arguments: object) -> None:
        self.seen.append(arguments)


@pytest.mark.parametrize("may_await", [False, True])
@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("none", ()),
        ("one", ("term",)),
        ("two", ("term", "reason")),
        ("perhaps", ("term", True)),
        ("all", ("term", "reason")),
    ],
)
def test_a_callback_is_given_as_much_as_it_takes(
    name: str, seen: tuple[object, ...], may_await: bool
) -> None:
    noted = Noted()
    call = fitted("on_demoted", getattr(noted, name), 2, may_await=may_await)
    assert call is not None
    call("term", "reason")
    assert noted.seen == [seen]


def test_other_callables_are_fitted_too() -> None:
    seen: list[object] = []
    for callback in (
        seen.append,
        partial(seen.append, "bound"),
        MagicMock(side_effect=seen.append),
    ):
        call = fitted("on_elected", callback, 1)
        assert call is not None
        call("term")
    assert seen == ["term", "bound", "term"]


def test_no_callback_is_no_callback() -> None:
    assert fitted("on_elected", None, 1) is None


@pytest.mark.parametrize(("kind", "what"), public_classes(ALL))
def test_a_callback_that_wants_more_is_refused(kind: Any, what: str) -> None:
    def of_place(_one: object, _two: object, _three: object) -> None: ...

    def of_name(*_all: object, loud: bool) -> None: ...

    for callback in (of_place, of_name):
        with pytest.raises(ConfigError, match=f"{what} must take at most {CALLBACKS[what]} arg"):
            made(kind, **{what: callback})


@pytest.mark.parametrize(("kind", "what"), public_classes(ALL))
@pytest.mark.parametrize("given", ["f", 3, [], {"a": 1}])
def test_what_cannot_be_called_is_refused(kind: Any, what: str, given: object) -> None:
    with pytest.raises(ConfigError, match=f"{what} must be a function or None, not "):
        made(kind, **{what: given})


async def coroutine(_term: object) -> None: ...


class Awaited:
    """Things of which nothing is done until they are awaited."""

    async def method(self, _term: object) -> None: ...

    @classmethod
    async def of_class(cls, _term: object) -> None: ...

    @staticmethod
    async def static(_term: object) -> None: ...

    async def __call__(self, _term: object) -> None: ...


class CalledByAnother:
    """An object that is called through a second one."""

    __call__ = Awaited()


AWAITED: list[Callable[..., Any]] = [
    coroutine,
    partial(coroutine, "term"),
    partial(partial(coroutine), "term"),
    Awaited().method,
    partial(Awaited().method),
    Awaited.of_class,
    Awaited.static,
    Awaited(),
    partial(Awaited()),
    Awaited().__call__,
    CalledByAnother(),
    AsyncMock(),
]


@pytest.mark.parametrize("callback", AWAITED)
@pytest.mark.parametrize(("kind", "what"), public_classes(THREADED))
def test_what_nobody_would_await_is_refused(kind: Any, what: str, callback: Any) -> None:
    with pytest.raises(ConfigError, match=f"{what} must be a plain function, as .*multielect.aio"):
        made(kind, **{what: callback})


@pytest.mark.parametrize("callback", AWAITED)
@pytest.mark.parametrize(("kind", "what"), public_classes(ASYNC))
def test_what_is_awaited_is_taken_by_asyncio(kind: Any, what: str, callback: Any) -> None:
    made(kind, **{what: callback})


def generator(_term: object) -> Iterator[None]:
    yield


async def async_generator(_term: object) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    "callback", [generator, async_generator, partial(generator), partial(async_generator, 1)]
)
@pytest.mark.parametrize(("kind", "what"), public_classes(ALL))
def test_what_would_be_iterated_over_by_nobody_is_refused(
    kind: Any, what: str, callback: Any
) -> None:
    with pytest.raises(ConfigError, match=f"{what} must not be a generator"):
        made(kind, **{what: callback})


@pytest.mark.parametrize("returned", [coroutine, generator, async_generator])
def test_a_function_that_only_returns_one_fails_when_it_is_called(returned: Any) -> None:
    call = fitted("on_elected", lambda term: [returned(term)][0], 1)
    assert call is not None
    with pytest.raises(TypeError, match=r"on_elected returned a (coroutine|generator), which"):
        call("term")


@pytest.mark.parametrize("kind", [ElectionGroup, aio.ElectionGroup])
@pytest.mark.parametrize("only", [coroutine, generator, Awaited()])
def test_only_is_held_to_the_same(kind: Any, only: Any) -> None:
    with pytest.raises(ConfigError, match="only must"):
        made(kind, balance=True, only=only)


class Structured:
    """A logger of another library, which has what is needed."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("logger", ["x", "", 3, False, print, logging.Logger])
def test_what_cannot_be_logged_to_is_refused(kind: Any, logger: object) -> None:
    with pytest.raises(ConfigError, match=r"logger must be a logging\.Logger"):
        made(kind, logger=logger)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "logger",
    [
        logging.getLogger("x"),
        logging.LoggerAdapter(logging.getLogger("x"), {}),
        logging,
        Structured(),
        MagicMock(),
        None,
    ],
)
def test_what_has_the_methods_of_a_logger_is_taken(kind: Any, logger: Any) -> None:
    made(kind, logger=logger)
