"""A consumer of partitioned Redis Streams: each is read by the leader of its partition only.

`StreamConsumer` is for programs of threads, `AsyncStreamConsumer` for asyncio. docs/streams.md
says what they promise and what not. Inside, each file imports only those below it::

    _threads, _asyncio           two shells, which wait for Redis and for handlers
    _base                        what they share but for waiting
    _exchange                    what is asked of Redis, and what follows from the answers
    _flow                        what to hand out and commit next: pure
    _intake, _known              what to read next, within bounds; which partitions there are
    _batch, _fence_kind,         what handlers are given, what is written and asked
    _commits, _lag
    _reading                     a partition under one term
    _entries, _settings,         replies, input, connecting, who stands back
    _clients, _timers, _troubles
"""

from ._asyncio import AsyncBatch, AsyncStreamConsumer
from ._batch import Batch
from ._entries import Entry
from ._flow import Tally
from ._lag import Lag
from ._threads import StreamConsumer

__all__ = ["AsyncBatch", "AsyncStreamConsumer", "Batch", "Entry", "Lag", "StreamConsumer", "Tally"]
