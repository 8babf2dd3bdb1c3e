"""The beliefs of a node, in a file that outlives it: when it believed to lead which elections.

Rules of this file:
    * A record is written without a system call, into a mapped file. The kernel keeps it after
      ``kill -9``, and the writer does not give up the GIL half way.
    * The kind is written last, so an incomplete record does not count.
    * Times are in nanoseconds on the clock of `multielect._runtime.clock`, which all processes of a
      machine share.
    * A sighting may widen a belief by what it proves, and never narrows it. The clock read *after*
      a look that saw a leader bounds the beginning, and the clock read *before* it bounds the end.
      So a process that is stopped between the clock and the look proves nothing false.
"""

from __future__ import annotations

import enum
import mmap
import struct
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from multielect import DemotionReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_RECORD = struct.Struct("<QQQIHH")


class Kind(enum.IntEnum):
    """The kind of a record, and the meaning of its `belief_ns`."""

    ELECTED = 1
    """`on_elected`: when the belief began."""
    DEMOTED = 2
    """`on_demoted`: when the belief ended."""
    SEEN_LEADING = 3
    """The clock, read after the first look at which `is_leader` was true."""
    LAST_SEEN_LEADING = 4
    """The clock, read before the last look at which `is_leader` was true."""


class BeliefRecord(NamedTuple):
    """One record: what a node believed about a term of an election, and when.

    `reason` is the value of the `DemotionReason` in a demotion, 0 elsewhere.
    """

    written_ns: int
    belief_ns: int
    epoch: int
    election: int
    reason: int
    kind: int


class BeliefsFullError(Exception):
    """The file has no room for another record."""


class BeliefLog:
    """Writes the beliefs of one node. Any thread may write."""

    def __init__(self, path: Path, capacity: int) -> None:
        with path.open("w+b") as file:
            file.truncate(capacity * _RECORD.size)
            self._map = mmap.mmap(file.fileno(), capacity * _RECORD.size)
        self._capacity = capacity
        self._places = count()

    def write(
        self,
        kind: Kind,
        election: int,
        epoch: int,
        *,
        belief_ns: int,
        written_ns: int,
        reason: int = 0,
    ) -> None:
        """Append a record.

        Raises:
            BeliefsFullError: if the file has no room left.
        """
        place = next(self._places)
        if place >= self._capacity:
            raise BeliefsFullError(f"more than {self._capacity} records of beliefs")
        _RECORD.pack_into(
            self._map, place * _RECORD.size, written_ns, belief_ns, epoch, election, reason, kind
        )


def read_beliefs(path: Path) -> list[BeliefRecord]:
    """Return the complete records of a belief file, which may still be in use."""
    content = path.read_bytes().rstrip(b"\0")
    content += bytes(-len(content) % _RECORD.size)
    return [BeliefRecord(*fields) for fields in _RECORD.iter_unpack(content) if fields[-1]]


@dataclass(frozen=True)
class BelievedTerm:
    """One term as the node that led saw it.

    Attributes:
        node: the node.
        election: the number of the election.
        epoch: the term's epoch.
        began_ns: the belief began no later than this.
        ended_ns: the belief ended no earlier than this; None if it has not ended.
        elected_ns: when `on_elected` ran.
        reason: why the term ended; None if `on_demoted` did not run.
    """

    node: str
    election: int
    epoch: int
    began_ns: int
    ended_ns: int | None
    elected_ns: int
    reason: DemotionReason | None = None


@dataclass(frozen=True)
class NodeBeliefs:
    """All terms of a node, and how many callbacks had no partner or came in the wrong order."""

    terms: list[BelievedTerm]
    unpaired: int


def believed_terms(
    node: str, records: Iterable[BeliefRecord], *, died_ns: int | None = None
) -> NodeBeliefs:
    """Return the terms in `records`.

    Args:
        node: the node that wrote the records.
        records: the records; those of one election in the order of writing.
        died_ns: when the process was found dead, if it was killed. No belief lasts longer, and a
            term without an end is then not a fault.
    """
    terms: dict[tuple[int, int], BelievedTerm] = {}
    sightings: list[BeliefRecord] = []
    leading: dict[int, int] = defaultdict(int)
    unpaired = 0
    for record in records:
        election, epoch = record.election, record.epoch
        term = terms.get((election, epoch))
        if record.kind == Kind.ELECTED:
            unpaired += bool(leading[election]) or term is not None
            leading[election] = epoch
            terms[election, epoch] = BelievedTerm(
                node, election, epoch, record.belief_ns, None, record.written_ns
            )
        elif record.kind == Kind.DEMOTED:
            unpaired += leading[election] != epoch
            leading[election] = 0
            if term is not None:
                terms[election, epoch] = replace(
                    term, ended_ns=record.belief_ns, reason=DemotionReason(record.reason)
                )
        else:
            sightings.append(record)
    untold: dict[tuple[int, int], list[BeliefRecord]] = defaultdict(list)
    for record in sightings:
        name = (record.election, record.epoch)
        if name in terms:
            terms[name] = _widened(terms[name], record)
        else:
            untold[name].append(record)
    if died_ns is None:
        unpaired += sum(1 for epoch in leading.values() if epoch)
    else:
        terms = {
            name: replace(term, ended_ns=died_ns) if term.ended_ns is None else term
            for name, term in terms.items()
        }
    seen = [_seen_only(node, records, died_ns) for records in untold.values()]
    return NodeBeliefs([*terms.values(), *filter(None, seen)], unpaired)


def _widened(term: BelievedTerm, record: BeliefRecord) -> BelievedTerm:
    if record.kind == Kind.SEEN_LEADING:
        return replace(term, began_ns=min(term.began_ns, record.belief_ns))
    if term.ended_ns is None:
        return term
    return replace(term, ended_ns=max(term.ended_ns, record.belief_ns))


def _seen_only(
    node: str, records: Sequence[BeliefRecord], died_ns: int | None
) -> BelievedTerm | None:
    """Return a term for which no callback ran: it was too short, or its node died before."""
    first, *rest = records
    ended_ns = rest[0].belief_ns if rest else died_ns
    if ended_ns is not None and ended_ns < first.belief_ns:
        # A single look proves that the node believed it at some instant, but not at which.
        return None
    return BelievedTerm(
        node, first.election, first.epoch, first.belief_ns, ended_ns, first.written_ns
    )
