"""The callbacks that a user passed, for threads and event loops alike.

Rules of this file:
    * Callbacks are checked here, once, before anything else is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .._settings.callables import check_beside_worker, fitted
from ..election import Term

Callback = Callable[..., object]


@dataclass(frozen=True)
class Callbacks:
    """The callbacks of a group or an elector; None for each that the user did not pass.

    Attributes:
        on_elected: takes a term that began.
        on_demoted: takes a term that ended, and the reason.
        on_draining: takes a term that drains, and when it ends at the latest.
        on_error: takes an error.
        worker: takes a term, and works for as long as the term lasts.
    """

    on_elected: Callback | None
    on_demoted: Callback | None
    on_draining: Callback | None
    on_error: Callback | None
    worker: Callback | None

    @classmethod
    def checked(
        cls,
        *,
        on_elected: Callback | None,
        on_demoted: Callback | None,
        on_draining: Callback | None = None,
        on_error: Callback | None,
        worker: Callback | None,
        may_await: bool = False,
    ) -> Callbacks:
        """Return the user's callbacks, each wrapped to receive as many arguments as it takes.

        Args:
            on_elected: the user's callback, as all the others.
            on_demoted: see `on_elected`.
            on_draining: see `on_elected`.
            on_error: see `on_elected`.
            worker: see `on_elected`.
            may_await: whether an awaitable that they return is awaited.

        Raises:
            ConfigError: if one cannot be called so, or would never run, or if there are both a
                worker and an `on_draining`.
        """
        check_beside_worker(worker, on_draining)
        return cls(
            on_elected=fitted("on_elected", on_elected, 1, may_await=may_await),
            on_demoted=fitted("on_demoted", on_demoted, 2, may_await=may_await),
            on_draining=fitted("on_draining", on_draining, 2, may_await=may_await),
            on_error=fitted("on_error", on_error, 1, may_await=may_await),
            worker=fitted("worker", worker, 1, may_await=may_await),
        )

    @property
    def notifies_terms(self) -> bool:
        """Whether there is a callback for terms."""
        return (self.on_elected, self.on_demoted, self.on_draining) != (None, None, None)

    def notify(self, term: Term) -> None:
        """Call the callback for a term that began, drains or ended."""
        if term.deadline is not None:
            if self.on_draining is not None:
                self.on_draining(term, term.deadline)
        elif term.reason is None:
            if self.on_elected is not None:
                self.on_elected(term)
        elif self.on_demoted is not None:
            self.on_demoted(term, term.reason)
