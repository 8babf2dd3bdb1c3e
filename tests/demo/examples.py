"""Small streams, journals and beliefs to try the demo's parts on."""

from __future__ import annotations

from array import array
from collections import Counter

from multielect import DemotionReason
from multielect.cli.demo.beliefs import BelievedTerm, NodeBeliefs
from multielect.cli.demo.checkpoint import JournalEntry
from multielect.cli.demo.result import Change
from multielect.cli.demo.stream import EventStream
from multielect.cli.demo.takeover import Moves, Takeovers

MS = 1_000_000


def stream_of(order: str) -> EventStream:
    """Return a stream with one event a letter, which names its partition: ``"abab"``."""
    keys = sorted(set(order), key=order.index)
    partition_of = array("I", (keys.index(letter) for letter in order))
    events = [f"{letter}{position}".encode() for position, letter in enumerate(order)]
    return EventStream.arrange(keys, partition_of, events)


def entry(
    stream: EventStream,
    first: int,
    after: int,
    *,
    partition: int = 0,
    epoch: int = 1,
    node: str = "x",
) -> JournalEntry:
    """Return a sound journal entry for events `first` up to `after` of a partition."""
    return JournalEntry(epoch, first, after, stream.digests(partition)[after], node)


def term(
    node: str,
    epoch: int,
    began_ms: float,
    ended_ms: float | None,
    *,
    election: int = 0,
    elected_ms: float | None = None,
    reason: DemotionReason | None = None,
) -> BelievedTerm:
    """Return a term whose callback ran when belief began, unless said otherwise."""
    return BelievedTerm(
        node=node,
        election=election,
        epoch=epoch,
        began_ns=int(began_ms * MS),
        ended_ns=None if ended_ms is None else int(ended_ms * MS),
        elected_ns=int((began_ms if elected_ms is None else elected_ms) * MS),
        reason=reason,
    )


def change(
    node: str = "y",
    *,
    least: int = 1,
    moved: int = 1,
    lost: int = 0,
    is_balanced: bool = True,
    comes: bool = True,
) -> Change:
    """Return a change of the fleet in which `node` was given so many elections."""
    moves = Moves(Counter({node: moved}), lost, 0, Counter(), Takeovers([2.0] * moved))
    return Change(node, least, moves, is_balanced=is_balanced, comes=comes)


def beliefs(*terms: BelievedTerm, unpaired: int = 0) -> NodeBeliefs:
    """Return these terms as what a node believed."""
    return NodeBeliefs(list(terms), unpaired)
