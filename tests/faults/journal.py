"""What a node believed, in a file that outlives the process, and what can be concluded from it.

Rules of this file:
    * A record is written without a system call, into a mapped file: the kernel keeps it through
      ``kill -9``, and the writer never gives up the GIL half way. The word that makes a record,
      or a sighting, count is stored last.
    * Times are in nanoseconds on the clock of `multielect._runtime.clock`, which all processes of a
      machine share.
    * A belief is never taken to be longer than is proven: the clock read *after* a look that saw
      a leader bounds the beginning, the one read *before* it bounds the end. So an overlap of two
      beliefs is one for certain, also where one of the two was killed or frozen.
    * A sighting that goes on stands in the election's cell and is written over; when it ends it
      becomes a record.
"""

from __future__ import annotations

import enum
import mmap
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from multielect import DemotionReason

CELL_WORDS = 3
"""Epoch, first and last time at which it was seen to be led."""

RECORD_WORDS = 4
"""Two times, an epoch, and what the record says of which election."""


class Kind(enum.IntEnum):
    """What a record says, and what its two times are."""

    ELECTED = 1
    """A callback: when belief began, and when it was told."""
    DEMOTED = 2
    """A callback: when belief ended, and when it was told."""
    SEEN = 3
    """When `is_leader` was first and last seen to be true."""


class JournalFullError(Exception):
    """More terms came and went than the file was made for."""


class Journal:
    """The journal of one node, being written. Any thread may write records, one thread cells."""

    def __init__(self, path: Path, *, elections: int, records: int) -> None:
        """Make the file; what is not written takes no room on the disk."""
        self._first_record = elections * CELL_WORDS
        self._records = records
        size = 8 * (self._first_record + records * RECORD_WORDS)
        with path.open("w+b") as file:
            file.truncate(size)
            self._words = memoryview(mmap.mmap(file.fileno(), size)).cast("Q")
        self._places = count()

    def elected(self, election: int, epoch: int, *, began_ns: int, told_ns: int) -> None:
        """A term began, as its callback was told."""
        self._write(Kind.ELECTED, election, epoch, (began_ns, told_ns))

    def demoted(
        self, election: int, epoch: int, reason: DemotionReason, *, ended_ns: int, told_ns: int
    ) -> None:
        """A term ended, as its callback was told."""
        self._write(Kind.DEMOTED, election, epoch, (ended_ns, told_ns), reason.value)

    def sees(self, election: int, epoch: int, *, before_ns: int, after_ns: int) -> None:
        """It is led under `epoch`, by a look between the two times."""
        cell, words = election * CELL_WORDS, self._words
        if words[cell] != epoch:
            self.sees_not(election)
            words[cell + 1] = after_ns
            words[cell + 2] = before_ns
            words[cell] = epoch
        else:
            words[cell + 2] = before_ns

    def sees_not(self, election: int) -> None:
        """It is not led, by a look."""
        cell, words = election * CELL_WORDS, self._words
        if words[cell]:
            self._write(Kind.SEEN, election, words[cell], (words[cell + 1], words[cell + 2]))
            words[cell] = 0

    def _write(
        self, kind: Kind, election: int, epoch: int, times_ns: tuple[int, int], reason: int = 0
    ) -> None:
        number = next(self._places)
        if number >= self._records:
            raise JournalFullError(f"more than {self._records} records")
        place, words = self._first_record + number * RECORD_WORDS, self._words
        words[place], words[place + 1] = times_ns
        words[place + 2] = epoch
        words[place + 3] = election << 16 | reason << 8 | kind


@dataclass(frozen=True)
class Term:
    """One term as the node that led saw it.

    Attributes:
        node: which process believed it, by a name that no other has.
        holder: the value of its leases.
        began_ns: belief began no later than this.
        ended_ns: belief ended no earlier than this.
        is_open: whether it may go on.
        told_ns: when its callback was told; 0 if it was not.
        reason: why it ended, as the callback was told.
    """

    node: str
    holder: str
    election: int
    epoch: int
    began_ns: int
    ended_ns: int
    is_open: bool
    told_ns: int = 0
    reason: DemotionReason | None = None


@dataclass(frozen=True)
class Unpaired:
    """A callback that had no partner, or came in the wrong order."""

    node: str
    election: int
    epoch: int
    at_ns: int
    words: str


