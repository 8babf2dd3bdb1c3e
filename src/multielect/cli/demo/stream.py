"""The events as a stream that is replayed: partitions, positions and digests.

Rules of this file:
    * An event has a position in the stream (file order over all events) and a number in its
      partition (file order within it). The position decides when it becomes available. A
      checkpoint counts numbers.
    * The conductor saves a stream once, and every node opens that file. The events are mapped and
      not copied, so that a node is ready within milliseconds.
    * `handle` is the whole processing: it computes a digest of all events so far. The digest is
      different if an event is left out, repeated, altered or moved.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from array import array
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LENGTH = struct.Struct("<Q")


def handle(event: bytes, digest: int) -> int:
    """Process one event. Returns the digest of its partition up to this event."""
    return zlib.crc32(event, digest)


@dataclass(frozen=True)
class EventStream:
    """Events in the order of their partitions, and the position of each in the stream.

    The events of a partition are next to each other. The place of an event in this order is its
    slot.

    Attributes:
        keys: the name of each partition, in the order of first appearance.
        partition_of: the partition of the event at each position of the stream.
        starts: the first slot of each partition, and one more that ends the last.
        positions: the position in the stream of the event in each slot.
        offsets: the first byte in `payload` of each slot, and one more that ends the last.
        payload: all events, one after another.
    """

    keys: list[str]
    partition_of: array[int]
    starts: array[int]
    positions: array[int]
    offsets: array[int]
    payload: bytes | mmap.mmap

    @classmethod
    def arrange(
        cls, keys: list[str], partition_of: array[int], events: Sequence[bytes]
    ) -> EventStream:
        """Return the stream of `events`. `partition_of` has the partition of each event."""
        counts = [0] * len(keys)
        for partition in partition_of:
            counts[partition] += 1
        starts = array("I", accumulate(counts, initial=0))
        free = starts[:-1]
        positions = array("I", bytes(4 * len(events)))
        for position, partition in enumerate(partition_of):
            positions[free[partition]] = position
            free[partition] += 1
        payload = b"".join([events[position] for position in positions])
        lengths = (len(events[position]) for position in positions)
        offsets = array("Q", accumulate(lengths, initial=0))
        return cls(keys, partition_of, starts, positions, offsets, payload)

    @classmethod
    def open(cls, path: Path) -> EventStream:
        """Return the stream that was saved at `path`, its events mapped into memory."""
        with path.open("rb") as file:
            (header_bytes,) = _LENGTH.unpack(file.read(_LENGTH.size))
            header = json.loads(file.read(header_bytes))
            columns = {}
            for name, typecode, count in header["columns"]:
                columns[name] = array(typecode)
                columns[name].fromfile(file, count)
            first = file.tell()
            payload = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        offsets = array("Q", (offset + first for offset in columns.pop("offsets")))
        return cls(header["keys"], payload=payload, offsets=offsets, **columns)

    def save(self, path: Path) -> None:
        """Write the stream to `path`, for processes on this machine."""
        columns = {
            "partition_of": self.partition_of,
            "starts": self.starts,
            "positions": self.positions,
            "offsets": self.offsets,
        }
        described = [(name, column.typecode, len(column)) for name, column in columns.items()]
        header = json.dumps({"keys": self.keys, "columns": described}).encode()
        with path.open("wb") as file:
            file.write(_LENGTH.pack(len(header)) + header)
            for column in columns.values():
                column.tofile(file)
            file.write(self.payload)

    def __len__(self) -> int:
        return len(self.positions)

    def count(self, partition: int) -> int:
        """Return how many events a partition has."""
        return self.starts[partition + 1] - self.starts[partition]

    def event(self, slot: int) -> bytes:
        """Return the event in a slot."""
        return self.payload[self.offsets[slot] : self.offsets[slot + 1]]

    def digests(self, partition: int) -> list[int]:
        """Return the right digests of a partition: before its first event, and after each event."""
        slots = range(self.starts[partition], self.starts[partition + 1])
        return list(
            accumulate(slots, lambda digest, slot: handle(self.event(slot), digest), initial=0)
        )


@dataclass(frozen=True)
class Replay:
    """When the events of a stream become available: evenly, over a span of time.

    Attributes:
        events: the number of events.
        start_ns: when the first one is available, on the clock of `multielect._runtime.clock`.
        span_ns: how long the stream lasts.
    """

    events: int
    start_ns: int
    span_ns: int

    def available(self, now_ns: int) -> int:
        """Return how many events, from the first on, are available at `now_ns`."""
        elapsed_ns = now_ns - self.start_ns
        if elapsed_ns < 0:
            return 0
        return min(self.events, elapsed_ns * self.events // self.span_ns + 1)
