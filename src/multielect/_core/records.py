"""The Python objects that a core reports.

Rules of this file:
    * One `Report` holds everything that happened since the last one. No reader has to parse a text
      to know what happened.
    * The records are plain data. Their readers decide what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class TermEvent(NamedTuple):
    """A term that began, drains or has ended.

    Attributes:
        key: the election's key.
        number: the number of the election's slot.
        generation: the slot's generation, which tells elections of the same slot apart.
        epoch: the term's epoch.
        reason: 0 if the term began; `DRAINING_REASON` if it drains; else why it ended, as a value
            of `multielect.DemotionReason`.
        at_ns: when the term began or ended; if it drains, when it will end at the latest.
    """

    key: bytes
    number: int
    generation: int
    epoch: int
    reason: int
    at_ns: int


class ErrorReport(NamedTuple):
    """An error of a server.

    Attributes:
        request: the request that failed: one of `REQUEST_NAMES`.
        elections: how many elections the error concerns.
        text: the server's error.
        key: the key of one of the elections; None if the error concerns none.
        lane: the number of the server's lane.
    """

    request: str
    elections: int
    text: str
    key: bytes | None
    lane: int


class ClockJump(NamedTuple):
    """A jump of a server's clock.

    Attributes:
        lane: the number of the server's lane.
        jump_ns: how far the clock jumped; negative if it was set back.
        ended: how many terms ended for that.
    """

    lane: int
    jump_ns: int
    ended: int


@dataclass(frozen=True)
class Report:
    """Everything that happened in a core since the last report.

    Attributes:
        events: terms that began, drain or have ended, in order. If there are many, the next report
            has the rest.
        counts: the number of events by reason.
        errors: errors of servers.
        clock_jumps: jumps of servers' clocks.
        membership: the newest answer to a membership poll; None if there is no new one.
        wants_slots: whether a cluster's slot map must be read again.
        importing: the address of a cluster's node that imports a slot and has no lane; empty if
            there is none.
    """

    events: list[TermEvent] = field(default_factory=list)
    counts: Mapping[int, int] = field(default_factory=dict)
    errors: list[ErrorReport] = field(default_factory=list)
    clock_jumps: list[ClockJump] = field(default_factory=list)
    membership: bytes | None = None
    wants_slots: bool = False
    importing: str = ""
