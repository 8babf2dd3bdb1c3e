"""Turns the core's events into term events for callbacks.

Rules of this file:
    * The core's times are those of its clock. Deadlines for users are those of `time.monotonic`.
"""

from __future__ import annotations

from collections.abc import Callable

from .._callbacks.mailbox import Kind, TermEvent
from .._core.records import TermEvent as CoreEvent
from .._core.reporter import DRAINING_REASON
from .._protocol.keys import decode_key
from ..election import DemotionReason, ElectionNode, Term

_NS = 1_000_000_000


def term_event_of(
    node: ElectionNode, event: CoreEvent, monotonic_s: Callable[[], float]
) -> TermEvent[Term]:
    """Return the term event for an event of the core.

    Args:
        node: the node of the term.
        event: the core's event.
        monotonic_s: returns the time of `time.monotonic`.
    """
    raw, number, generation, epoch, reason, at_ns = event
    place = (node, decode_key(raw), number, generation, epoch)
    if reason == 0:
        return TermEvent(raw, epoch, Kind.BEGIN, Term(*place, began_ns=at_ns))
    if reason == DRAINING_REASON:
        left_s = (at_ns - node.clock.now_ns()) / _NS
        return TermEvent(raw, epoch, Kind.DRAIN, Term(*place, deadline=monotonic_s() + left_s))
    term = Term(*place, ended_ns=at_ns, reason=DemotionReason(reason))
    return TermEvent(raw, epoch, Kind.END, term)
