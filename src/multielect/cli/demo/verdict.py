"""The checker: compares commits and beliefs with what must be true.

Rules of this file:
    * It knows the events, the journal and the beliefs, and nothing else. The script that commits
      checks only the fence, so every check here can fail.
    * An event is lost if no commit has it, doubled for each further commit that has it, and out of
      order if a later event of its partition was committed before it.
    * The digest of a commit must be that of the events in the file.
    * A commit is by a leader if its epoch was granted to that node. Epochs rise in the order in
      which their terms began, and in the order of the journal.
    * No two terms of one election are believed at the same time.
    * A planned change of the fleet costs no term, gives a node that comes some elections, and
      leaves every node with its share.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .beliefs import BelievedTerm, NodeBeliefs
    from .checkpoint import JournalEntry
    from .result import Change
    from .stream import EventStream


@dataclass(frozen=True)
class Verdict:
    """The result of the check.

    Attributes:
        events: the number of events in the stream.
        committed: the number of different events that were committed.
        commits: the number of accepted commits.
        lost: events that were never committed.
        duplicates: commits of events that were committed already.
        out_of_order: events committed after a later one of their partition.
        wrong_digests: commits whose digest is not that of the events up to it.
        by_no_leader: commits under an epoch that their node was not granted.
        terms: the number of terms.
        falling_epochs: terms whose epoch was not above that of the term before, or was above the
            newest granted one, and commits whose epoch was below that of the commit before.
        overlaps: pairs of terms of one election that were believed at the same time.
        overlap_ms: the time that all pairs overlapped.
        unpaired: calls of `on_elected` without `on_demoted`, or the reverse.
        planned_moves: elections that moved because nodes came or left.
        planned_lost: terms that ended meanwhile without a handover.
        idle_joins: nodes that came and were given nothing.
        unbalanced: changes that left a node without its share.
    """

    events: int
    committed: int
    commits: int
    lost: int
    duplicates: int
    out_of_order: int
    wrong_digests: int
    by_no_leader: int
    terms: int
    falling_epochs: int
    overlaps: int
    overlap_ms: float
    unpaired: int
    planned_moves: int
    planned_lost: int
    idle_joins: int
    unbalanced: int

    @property
    def epochs_rise(self) -> bool:
        """Whether epochs rose in every election."""
        return self.falling_epochs == 0

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return not (
            self.lost
            or self.duplicates
            or self.out_of_order
            or self.wrong_digests
            or self.by_no_leader
            or self.falling_epochs
            or self.overlaps
            or self.unpaired
            or self.planned_lost
            or self.idle_joins
            or self.unbalanced
        )


def judge(
    stream: EventStream,
    journal: Sequence[Sequence[JournalEntry]],
    newest_epochs: Sequence[int],
    beliefs: Iterable[NodeBeliefs],
    changes: Collection[Change],
) -> Verdict:
    """Check a whole run.

    Args:
        stream: the events.
        journal: the accepted commits of each partition, in their order.
        newest_epochs: the epoch counter of each election at the end.
        beliefs: the beliefs of every node.
        changes: the planned changes of the fleet.
    """
    beliefs = list(beliefs)
    terms = [term for node in beliefs for term in node.terms]
    granted = {(term.election, term.epoch, term.node) for term in terms}
    by_election: dict[int, list[BelievedTerm]] = defaultdict(list)
    for term in sorted(terms, key=lambda term: term.began_ns):
        by_election[term.election].append(term)

    tally = _Tally()
    for partition, entries in enumerate(journal):
        tally.add_commits(entries, stream.digests(partition))
        for entry in entries:
            tally.by_no_leader += (partition, entry.epoch, entry.node) not in granted
    for election, held in by_election.items():
        tally.add_terms(held, newest_epochs[election])
    return Verdict(
        events=len(stream),
        committed=tally.committed,
        commits=sum(len(entries) for entries in journal),
        lost=len(stream) - tally.committed,
        duplicates=tally.duplicates,
        out_of_order=tally.out_of_order,
        wrong_digests=tally.wrong_digests,
        by_no_leader=tally.by_no_leader,
        terms=len(terms),
        falling_epochs=tally.falling_epochs,
        overlaps=tally.overlaps,
        overlap_ms=tally.overlap_ns / 1e6,
        unpaired=sum(node.unpaired for node in beliefs),
        planned_moves=sum(change.moves.moved for change in changes),
        planned_lost=sum(change.moves.lost for change in changes),
        idle_joins=sum(change.is_idle for change in changes),
        unbalanced=sum(not change.is_balanced for change in changes),
    )


class _Tally:
    def __init__(self) -> None:
        self.committed = 0
        self.duplicates = 0
        self.out_of_order = 0
        self.wrong_digests = 0
        self.by_no_leader = 0
        self.falling_epochs = 0
        self.overlaps = 0
        self.overlap_ns = 0

    def add_commits(self, entries: Sequence[JournalEntry], digests: Sequence[int]) -> None:
        """Check the journal of one partition, against the digest after each of its events."""
        events = len(digests) - 1
        seen = bytearray(events)
        furthest = 0
        for entry in entries:
            for event in range(max(0, entry.first), min(events, entry.after)):
                if seen[event]:
                    self.duplicates += 1
                    continue
                seen[event] = 1
                self.committed += 1
                self.out_of_order += event < furthest
            furthest = max(furthest, entry.after)
            sound = 0 <= entry.first < entry.after <= events
            self.wrong_digests += not sound or digests[entry.after] != entry.digest
        self.falling_epochs += sum(
            later.epoch < earlier.epoch for earlier, later in pairwise(entries)
        )

    def add_terms(self, terms: Sequence[BelievedTerm], newest_epoch: int) -> None:
        """Check the terms of one election, in the order in which they began."""
        self.falling_epochs += sum(
            later.epoch <= earlier.epoch for earlier, later in pairwise(terms)
        )
        self.falling_epochs += sum(term.epoch > newest_epoch for term in terms)
        for place, earlier in enumerate(terms):
            for later in terms[place + 1 :]:
                if earlier.ended_ns is not None and earlier.ended_ns <= later.began_ns:
                    break
                self.overlaps += 1
                self.overlap_ns += _shared_ns(earlier, later)


def _shared_ns(earlier: BelievedTerm, later: BelievedTerm) -> int:
    ends = [term.ended_ns for term in (earlier, later) if term.ended_ns is not None]
    return max(1, min(ends) - later.began_ns) if ends else 1
