"""Holds what was believed, granted and written against the invariants I1 to I7.

Rules of this file:
    * It is told of what happened and knows nothing of how: what it reports happened for certain.
    * An excuse is for named invariants, a time, and the elections that a fault struck; what goes
      beyond one of the three is a violation. I2, I3 and I5 to I7 are excused by nothing.
    * Each violation is reported once.

    I1  two beliefs in one election share no instant
    I2  epochs rise in the order of the grants, and every believed epoch was granted to who had it
    I3  the register holds no lower epoch behind a higher one
    I4  the key stands at the server in the name of who believes, as long as he does
    I5  after a fault heals every election is led within one TTL and the fault's bound
    I6  each elected is followed by its demoted, in order
    I7  after a fault heals a leader of every election writes behind the fence, in the same time
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
    """Something that must not be.

    Attributes:
        invariant: which one does not hold.
        election: where.
        at_ns: since when; 0 where there is no saying.
        lasted_ms: for how long.
        words: who did what.
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
        why: the fault's name.
        invariants: which are not promised.
        from_ns: since when.
        to_ns: until when.
        elections: in which; None for all.
    """

    why: str
    invariants: frozenset[str]
    from_ns: int
    to_ns: int
    elections: frozenset[int] | None = None

    def covers(self, violation: Violation) -> bool:
        """Tell whether this is why."""
        return (
            violation.invariant in self.invariants
            and self.from_ns - TOLERANCE_NS <= violation.at_ns
            and violation.at_ns + violation.lasted_ms * _MS <= self.to_ns + TOLERANCE_NS
            and (self.elections is None or violation.election in self.elections)
        )


@dataclass(frozen=True)
class Heal:
    """Since `at_ns` nothing is in the way: all is to be led by `by_ns`.

    Attributes:
        accepts: whether the leaders' writes are to be accepted by then as well.
    """

    at_ns: int
    by_ns: int
    accepts: bool = False


@dataclass(frozen=True)
class Entry:
    """An accepted write to the fenced register.

    Attributes:
        sent_ns: it was accepted after this.
    """

    election: int
    epoch: int
    holder: str
    sent_ns: int = 0


@dataclass
class Findings:
    """What the checker found.

    Attributes:
        violations: what must not be.
        excused: what would be one, were it not for a fault that the design names.
    """

    violations: list[Violation] = field(default_factory=list)
    excused: list[Violation] = field(default_factory=list)


class Checker:
    """Checks a fleet's past, a part at a time."""

    def __init__(self, elections: int) -> None:
        self._elections = elections
        self._excuses: list[Excuse] = []
        self._known: set[tuple[str, object]] = set()
        self._known_excused: set[tuple[str, object]] = set()
        self._written: dict[int, Entry] = {}

    def excuse(self, excuse: Excuse) -> None:
        """Take a fault into account from now on."""
        self._excuses.append(excuse)

    def forget(self, before_ns: int) -> None:
        """Drop the excuses that were over before."""
        self._excuses = [excuse for excuse in self._excuses if excuse.to_ns >= before_ns]

    def check(
        self,
        histories: Iterable[History],
        ledger: Ledger,
        entries: Iterable[Entry | None] = (),
        heals: Iterable[Heal] = (),
    ) -> Findings:
        """Check everything that is known by now.

        Args:
            histories: of all processes, read up to now.
            ledger: read further than the histories.
            entries: of the register, those since the last call; None where it lost what it
                held, and its memory of epochs with that: from there on it is another.
            heals: of faults, as far as their time is up.
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
            # One that goes on is longer each time it is looked at, and may outgrow its excuse.
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
                    # Those behind began even later; but an earlier term may have been longer.
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
                        f"{_who(term)} believed, and was never granted that epoch",
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
                        f"{_who(term)} believed while the key was not there in its name",
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
    """Return what is of each election, in the order that was given."""
    sorted_out: dict[int, list[Of]] = defaultdict(list)
    for one in found:
        sorted_out[one.election].append(one)
    return sorted_out


def first_led_ns(terms: Iterable[Term], since_ns: int) -> int | None:
    """Return when an election was first led, for certain, at or after a time; None if never."""
    led = [max(term.began_ns, since_ns) for term in terms if term.ended_ns >= since_ns]
    return min(led, default=None)


def first_accepted_ns(terms: Sequence[Term], entries: Iterable[Entry], since_ns: int) -> int | None:
    """Return when the first write was sent, since a time, that was a leader's and was accepted.

    Returns:
        None if there was none. Whoever writes after the term has ended is no leader.
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
    """Return how long an election was without a leader between two terms, those since a time."""
    ordered = sorted(terms, key=lambda term: term.began_ns)
    return [
        (later.began_ns - earlier.ended_ns) / _MS
        for earlier, later in pairwise(ordered)
        if earlier.ended_ns < later.began_ns and later.began_ns >= since_ns
    ]


def _who(term: Term) -> str:
    return f"{term.node} ({term.holder}, epoch {term.epoch})"
