"""What a node counts.

Rules of this file:
    * Every number only rises, from 0 on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counters:
    """What a node has done since it was made.

    Attributes:
        refreshes: leases sent for refresh.
        checks: elections asked for, won or not.
        elected: terms begun.
        demoted: terms ended.
        released: terms that Redis was told of being given up, and answered.
        batches: scripts sent.
        wakeups: elections asked for at once because another node released them.
        stale_replies: outcomes that came too late to count.
        reconnects: connections lost.
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