class History:
    """The terms of one process, as its journal grows."""

    def __init__(self, path: Path, *, node: str, holder: str, elections: int) -> None:
        """Begin to read; the writer has made the file."""
        self.node = node
        self.holder = holder
        self.unpaired: list[Unpaired] = []
        self._elections = elections
        self._first_record = elections * CELL_WORDS
        with path.open("rb") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).cast("Q")
        self._next = self._first_record
        self._told: dict[int, int] = {}
        self._terms: dict[tuple[int, int], Term] = {}
        self._proven_ns = [0] * elections

    def read(self) -> None:
        """Take up what was written since, with the sightings that go on."""
        words = self._words
        # Cells before records: a sighting that ends meanwhile is met as a record.
        seen = [
            (cell // CELL_WORDS, epoch, words[cell + 1], words[cell + 2])
            for cell in range(0, self._first_record, CELL_WORDS)
            if (epoch := words[cell])
        ]
        self.skim()
        for election, epoch, first_ns, last_ns in seen:
            if words[election * CELL_WORDS] == epoch:
                self._see(election, epoch, first_ns, last_ns, goes_on=True)

    def skim(self) -> None:
        """Take up what was written since, but for the sightings that go on."""
        words = self._words
        while self._next < len(words) and words[self._next + 3]:
            one_ns, other_ns, epoch, what = words[self._next : self._next + RECORD_WORDS]
            self._next += RECORD_WORDS
            self._take(what, epoch, one_ns, other_ns)

    def is_led_since(self, election: int, since_ns: int) -> bool:
        """Tell whether it believed to lead at some instant since a time, as far as was skimmed."""
        cell = election * CELL_WORDS
        last_ns = self._words[cell + 2] if self._words[cell] else 0
        return max(last_ns, self._proven_ns[election]) >= since_ns

    def end(self, *, by_itself: bool) -> None:
        """The process is over: read the rest. One that ended by itself has told every end."""
        self.read()
        if by_itself:
            for election, epoch in self._told.items():
                self._miss(election, epoch, 0, "was never told to end")
        self._told = {}
        self._terms = {name: replace(term, is_open=False) for name, term in self._terms.items()}

    def terms(self) -> list[Term]:
        """Return what it believed. What goes on is open, and proven to the last look."""
        return list(self._terms.values())

    def leads(self) -> set[int]:
        """Return the elections whose begin was told and whose end was not."""
        return set(self._told)

    def forget(self, before_ns: int) -> None:
        """Drop the terms that were over before."""
        self._terms = {
            name: term
            for name, term in self._terms.items()
            if term.is_open or term.ended_ns >= before_ns
        }

    def _take(self, what: int, epoch: int, one_ns: int, other_ns: int) -> None:
        election, reason, kind = what >> 16, what >> 8 & 0xFF, Kind(what & 0xFF)
        if kind is Kind.SEEN:
            self._see(election, epoch, one_ns, other_ns, goes_on=False)
            return
        self._proven_ns[election] = max(one_ns, self._proven_ns[election])
        name = (election, epoch)
        term = self._terms.get(name)
        if kind is Kind.ELECTED:
            if election in self._told:
                self._miss(election, epoch, other_ns, "was told to begin in another term")
            if term is not None and term.told_ns:
                self._miss(election, epoch, other_ns, "was told to begin twice")
            self._told[election] = epoch
            began_ns = one_ns if term is None else min(one_ns, term.began_ns)
            ended_ns = one_ns if term is None else term.ended_ns
            self._terms[name] = self._term(name, began_ns, ended_ns, told_ns=other_ns)
        else:
            if self._told.get(election) != epoch:
                self._miss(election, epoch, other_ns, "was told to end and had not begun")
            self._told.pop(election, None)
            if term is not None:
                self._terms[name] = replace(
                    term,
                    ended_ns=max(one_ns, term.ended_ns),
                    is_open=False,
                    reason=DemotionReason(reason),
                )

    def _see(
        self, election: int, epoch: int, first_ns: int, last_ns: int, *, goes_on: bool
    ) -> None:
        name = (election, epoch)
        term = self._terms.get(name)
        if last_ns >= first_ns:
            self._proven_ns[election] = max(last_ns, self._proven_ns[election])
        if term is not None:
            self._terms[name] = replace(
                term,
                began_ns=min(first_ns, term.began_ns),
                ended_ns=max(last_ns, term.ended_ns),
                # Of what callbacks tell, they tell the end as well.
                is_open=term.is_open and (goes_on or bool(term.told_ns)),
            )
        elif last_ns >= first_ns:
            # One look alone says that there was belief at some instant, but not at which.
            self._terms[name] = self._term(name, first_ns, last_ns, is_open=goes_on)

    def _term(
        self,
        name: tuple[int, int],
        began_ns: int,
        ended_ns: int,
        *,
        told_ns: int = 0,
        is_open: bool = True,
    ) -> Term:
        return Term(self.node, self.holder, *name, began_ns, ended_ns, is_open, told_ns)

    def _miss(self, election: int, epoch: int, at_ns: int, words: str) -> None:
        self.unpaired.append(Unpaired(self.node, election, epoch, at_ns, words))
