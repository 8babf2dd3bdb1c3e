"""The lines in which a node logs its life: one line for many elections.

Rules of this file:
    * A line says how many, why, and for how long. INFO is for what goes well or was asked for,
      WARNING for what a person should look at.
    * No election has a line of its own. Events of single elections are summed up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .._core.reporter import DRAINING_REASON
from .._logging.log import Log
from ..election import DemotionReason

if TYPE_CHECKING:
    from .._engine.lane_connection import Arrival

_NS = 1_000_000_000
_REPORTED_ELSEWHERE = frozenset({DemotionReason.STOPPED, DemotionReason.DRAINED})
"""The lines for the stop and for the drain report these."""


class LifecycleLog:
    """Logs the life of one node. Any thread may call it."""

    def __init__(self, log: Log, *, ttl_ns: int, margin_ns: int) -> None:
        """Keep the log."""
        self._log = log
        self._ttl_s = ttl_ns / _NS
        self._unconfirmed_s = (ttl_ns - margin_ns) / _NS

    def started(self, elections: int) -> None:
        """Log that the node was started."""
        self._log.say(
            "started",
            lambda n: f"started: stands for {of(n, 'election')}, ttl {self._ttl_s:g} s",
            elections,
        )

    def connected(self, arrival: Arrival) -> None:
        """Log that there is a connection."""
        after = "" if arrival.attempts <= 1 else f" at attempt {arrival.attempts:,}"
        if arrival.is_first:
            self._log.say("connected", f"connected to {arrival.server}{after}")
            return
        self._log.say(
            "connected again",
            f"connected again to {arrival.server}{after}, after {arrival.away_s:.1f} s without"
            " a connection",
        )

    def events(self, counts: Mapping[int, int]) -> None:
        """Log how many terms began, and how many ended for each reason."""
        for reason, count in counts.items():
            if reason == 0:
                self._sum("terms began", lambda n: f"{of(n, 'term')} began", count)
            elif reason != DRAINING_REASON:
                self._ended(DemotionReason(reason), count)

    def _ended(self, reason: DemotionReason, count: int) -> None:
        if reason in _REPORTED_ELSEWHERE:
            return
        level = logging.INFO
        if reason in _WORTH_A_LOOK:
            level = logging.WARNING
        why = _WHY.get(reason, f"ended: {reason.name}")
        if reason is DemotionReason.EXPIRED:
            why += f" for {self._unconfirmed_s:.3g} s, as Redis or this process did not answer"
        self._sum(reason.name, lambda n: f"{of(n, 'term')} {why}", count, level=level)

    def shared_out(self, members: int, own: int, elections: int) -> None:
        """Log that the fleet's elections were shared out anew, as this node sees it."""

        def text(times: int) -> str:
            often = f", after {times:,} changes" if times > 1 else ""
            return (
                f"the fleet has {of(members, 'member')}: {own:,} of {of(elections, 'election')}"
                f" are this node's{often}"
            )

        self._sum("shared out", text, 1)

    def drain_begun(self, leading: int, timeout_s: float) -> None:
        """Log that the node begins to hand over all its terms."""
        self._log.say(
            "drain begun",
            f"drain begun: {of(leading, 'term')} to hand over within {timeout_s:g} s",
        )

    def drain_ended(self, took_s: float) -> None:
        """Log that the node leads nothing any more."""
        self._log.say("drain ended", f"drain ended after {took_s:.1f} s: all terms have ended")

    def stopped(self, led: int, released: int) -> None:
        """Log that the node has stopped."""
        left = led - released
        self._log.say("stopped", lambda n: f"stopped: {of(n, 'lease')} released", released)
        if left > 0:
            self._log.say(
                "stopped too soon",
                lambda n: (
                    f"stopped without an answer to the release of {of(n, 'lease')}: leases that"
                    f" were not released last {self._ttl_s:g} s at most"
                ),
                left,
            )

    def _sum(
        self, kind: str, text: Callable[[int], str], amount: int, *, level: int = logging.INFO
    ) -> None:
        self._log.sum_up(kind, text, amount, level=level)


_WHY = {
    DemotionReason.RESIGNED: "resigned",
    DemotionReason.REMOVED: "ended with their elections, which were removed",
    DemotionReason.EXPIRED: "expired: no refresh was confirmed",
    DemotionReason.LOST: "lost: Redis says that the leases are not this node's",
    DemotionReason.STALLED: "given up, as workers did not call heartbeat() for max_stall seconds",
    DemotionReason.SUPERSEDED: "ended, as newer epochs are known: others were elected meanwhile",
    DemotionReason.REBALANCED: "ended, as the shares of the fleet changed",
}
_WORTH_A_LOOK = frozenset(DemotionReason) - {
    DemotionReason.RESIGNED,
    DemotionReason.REMOVED,
    DemotionReason.REBALANCED,
}


def of(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where needed."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
