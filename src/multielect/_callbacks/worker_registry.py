"""Which terms have a worker, and which wait for one: one worker at a time for each election.

Rules of this file:
    * A term's worker begins only when the worker of the previous term has ended. Until then the
      term waits. A term that ends while it waits never has a worker.
    * For each election at most one term has a worker, and at most one waits.
    * The registry starts nothing and reads no clock. Threads and asyncio share it.
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
    """One term, as its worker receives it.

    Attributes:
        stopping: set when the worker must return.
    """

    __slots__ = ("stopping",)

    _event: ClassVar[type[threading.Event | asyncio.Event]]
    stopping: threading.Event | asyncio.Event

    @classmethod
    def of(cls: type[W], term: Term) -> W:  # noqa: PYI019  # Self needs Python 3.11
        """Return a term that has begun, for its worker. In asyncio, call it in the loop."""
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
        """Iterate over the terms that have a worker."""
        return iter(self._working.values())

    def begin(self, term: W) -> bool:
        """Add a term. Returns whether its worker may begin; otherwise the term waits."""
        if term.key in self._working:
            self._waiting[term.key] = term
            return False
        self._working[term.key] = term
        return True

    def find(self, key: str, epoch: int) -> W | None:
        """Return the term of this epoch if it has a worker or waits for one."""
        for terms in (self._working, self._waiting):
            term = terms.get(key)
            if term is not None and term.epoch == epoch:
                return term
        return None

    def is_working(self, term: W) -> bool:
        """Return whether this term's worker has not ended."""
        return self._working.get(term.key) is term

    def stop_waiting(self, term: W) -> W | None:
        """Let a term wait no longer.

        Returns:
            The term for whose worker it waited; None if it did not wait.
        """
        if self._waiting.get(term.key) is not term:
            return None
        del self._waiting[term.key]
        return self._working[term.key]

    def stop(self, latest: Term) -> W | None:
        """Set `stopping` for a term that drains or has ended.

        Args:
            latest: the term as it is now.

        Returns:
            The worker's term, if the term has ended and its worker has not.
        """
        term = self.find(latest.key, latest.epoch)
        if term is None:
            return None
        is_left = False
        if latest.reason is None:
            term.deadline = latest.deadline
        else:
            term.ended_ns, term.reason = latest.ended_ns, latest.reason
            is_left = self.is_working(term)
            if not is_left:
                self.stop_waiting(term)
        term.stopping.set()
        return term if is_left else None

    def leave(self, term: W) -> W | None:
        """Note that a worker has ended. Returns the term whose worker may begin now."""
        del self._working[term.key]
        following = self._waiting.pop(term.key, None)
        if following is not None:
            self._working[term.key] = following
        return following


def give_up(term: Term) -> None:
    """Hand over, or give up, a term whose worker has ended or will not begin."""
    with contextlib.suppress(ClosedError):
        if not term.finish_drain():
            term.resign()


# ---- errors


def still_at_work(term: Term, patience_s: float) -> MultielectError:
    """Return the error for a worker that has not ended with its term."""
    return MultielectError(
        f"the worker{_of(term)} still runs {patience_s:g} s after its term ended (epoch"
        f" {term.epoch}): it must return when term.stopping is set. Until it does, this node starts"
        " no other worker for that election"
    )


def given_up_for_want(term: Term, former: Term) -> MultielectError:
    """Return the error for a term that was given up, as the previous worker has not ended."""
    return MultielectError(
        f"the term{_of(term)} at epoch {term.epoch} was given up: the worker of the previous term"
        f" (epoch {former.epoch}) still runs"
    )


def left_behind(terms: list[W]) -> MultielectError:
    """Return the error for workers that still run after their group has stopped."""
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
