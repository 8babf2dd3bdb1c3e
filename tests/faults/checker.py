"""Checks beliefs, grants and writes against the invariants I1 to I7.

Rules of this file:
    * The checker sees results and not causes. It reports only what certainly happened.
    * An excuse names invariants, a time and the elections that a fault struck. What exceeds one of
      the three is a violation. I2, I3 and I5 to I7 have no excuses.
    * The checker reports each violation once.

    I1  no two nodes believe at the same instant that they lead an election
    I2  epochs rise in the order of the grants, and a node was granted each epoch that it believed
    I3  the register has no lower epoch after a higher one
    I4  while a node believes that it leads, the leader key at the server has its name
    I5  after a fault heals, every election is led within one TTL and the fault's bound
    I6  each `on_elected` is followed by its `on_demoted`, in order
    I7  after a fault heals, a leader of every election writes through the fence within that time
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from .journal import History, Term
from .ledger import TOLERANCE_NS, Ledger

_MS = 1_000_000

SERVER_LOST_DATA = frozenset({"I1", "I4"})
SERVER_CLOCK_JUMPED = frozenset({"I1", "I4"})
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Violation:
    """A violation of an invariant.

    Attributes:
        invariant: the invariant that does not hold.
        election: the number of the election.
        at_ns: when the violation began; 0 if that is not known.
        lasted_ms: how long it lasted.
        words: what happened, for people.
    """

    invariant: str
    election: int
    at_ns: int
    lasted_ms: float
    words: str

    def __str__(self) -> str:
        return f"{self.invariant} in k{self.election} for {self.lasted_ms:.1f} ms: {self.words}"


@dataclass(frozen=True)
class Excuse:
    """A fault under which the design does not promise some invariants for a time.

    Attributes:
        why: the name of the fault.
        invariants: the invariants that are not promised.
        from_ns: the beginning of that time.
        to_ns: the end of that time.
        elections: the elections that the fault struck; None for all.
    """

    why: str
    invariants: frozenset[str]
    from_ns: int
    to_ns: int
    elections: frozenset[int] | None = None

    def covers(self, violation: Violation) -> bool:
        """Return whether this excuses the violation."""
        return (
            violation.invariant in self.invariants
            and self.from_ns - TOLERANCE_NS <= violation.at_ns
            and violation.at_ns + violation.lasted_ms * _MS <= self.to_ns + TOLERANCE_NS
            and (self.elections is None or violation.election in self.elections)
        )


@dataclass(frozen=True)
class Heal:
    """The end of a fault, at `at_ns`. Every election must be led by `by_ns`.

    Attributes:
        accepts: whether writes of all leaders must be accepted by then too.
    """

    at_ns: int
    by_ns: int
    accepts: bool = False


@dataclass(frozen=True)
class Entry:
    """An accepted write to the fenced register.

    Attributes:
        sent_ns: when it was sent, and so before it was accepted.
    """

    election: int
    epoch: int
    holder: str
    sent_ns: int = 0


@dataclass
class Findings:
    """What the checker found.

    Attributes:
        violations: the violations.
        excused: what would be a violation without an excuse.
    """

    violations: list[Violation] = field(default_factory=list)
    excused: list[Violation] = field(default_factory=list)


class Checker:
    """Checks the history of a fleet, one part after another."""

    def __init__(self, elections: int) -> None:
        self._elections = elections
        self._excuses: list[Excuse] = []
        self._known: set[tuple[str, object]] = set()
        self._known_excused: set[tuple[str, object]] = set()
        self._written: dict[int, Entry] = {}

    def excuse(self, excuse: Excuse) -> None:
        """Use an excuse from now on."""
        self._excuses.append(excuse)

    def forget(self, before_ns: int) -> None:
        """Drop the excuses that ended before that time."""
        self._excuses = [excuse for excuse in self._excuses if excuse.to_ns >= before_ns]

    def check(
        self,
        histories: Iterable[History],
        ledger: Ledger,
        entries: Iterable[Entry | None] = (),
        heals: Iterable[Heal] = (),
    ) -> Findings:
        """Check everything that is known so far.

        Args:
            histories: the histories of all processes, read up to now.
            ledger: the ledger, read further than the histories.
            entries: the entries of the register since the last call. None says that the register
                lost its entries and its newest epoch, so that its epochs may begin again.
            heals: the heals whose time has passed.
        """
        histories, entries, heals = list(histories), list(entries), list(heals)
        believed = by_election(term for history in histories for term in history.terms())
        written = by_election(entry for entry in entries if entry is not None)
        findings = Findings()
        for election in range(self._elections):
            terms = sorted(believed[election], key=lambda term: term.began_ns)
            self._sort(findings, self._overlaps(terms))
            self._sort(findings, self._ungranted(terms, ledger))
            self._sort(findings, self._outlasting(terms, ledger))
            for heal in heals:
                self._sort(findings, self._unled(election, terms, heal))
                if heal.accepts:
                    self._sort(findings, self._refused(election, terms, written[election], heal))
        self._sort(findings, self._falling(ledger))
        self._sort(findings, self._overwritten(entries))
        self._sort(findings, self._unpaired(histories))
        return findings

    def _sort(self, findings: Findings, found: Iterable[tuple[object, Violation]]) -> None:
        for name, violation in found:
            # A violation that goes on is longer at each check, and may outlast its excuse.
            known = (violation.invariant, name)
            if not any(excuse.covers(violation) for excuse in self._excuses):
                if known not in self._known:
                    findings.violations.append(violation)
                self._known.add(known)
            elif known not in self._known_excused:
                findings.excused.append(violation)
                self._known_excused.add(known)

    def _overlaps(self, terms: Sequence[Term]) -> Iterable[tuple[object, Violation]]:
        for place, earlier in enumerate(terms):
            for later in terms[place + 1 :]:
                if later.began_ns >= earlier.ended_ns:
                    # All later terms began even later. An earlier term may have been longer.
                    break
                until_ns = min(earlier.ended_ns, later.ended_ns)
                if until_ns <= later.began_ns:
                    continue
                yield (
                    (earlier.node, earlier.epoch, later.node, later.epoch),
                    Violation(
                        "I1",
                        earlier.election,
                        later.began_ns,
                        (until_ns - later.began_ns) / _MS,
                        f"{_who(earlier)} and {_who(later)} both believed to lead",
                    ),
                )

    def _ungranted(
        self, terms: Sequence[Term], ledger: Ledger
    ) -> Iterable[tuple[object, Violation]]:
        for term in terms:
            if ledger.grant(term.election, term.holder, term.epoch) is None and not ledger.is_blind(
                term.began_ns, term.began_ns
            ):
                yield (
                    (term.node, term.epoch),
                    Violation(
                        "I2",
                        term.election,
                        term.began_ns,
                        (term.ended_ns - term.began_ns) / _MS,
                        f"{_who(term)} believed to lead, but was never granted that epoch",
                    ),
                )

    def _outlasting(
        self, terms: Sequence[Term], ledger: Ledger
    ) -> Iterable[tuple[object, Violation]]:
        for term in terms:
            from_ns, to_ns = ledger.uncovered(
                term.election, term.holder, term.began_ns, term.ended_ns
            )
            if to_ns > from_ns:
                yield (
                    (term.node, term.epoch),
                    Violation(
                        "I4",
                        term.election,
                        from_ns,
                        (to_ns - from_ns) / _MS,
                        f"{_who(term)} believed to lead while the leader key did not have its name",
                    ),
                )

    def _unled(
        self, election: int, terms: Sequence[Term], heal: Heal
    ) -> Iterable[tuple[object, Violation]]:
        led_ns = first_led_ns(terms, heal.at_ns)
        if led_ns is None or led_ns > heal.by_ns:
            late_ns = (heal.by_ns if led_ns is None else led_ns) - heal.at_ns
            words = "was not led" if led_ns is None else "was led again too late,"
            yield (
                (election, heal),
                Violation(
                    "I5",
                    election,
                    heal.at_ns,
                    late_ns / _MS,
                    f"{words} {late_ns / _MS:.0f} ms after all was well, of"
                    f" {(heal.by_ns - heal.at_ns) / _MS:.0f} ms that it may take",
                ),
            )

    def _refused(
        self, election: int, terms: Sequence[Term], entries: Sequence[Entry], heal: Heal
    ) -> Iterable[tuple[object, Violation]]:
        sent_ns = first_accepted_ns(terms, entries, heal.at_ns)
        if sent_ns is None or sent_ns > heal.by_ns:
            allowed_ms = (heal.by_ns - heal.at_ns) / _MS
            yield (
                (election, heal),
                Violation(
                    "I7",
                    election,
                    heal.at_ns,
                    allowed_ms,
                    f"no write of a leader was accepted within {allowed_ms:.0f} ms after all was"
                    " well",
                ),
            )

    def _falling(self, ledger: Ledger) -> Iterable[tuple[object, Violation]]:
        for fall in ledger.falls:
            yield (
                fall,
                Violation(
                    "I2",
                    fall.later.election,
                    fall.later.at_ns,
                    0.0,
                    f"epoch {fall.later.epoch} was granted to {fall.later.holder} after"
                    f" {fall.earlier.epoch} to {fall.earlier.holder}",
                ),
            )

    def _overwritten(self, entries: Iterable[Entry | None]) -> Iterable[tuple[object, Violation]]:
        for entry in entries:
            if entry is None:
                self._written.clear()
                continue
            last = self._written.get(entry.election)
            if last is not None and entry.epoch < last.epoch:
                yield (
                    (last, entry),
                    Violation(
                        "I3",
                        entry.election,
                        0,
                        0.0,
                        f"{entry.holder} wrote by epoch {entry.epoch} after {last.holder} by"
                        f" {last.epoch}",
                    ),
                )
            else:
                self._written[entry.election] = entry

    def _unpaired(self, histories: Iterable[History]) -> Iterable[tuple[object, Violation]]:
        for history in histories:
            for found in history.unpaired:
                yield (
                    found,
                    Violation(
                        "I6",
                        found.election,
                        found.at_ns,
                        0.0,
                        f"epoch {found.epoch} of {found.node} {found.words}",
                    ),
                )


Of = TypeVar("Of", Term, Entry)


def by_election(found: Iterable[Of]) -> dict[int, list[Of]]:
    """Group items by their election. Each group keeps the given order."""
    sorted_out: dict[int, list[Of]] = defaultdict(list)
    for one in found:
        sorted_out[one.election].append(one)
    return sorted_out


def first_led_ns(terms: Iterable[Term], since_ns: int) -> int | None:
    """Return when the election was first led for certain, from `since_ns` on; None if never."""
    led = [max(term.began_ns, since_ns) for term in terms if term.ended_ns >= since_ns]
    return min(led, default=None)


def first_accepted_ns(terms: Sequence[Term], entries: Iterable[Entry], since_ns: int) -> int | None:
    """Return when the first accepted write of a leader was sent, at or after `since_ns`.

    A node that writes after its term has ended is not a leader.

    Returns:
        The time; None if there was no such write.
    """
    sent = [
        entry.sent_ns
        for entry in entries
        if entry.sent_ns >= since_ns
        and any(
            (term.holder, term.epoch) == (entry.holder, entry.epoch)
            and (term.is_open or entry.sent_ns <= term.ended_ns)
            for term in terms
        )
    ]
    return min(sent, default=None)


def gaps_ms(terms: Sequence[Term], since_ns: int) -> list[float]:
    """Return for each change of leader since `since_ns` how long the election had no leader."""
    ordered = sorted(terms, key=lambda term: term.began_ns)
    return [
        (later.began_ns - earlier.ended_ns) / _MS
        for earlier, later in pairwise(ordered)
        if earlier.ended_ns < later.began_ns and later.began_ns >= since_ns
    ]


def _who(term: Term) -> str:
    return f"{term.node} ({term.holder}, epoch {term.epoch})"
