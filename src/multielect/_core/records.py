"""What comes out of the turns of a core, as Python has it.

Rules of this file:
    * One record holds all that came out since the last: no text is to be parsed to know what it is.
    * It is plain data: who reads it decides what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class TermEvent(NamedTuple):
    """A term that began, drains or has ended.

    Attributes:
        key: the election's key.
        number: its slot.
        generation: of the slot, which tells the election from others in the same slot.
        epoch: the term's.
        reason: 0: it began; `DRAINING_REASON`: it drains; else why it ended, as a value of
            `multielect.DemotionReason`.
        at_ns: when it began or ended; when it will have ended at the latest, if it drains.
    """

    key: bytes
    number: int
    generation: int
    epoch: int
    reason: int
    at_ns: int


class ErrorReport(NamedTuple):
    """What a server refused.

    Attributes:
        request: what was asked of it: one of `REQUEST_NAMES`.
        elections: how many elections are concerned.
        text: the server's words.
        key: the key of one of the elections; None where there is none to be named.
        lane: which lane's server it was.
    """

    request: str
    elections: int
    text: str
    key: bytes | None
    lane: int


class ClockJump(NamedTuple):
    """A server's clock that jumped.

    Attributes:
        lane: which lane's server it was.
        jump_ns: how far it jumped; below zero: it was set back.
        ended: how many terms ended, as their leases had.
    """

    lane: int
    jump_ns: int
    ended: int


@dataclass(frozen=True)
class Report:
    """What came out of a core's turns since the last report.

    Attributes:
        events: terms that began, drain or have ended, in order; a part of them, if there are many.
        counts: how many events there were of each reason.
        errors: what servers refused.
        clock_jumps: servers' clocks that jumped.
        membership: the newest answer to a membership poll; None if there is no new one.
        wants_slots: whether a cluster's slot map must be read again.
    """

    events: list[TermEvent] = field(default_factory=list)
    counts: Mapping[int, int] = field(default_factory=dict)
    errors: list[ErrorReport] = field(default_factory=list)
    clock_jumps: list[ClockJump] = field(default_factory=list)
    membership: bytes | None = None
    wants_slots: bool = False
