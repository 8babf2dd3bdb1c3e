"""Which partitions there are, and which batches are still at work from when they were before.

Rules of this file:
    * A stream is of one partition, and a partition has one stream.
    * A partition that is removed and comes back waits for the batch that it had at work.
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
        """Know a partition. Returns whether it is new.

        Raises:
            ConfigError: if the key has another stream, or the stream another key.
        """
        known = self.partitions.get(key)
        if known is not None:
            if known.stream != stream:
                raise ConfigError(f"partition {key!r} has the stream {known.stream!r} already")
            return False
        other = self._key_of_stream.setdefault(stream, key)
        if other != key:
            raise ConfigError(f"the stream {stream!r} is that of partition {other!r} already")
        partition = Partition(key, stream)
        partition.work = self._left_at_work.get(key)
        self.partitions[key] = partition
        return True

    def remove(self, key: str) -> Partition:
        """Forget a partition.

        Raises:
            KeyError: if there is none with this key.
        """
        partition = self.partitions.pop(key)
        del self._key_of_stream[partition.stream]
        if partition.work is not None:
            self._left_at_work[key] = partition.work
        return partition

    def let_go(self, work: Work) -> Partition:
        """End the work on a batch. Returns the partition that may go on to the next."""
        key = work.reading.partition.key
        if self._left_at_work.get(key) is work:
            del self._left_at_work[key]
        # Not always the one whose batch it is: it may have been removed and added since.
        partition = self.partitions.get(key, work.reading.partition)
        partition.work = None
        return partition
