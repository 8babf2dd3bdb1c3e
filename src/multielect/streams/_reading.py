"""One partition, and its reading under one term.

Rules of this file:
    * A reading belongs to one term. A new term, or a checkpoint that another program moved, begins
      a new reading. So late answers for the old reading are recognised.
    * The classes hold state. Only `_flow` and `_intake` change it.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from ..fencing._writes import Write
from ._entries import Entry


class Leadership(Protocol):
    """The part of a term that the flow uses."""

    @property
    def key(self) -> str:
        """The partition's key."""

    @property
    def epoch(self) -> int:
        """The fencing token."""

    @property
    def is_leader(self) -> bool:
        """Whether the term goes on."""

    def heartbeat(self) -> None:
        """Report to the watchdog that the handler makes progress."""

    def finish_drain(self) -> bool:
        """Hand over the term if it drains. Returns whether it did."""

    def learn_epoch(self, newest_epoch: int) -> bool:
        """End the term, as a newer epoch is known. Returns whether it went on until now."""


class State(enum.Enum):
    """The state of a reading."""

    CLAIMING = 1
    """The consumer asks for the checkpoint."""
    READING = 2
    """Entries are read and handled."""
    HALTED = 3
    """An entry failed for good, and `on_failure` is ``halt``."""
    OVER = 4
    """The term ended, or is being handed over."""


class Queue(enum.Enum):
    """The queue in which a reading waits to be read."""

    BEHIND = 1
    CAUGHT_UP = 2


class Phase(enum.Enum):
    """The phase of a batch."""

    HANDLING = 1
    DONE = 2
    """The handler has returned, or raised."""
    COMMITTING = 3


class Partition:
    """A partition that this node knows.

    Attributes:
        key: the partition's key in the group.
        stream: the partition's stream.
        reading: the reading under the current term, if this node leads.
        work: the batch that is at the handler or being committed, perhaps of an older term.
        is_queued: whether the partition waits for a handler.
    """

    __slots__ = ("is_queued", "key", "reading", "stream", "work")

    def __init__(self, key: str, stream: bytes) -> None:
        self.key = key
        self.stream = stream
        self.reading: Reading | None = None
        self.work: Work | None = None
        self.is_queued = False


class Reading:
    """A partition's reading under one term.

    Attributes:
        partition: the partition.
        term: the term.
        state: its state.
        checkpoint: the id of the last entry that was committed.
        position: the id of the last entry that was read.
        in_hand: entries that were read and wait for the handler.
        is_asked: whether a request for its entries is in flight.
        is_caught_up: whether the last reply had all entries that there were.
        is_draining: whether the term is handed over as soon as no batch is at work.
        queue: the queue in which it waits to be read.
        alone: how many entries, from the next one on, are handled one by one.
        failures: how often the next entry has failed on its own.
        trouble: how often in a row the stream, or the checkpoint, could not be read.
        is_waiting: whether it pauses until a timer is due.
    """

    __slots__ = (
        "alone",
        "checkpoint",
        "failures",
        "in_hand",
        "is_asked",
        "is_caught_up",
        "is_draining",
        "is_waiting",
        "partition",
        "position",
        "queue",
        "state",
        "term",
        "trouble",
    )

    def __init__(self, partition: Partition, term: Leadership) -> None:
        self.partition = partition
        self.term = term
        self.state = State.CLAIMING
        self.checkpoint = ""
        self.position = ""
        self.in_hand: deque[Entry] = deque()
        self.is_asked = False
        self.is_caught_up = False
        self.is_draining = False
        self.is_waiting = False
        self.queue: Queue | None = None
        self.alone = 0
        self.failures = 0
        self.trouble = 0

    @property
    def held(self) -> int:
        """How many of its entries are in memory."""
        work = self.partition.work
        at_work = len(work.entries) if work is not None and work.reading is self else 0
        return len(self.in_hand) + at_work


@dataclass(eq=False)
class Work:
    """A batch on its way from the handler to its commit.

    Attributes:
        reading: the reading to which it belongs.
        entries: its entries.
        attempt: the number of this attempt at its first entry, from 1 on.
        phase: its phase.
        expected: the checkpoint before the batch.
        commit: the write that commits it, once that is known.
        is_waiting: whether its commit pauses until a timer is due.
        has_steps: whether the commit writes anything beside the checkpoint.
        cause: why its one entry goes to the dead-letter stream; None if it was handled.
        message: the text of the handler's exception. It is made where the handler ran, because a
            user's `__str__` may be slow.
    """

    reading: Reading
    entries: list[Entry]
    attempt: int
    expected: str
    phase: Phase = Phase.HANDLING
    commit: Write | None = None
    is_waiting: bool = False
    has_steps: bool = False
    cause: BaseException | None = None
    message: str | None = None

    @property
    def through(self) -> str:
        """The checkpoint after the batch."""
        return self.entries[-1].id


@dataclass(frozen=True, eq=False)
class Ask:
    """A request for the entries of some streams.

    Attributes:
        readings: the readings of the streams.
        positions: for each, the id after which to read.
        count: the largest number of entries of each.
        is_watch: whether to wait for the first entry.
        reserved: the room that the request reserves, in entries.
    """

    readings: list[Reading]
    positions: list[str]
    count: int
    is_watch: bool = False
    reserved: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reserved", len(self.readings) * self.count)

    @property
    def streams(self) -> list[bytes]:
        """The streams' keys."""
        return [reading.partition.stream for reading in self.readings]

    def halves(self) -> tuple[Ask, Ask]:
        """Return two requests that ask for half of the streams each, without waiting."""
        middle = len(self.readings) // 2
        return (
            Ask(self.readings[:middle], self.positions[:middle], self.count),
            Ask(self.readings[middle:], self.positions[middle:], self.count),
        )
