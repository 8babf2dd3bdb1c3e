"""A consumer of partitioned Redis Streams: only the leader of a partition reads its stream.

`StreamConsumer` is for programs that use threads, `AsyncStreamConsumer` for asyncio.
docs/streams.md says what they promise and what they do not. Each file here imports only files that
stand below it::

    _threads, _asyncio           two shells, which wait for Redis and for handlers
    _base                        what both shells share: everything but waiting
    _exchange                    the requests to Redis, and what follows from the replies
    _flow                        what to hand out and commit next: no I/O
    _intake, _known,             what to read next, within bounds; the partitions; stuck handlers;
    _stalls, _tally              counters
    _batch, _fence_kind,         the batches for handlers, the writes, the lag
    _commits, _lag
    _reading                     a partition under one term
    _entries, _settings,         entries, settings, clients, timers, repeated errors
    _clients, _timers, _troubles
"""

from ._asyncio import AsyncBatch, AsyncStreamConsumer
from ._batch import Batch
from ._entries import Entry
from ._lag import Lag
from ._tally import Tally
from ._threads import StreamConsumer

__all__ = ["AsyncBatch", "AsyncStreamConsumer", "Batch", "Entry", "Lag", "StreamConsumer", "Tally"]
