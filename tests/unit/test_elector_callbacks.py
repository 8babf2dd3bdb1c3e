"""A callback of `Elector` is given as much as it takes, as in Go and in groups alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from multielect import Elector
from multielect.elector import fitted
from multielect.errors import ConfigError


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
def test_a_callback_is_given_as_much_as_it_takes(name: str, seen: tuple[object, ...]) -> None:
    noted = Noted()
    fitted("on_demoted", getattr(noted, name), 2)("term", "reason")
    assert noted.seen == [seen]


def test_other_callables_arefitted_too() -> None:
    seen: list[object] = []
    fitted("on_elected", seen.append, 1)("term")
    fitted("on_elected", partial(seen.append, "bound"), 1)("term")
    assert seen == ["term", "bound"]


def test_no_callback_is_no_callback() -> None:
    assert fitted("on_elected", None, 1)("term") is None


CANNOT_BE_CALLED: list[tuple[str, Callable[..., Any]]] = [
    ("on_elected", lambda _term, _reason: None),
    ("on_demoted", lambda _term, _reason, _more: None),
    ("on_elected", lambda *, _term: None),
    ("on_demoted", lambda _term, *, _reason: None),
]


@pytest.mark.parametrize(("what", "callback"), CANNOT_BE_CALLED)
def test_a_callback_that_wants_more_is_refused(what: str, callback: Callable[..., Any]) -> None:
    chosen: dict[str, Any] = {what: callback}
    with pytest.raises(ConfigError, match=f"{what} must take at most"):
        Elector("redis://localhost", prefix="p", **chosen)
