"""The counters of a node.

Rules of this file:
    * Every counter begins at 0 and only rises.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counters:
    """What a node has done since it was made.

    Attributes:
        refreshes: refreshes of leases that were sent.
        checks: acquires that were sent, won or not.
        elected: terms that began.
        demoted: terms that ended.
        released: releases of leases that Redis answered.
        batches: scripts that were sent.
        wakeups: acquires that were sent at once because another node released the election.
        stale_replies: replies that came too late to count.
        reconnects: connections that were lost.
    """

    refreshes: int
    checks: int
    elected: int
    demoted: int
    released: int
    batches: int
    wakeups: int
    stale_replies: int
    reconnects: int
