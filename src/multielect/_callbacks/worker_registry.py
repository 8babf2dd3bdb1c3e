"""Who works for which election: one worker at a time, whatever becomes of its terms.

Rules of this file:
    * A term's worker begins when the worker of the term before has ended, and not before. Until
      then its term waits; a term that ends while it waits never has a worker.
    * There is at most one at work and one that waits for each election.
    * It starts nothing and asks no clock: threads and asyncio share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import ClassVar, Generic, TypeVar

from ..election import Term, begun_as
from ..errors import ClosedError, MultielectError

W = TypeVar("W", bound="WorkedTerm")

_MAX_NAMED = 5


class WorkedTerm(Term):
    """One term, as its worker is given it.

    Attributes:
        stopping: set when the worker is to return.
    """

    __slots__ = ("stopping",)

    _event: ClassVar[type[threading.Event | asyncio.Event]]
    stopping: threading.Event | asyncio.Event

    @classmethod
    def of(cls: type[W], term: Term) -> W:  # noqa: PYI019  # Self needs Python 3.11
        """Return a term that has begun as its worker is given it; in the loop, if there is one."""
        made = begun_as(cls, term)
        made.stopping = cls._event()
        return made


class WorkerRegistry(Generic[W]):
    """The terms that have a worker, and those that wait for one."""

    def __init__(self) -> None:
        """Begin empty."""
        self._working: dict[str, W] = {}
        self._waiting: dict[str, W] = {}

    def __len__(self) -> int:
        return len(self._working)

    def __iter__(self) -> Iterator[W]:
        """Iterate over the terms at work."""
        return iter(self._working.values())

    def begin(self, term: W) -> bool:
        """Take a term in. Returns whether its worker may begin; else it waits."""
        if term.key in self._working:
            self._waiting[term.key] = term
            return False
        self._working[term.key] = term
        return True

    def find(self, key: str, epoch: int) -> W | None:
        """Return the term of this epoch if it is at work, or waits."""
        for terms in (self._working, self._waiting):
            term = terms.get(key)
            if term is not None and term.epoch == epoch:
                return term
        return None

    def is_working(self, term: W) -> bool:
        """Tell whether this term's worker has not ended."""
        return self._working.get(term.key) is term

    def stop_waiting(self, term: W) -> W | None:
        """Let a term wait no longer. Returns for whose worker it waited; None if it does not."""
        if self._waiting.get(term.key) is not term:
            return None
        del self._waiting[term.key]
        return self._working[term.key]

    def stop(self, told: Term) -> W | None:
        """Have a term's worker know that it drains, or has ended.

        Args:
            told: the term as it is now.

        Returns:
            The term, if it has ended and its worker has not.
        """
        term = self.find(told.key, told.epoch)
        if term is None:
            return None
        is_left = False
        if told.reason is None:
            term.deadline = told.deadline
        else:
            term.ended_ns, term.reason = told.ended_ns, told.reason
            is_left = self.is_working(term)
            if not is_left:
                self.stop_waiting(term)
        term.stopping.set()
        return term if is_left else None

    def leave(self, term: W) -> W | None:
        """Take note that a worker has ended. Returns the term whose worker may begin now."""
        del self._working[term.key]
        following = self._waiting.pop(term.key, None)
        if following is not None:
            self._working[term.key] = following
        return following


def give_up(term: Term) -> None:
    """Hand a term over whose worker has ended, or will not begin. Nothing if it is over."""
    with contextlib.suppress(ClosedError):
        if not term.finish_drain():
            term.resign()


# ---- what is told


def still_at_work(term: Term, patience_s: float) -> MultielectError:
    """Return the error that says that a worker has not ended with its term."""
    return MultielectError(
        f"the worker{_of(term)} still runs {patience_s:g} s after its term ended (epoch"
        f" {term.epoch}): it must return when term.stopping is set. Until it does, this node has no"
        " other worker for that election"
    )


def given_up_for_want(term: Term, former: Term) -> MultielectError:
    """Return the error that says that a term was given up as the worker before has not ended."""
    return MultielectError(
        f"the term{_of(term)} at epoch {term.epoch} was given up: the worker of the term before"
        f" (epoch {former.epoch}) still runs"
    )


def left_behind(terms: list[W]) -> MultielectError:
    """Return the error that says that workers run on after their group has stopped."""
    named = ", ".join(repr(term.key) for term in terms[:_MAX_NAMED] if term.key)
    more = f" and {len(terms) - _MAX_NAMED} more" if len(terms) > _MAX_NAMED else ""
    which = f" ({named}{more})" if named else ""
    count = "1 worker still runs" if len(terms) == 1 else f"{len(terms)} workers still run"
    return MultielectError(
        f"{count} after stop{which}: have them return when term.stopping is set, or give stop more"
        " time"
    )


def _of(term: Term) -> str:
    return f" of election {term.key!r}" if term.key else ""
