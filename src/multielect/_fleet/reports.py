"""What a balancer reports: the shares, and what goes wrong while they are worked out.

Rules of this file:
    * The balancer tries again with each poll. The same error is reported once, until it has
      changed.
    * Any thread may report. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .._protocol.keys import decode_key
from .._runtime.foreign import in_words
from ..balance import Assignment
from ..errors import MultielectError, ProtocolError
from .unknown_leaders import OtherLeader, warning_about

_NS = 1_000_000_000
_MAX_NAMED = 3


class Reports:
    """The reports of one balancer."""

    def __init__(
        self,
        holder: str,
        *,
        calls_user: bool,
        patience_ns: int,
        on_error: Callable[[MultielectError], None],
        on_shared_out: Callable[[int, int, int], None],
    ) -> None:
        """Keep where to report.

        Args:
            holder: this node's holder.
            calls_user: whether a function of the user decides who may lead what.
            patience_ns: how long that function may take before it is reported.
            on_error: takes the errors.
            on_shared_out: takes the number of members, of this node's elections and of all
                elections, when one of them has changed.
        """
        self._holder = holder
        self._calls_user = calls_user
        self._patience_ns = patience_ns
        self._on_error = on_error
        self._on_shared_out = on_shared_out
        self._shares: tuple[int, int, int] | None = None
        self._failure = ""
        self._malformed: frozenset[bytes] = frozenset()
        self._began_ns: int | None = None

    # ---- the balancer's thread

    def begin(self, now_ns: int) -> None:
        """Note that the balancer begins to work out the shares."""
        self._began_ns = now_ns

    def end(self) -> None:
        """Note that the balancer has ended."""
        self._began_ns = None

    def succeeded(self) -> None:
        """Forget the last failure."""
        self._failure = ""

    def failed(self, cause: BaseException) -> None:
        """Report that the elections cannot be shared out, unless it failed so the last time."""
        failure = in_words(cause)
        if failure != self._failure:
            self._failure = failure
            error = MultielectError(f"the elections cannot be shared out: {failure}")
            error.__cause__ = cause
            self._on_error(error)

    def shared_out(self, assignment: Assignment) -> None:
        """Report the shares, if they have changed."""
        holders = [member.holder for member in assignment.members]
        own = holders.index(self._holder) if self._holder in holders else -1
        share = 0 if own < 0 else assignment.owners.count(own)
        shares = (len(holders), share, len(assignment.owners))
        if shares != self._shares:
            self._shares = shares
            self._on_shared_out(*shares)

    def unknown_leaders(self, leaders: Sequence[OtherLeader]) -> None:
        """Report leaders that are not members of the fleet, if there are any."""
        if leaders:
            self._on_error(MultielectError(warning_about(leaders)))

    # ---- the event thread

    def blocked(self, now_ns: int) -> None:
        """Report the user's function if it has not returned for too long: once for each call."""
        began_ns = self._began_ns
        if began_ns is None or not self._calls_user or now_ns - began_ns < self._patience_ns:
            return
        self._began_ns = None
        self._on_error(
            MultielectError(
                "the elections are not shared out: the function that was passed as only has not"
                f" returned for {(now_ns - began_ns) / _NS:.1f} s. It must return at once, and not"
                " wait for anything"
            )
        )

    def malformed_entries(self, holders: frozenset[bytes]) -> None:
        """Report the malformed entries of the membership that were not reported before."""
        new = holders - self._malformed
        self._malformed = holders
        if new:
            names = ", ".join(sorted(decode_key(holder)[:100] for holder in new)[:_MAX_NAMED])
            self._on_error(
                ProtocolError(f"{len(new)} entries of the membership are malformed, of {names}")
            )

    def malformed_plan(self, cause: ValueError) -> None:
        """Report that the fleet's plan is malformed."""
        error = ProtocolError(f"the plan of the fleet is malformed: {cause}")
        error.__cause__ = cause
        self._on_error(error)
