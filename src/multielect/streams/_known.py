"""The partitions that this node knows, and the batches that removed partitions left at work.

Rules of this file:
    * A stream belongs to one partition, and a partition has one stream.
    * A partition that is removed and added again waits for the batch that it left at work.
"""

from __future__ import annotations

from ..errors import ConfigError
from ._reading import Partition, Work


class Known:
    """The partitions that this node knows, by their keys."""

    def __init__(self) -> None:
        self.partitions: dict[str, Partition] = {}
        self._key_of_stream: dict[bytes, str] = {}
        self._left_at_work: dict[str, Work] = {}

    def add(self, key: str, stream: bytes) -> bool:
        """Add a partition. Returns whether it is new.

        Raises:
            ConfigError: if the key has another stream, or the stream another key.
        """
        known = self.partitions.get(key)
        if known is not None:
            if known.stream != stream:
                raise ConfigError(f"partition {key!r} already has the stream {known.stream!r}")
            return False
        other = self._key_of_stream.setdefault(stream, key)
        if other != key:
            raise ConfigError(f"the stream {stream!r} already belongs to partition {other!r}")
        partition = Partition(key, stream)
        partition.work = self._left_at_work.get(key)
        self.partitions[key] = partition
        return True

    def remove(self, key: str) -> Partition:
        """Remove a partition, and return it.

        Raises:
            KeyError: if no partition has this key.
        """
        partition = self.partitions.pop(key)
        del self._key_of_stream[partition.stream]
        if partition.work is not None:
            self._left_at_work[key] = partition.work
        return partition

    def let_go(self, work: Work) -> Partition:
        """End the work on a batch. Returns the partition that may have its next batch now."""
        key = work.reading.partition.key
        if self._left_at_work.get(key) is work:
            del self._left_at_work[key]
        # If the partition was removed and added again, another object stands for it now.
        partition = self.partitions.get(key, work.reading.partition)
        partition.work = None
        return partition
