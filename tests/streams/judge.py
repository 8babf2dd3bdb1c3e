"""The judge of a consumer: what was committed and processed, held against what was put in.

Rules of this file:
    * It knows nothing of consumers, checkpoints or elections, and asks nobody: the same facts
      give the same findings.
    * The entries of a partition are numbered from 0 on, in the order in which they were put in.
    * An entry is lost if it was never committed; committed twice for each commit after the first;
      out of order if it was committed after a later one.
    * Processed is what a handler was given, whatever became of it. That may happen twice only
      where a node was disturbed, which is killed or frozen: others then process what it had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

MIN_CHANGES = 10
"""What a run must live through to tell anything: joins, leaves and kills together."""

MIN_NODES = 2


class Commit(NamedTuple):
    """One entry as it was committed."""

    number: int
    epoch: int
    node: str


@dataclass
class Findings:
    """How the entries fared. All but `nodes` and `processed_twice` must be 0.

    Attributes:
        lost: entries that were never committed.
        unknown: commits of entries that were never put in.
        committed_twice: commits of entries that were committed already.
        out_of_order: commits of entries after a later one of their partition.
        older_epoch: commits by an epoch after those of a newer one.
        shared_epochs: epochs of a partition under which more than one node committed.
        processed_twice: times that a handler was given an entry which one had been given before.
        twice_undisturbed: those of them that no kill or freeze explains.
        nodes: how many nodes committed anything.
    """

    lost: int = 0
    unknown: int = 0
    committed_twice: int = 0
    out_of_order: int = 0
    older_epoch: int = 0
    shared_epochs: int = 0
    processed_twice: int = 0
    twice_undisturbed: int = 0
    nodes: int = 0


def judge(
    given: Mapping[str, int],
    committed: Mapping[str, Sequence[Commit]],
    processed: Mapping[str, Sequence[tuple[str, int]]],
    disturbed: AbstractSet[str] = frozenset(),
) -> Findings:
    """Find what went wrong.

    Args:
        given: how many entries were put into each partition.
        committed: what is in the output of each partition, in its order.
        processed: the partition and number of what each node's handlers were given.
        disturbed: the nodes that were killed or frozen.
    """
    found = Findings()
    for partition, count in given.items():
        commits = committed.get(partition, ())
        numbers = [commit.number for commit in commits]
        known = {number for number in numbers if 0 <= number < count}
        found.lost += count - len(known)
        found.unknown += sum(not 0 <= number < count for number in numbers)
        found.committed_twice += len(numbers) - len(set(numbers))
        found.out_of_order += sum(a > b for a, b in pairwise(numbers))
        found.older_epoch += sum(a.epoch > b.epoch for a, b in pairwise(commits))
        holders = Counter(epoch for epoch, _ in {(commit.epoch, commit.node) for commit in commits})
        found.shared_epochs += sum(count > 1 for count in holders.values())
    found.unknown += sum(len(committed[other]) for other in committed.keys() - given.keys())
    found.nodes = len({commit.node for commits in committed.values() for commit in commits})
    times = Counter(entry for entries in processed.values() for entry in entries)
    undisturbed = Counter(
        entry for node, entries in processed.items() if node not in disturbed for entry in entries
    )
    found.processed_twice = sum(count - 1 for count in times.values())
    found.twice_undisturbed = sum(count - 1 for count in undisturbed.values())
    return found


@dataclass
class Verdict:
    """A run, what was found, and what of that must not be.

    Attributes:
        name: which run.
        joins: nodes that joined while it ran.
        leaves: nodes that were asked to end.
        kills: nodes that were ended without being asked.
        freezes: nodes that stood still for a while; no change of the fleet.
        min_kills: how many kills make it the run that it is.
        unclean_stops: nodes that were asked to end, and did not, or not well.
        lost_terms: terms of nodes that were not disturbed which ended before their time.
        seconds: how long it took.
        errors: what else went wrong, in words.
        found: how the entries fared.
    """

    name: str
    joins: int = 0
    leaves: int = 0
    kills: int = 0
    freezes: int = 0
    min_kills: int = 0
    unclean_stops: int = 0
    lost_terms: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)
    found: Findings = field(default_factory=Findings)

    @property
    def wrong(self) -> list[str]:
        """What must not be, in words; nothing if all is well."""
        found = self.found
        counts = {
            "lost": found.lost,
            "never put in": found.unknown,
            "committed twice": found.committed_twice,
            "out of order": found.out_of_order,
            "by an older epoch": found.older_epoch,
            "epochs of two nodes": found.shared_epochs,
            "processed twice undisturbed": found.twice_undisturbed,
            "unclean stops": self.unclean_stops,
            "terms lost, as nodes or Redis had no time to run": self.lost_terms,
        }
        wrong = [f"{count:,} {what}" for what, count in counts.items() if count]
        changes = self.joins + self.leaves + self.kills
        if changes < MIN_CHANGES:
            wrong.append(f"only {changes} joins, leaves and kills of {MIN_CHANGES}")
        if self.kills < self.min_kills:
            wrong.append(f"only {self.kills} kills of {self.min_kills}")
        if found.nodes < MIN_NODES:
            wrong.append(f"only {found.nodes} nodes committed anything")
        return wrong + self.errors
