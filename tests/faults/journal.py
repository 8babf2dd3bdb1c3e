"""The beliefs of a node, in a file that outlives the process, and what they prove.

Rules of this file:
    * A node writes a record without a system call, into a mapped file. The kernel keeps it after
      ``kill -9``, and the writer does not release the GIL half way. The word that makes a record or
      a sighting valid is stored last.
    * Times are in nanoseconds on the clock of `multielect._runtime.clock`, which all processes of a
      machine share.
    * A belief is only as long as is proven. The clock read *after* a look that saw a leader bounds
      the beginning, and the clock read *before* it bounds the end. So an overlap of two beliefs is
      certain, even if one of the two nodes was killed or frozen.
    * A sighting that goes on is in the cell of its election. Each look overwrites the cell. When
      the sighting ends, it becomes a record.
"""

from __future__ import annotations

import enum
import mmap
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from multielect import DemotionReason

CELL_WORDS = 3
"""The epoch, and the first and the last time at which the node was seen to lead."""

RECORD_WORDS = 4
"""Two times, the epoch, and one word for the election, the reason and the kind."""


class Kind(enum.IntEnum):
    """The kind of a record, and the meaning of its two times."""

    ELECTED = 1
    """`on_elected`: when the belief began, and when the callback ran."""
    DEMOTED = 2
    """`on_demoted`: when the belief ended, and when the callback ran."""
    SEEN = 3
    """A sighting: when `is_leader` was first and last seen to be true."""


class JournalFullError(Exception):
    """The journal has no room for another record."""


class Journal:
    """Writes the journal of one node. Any thread may write records, but only one thread cells."""

    def __init__(self, path: Path, *, elections: int, records: int) -> None:
        """Create the file. Parts of it that are not written take no space on the disk."""
        self._first_record = elections * CELL_WORDS
        self._records = records
        size = 8 * (self._first_record + records * RECORD_WORDS)
        with path.open("w+b") as file:
            file.truncate(size)
            self._words = memoryview(mmap.mmap(file.fileno(), size)).cast("Q")
        self._places = count()

    def elected(self, election: int, epoch: int, *, began_ns: int, told_ns: int) -> None:
        """Record that a callback reported the beginning of a term."""
        self._write(Kind.ELECTED, election, epoch, (began_ns, told_ns))

    def demoted(
        self, election: int, epoch: int, reason: DemotionReason, *, ended_ns: int, told_ns: int
    ) -> None:
        """Record that a callback reported the end of a term."""
        self._write(Kind.DEMOTED, election, epoch, (ended_ns, told_ns), reason.value)

    def sees(self, election: int, epoch: int, *, before_ns: int, after_ns: int) -> None:
        """Record that a look between the two times saw the node lead under `epoch`."""
        cell, words = election * CELL_WORDS, self._words
        if words[cell] != epoch:
            self.sees_not(election)
            words[cell + 1] = after_ns
            words[cell + 2] = before_ns
            words[cell] = epoch
        else:
            words[cell + 2] = before_ns

    def sees_not(self, election: int) -> None:
        """Record that a look saw the node not lead."""
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
        node: the unique name of the process that believed to lead.
        holder: the value of its leader keys.
        election: the number of the election.
        epoch: the epoch of the term.
        began_ns: the belief began no later than this.
        ended_ns: the belief ended no earlier than this.
        is_open: whether the belief may go on.
        told_ns: when `on_elected` ran; 0 if it did not.
        reason: the reason that `on_demoted` received.
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
    """A callback without its counterpart, or in the wrong order."""

    node: str
    election: int
    epoch: int
    at_ns: int
    words: str


class History:
    """Reads the journal of one process, which may still grow, into terms."""

    def __init__(self, path: Path, *, node: str, holder: str, elections: int) -> None:
        """Open the file, which the writer has created."""
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
        """Read the new records, and the sightings that go on."""
        words = self._words
        # Cells are read before records, so that a sighting which ends meanwhile is not missed.
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
        """Read the new records, without the sightings that go on."""
        words = self._words
        while self._next < len(words) and words[self._next + 3]:
            one_ns, other_ns, epoch, what = words[self._next : self._next + RECORD_WORDS]
            self._next += RECORD_WORDS
            self._take(what, epoch, one_ns, other_ns)

    def is_led_since(self, election: int, since_ns: int) -> bool:
        """Return whether the process believed to lead since a time, as far as records were read."""
        cell = election * CELL_WORDS
        last_ns = self._words[cell + 2] if self._words[cell] else 0
        return max(last_ns, self._proven_ns[election]) >= since_ns

    def end(self, *, by_itself: bool) -> None:
        """Read the rest, as the process has ended.

        If the process ended by itself, each term whose end no callback reported is unpaired.
        """
        self.read()
        if by_itself:
            for election, epoch in self._told.items():
                self._miss(election, epoch, 0, "was never told to end")
        self._told = {}
        self._terms = {name: replace(term, is_open=False) for name, term in self._terms.items()}

    def terms(self) -> list[Term]:
        """Return the terms. A term that goes on is open, and proven up to the last look."""
        return list(self._terms.values())

    def leads(self) -> set[int]:
        """Return the elections for which `on_elected` ran and `on_demoted` has not yet run."""
        return set(self._told)

    def forget(self, before_ns: int) -> None:
        """Drop the terms that ended before that time."""
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
                # The callbacks report the end of a term whose beginning they reported.
                is_open=term.is_open and (goes_on or bool(term.told_ns)),
            )
        elif last_ns >= first_ns:
            # A single look proves that the node believed it at some instant, but not at which.
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
