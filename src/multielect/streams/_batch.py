"""The batches that handlers receive.

Rules of this file:
    * A batch only keeps the writes that a handler stages. The commit makes them together with the
      checkpoint when the handler has returned, or not at all.
    * Bad input is refused in the call that stages it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic

from ..errors import ClosedError, ConfigError
from ..fencing._writes import FencedScript, Value, Write, Writer
from ._commits import Step
from ._entries import Entry
from ._fence_kind import F
from ._reading import Leadership, Work

MAX_STAGED = 3_000
MAX_STAGED_KEYS = 200
MAX_STAGED_ARGUMENTS = 500_000
MAX_STAGED_BYTES = 64 * 1024 * 1024
"""The limits of one batch. One script makes all its writes, and Redis serves no one meanwhile."""


class Batch(Generic[F]):
    """Entries of one partition, in order, to be handled by the leader of the partition.

    When the handler returns, one fenced script moves the checkpoint past the entries and makes all
    writes that were staged by `xadd`, `set`, `hset` and `run`. So these writes happen exactly once
    for each entry, whatever fails. If another leader was elected meanwhile, the script writes
    neither them nor the checkpoint.

    In annotations, `Batch` is the batch of a `StreamConsumer`, whose fence is a `Fence`.
    `AsyncBatch` is the batch of an `AsyncStreamConsumer`.

    Any thread or task may use a batch while its handler runs. A batch stages at most 3,000 writes
    to 200 keys, of 64 MiB together.

    Attributes:
        key: the partition's key.
        stream: the stream's key.
        epoch: the epoch under which the entries were read.
        entries: the entries to handle, at least one.
        attempt: 1, or more for a single entry that has failed before.
        fence: for writes that are made at once, as by ``batch.fence.set(batch.writer, ...)``. They
            may be made twice, because the batch may be handled twice.
        writer: this term, as the writer for a fence.
    """

    def __init__(self, work: Work, fence: F) -> None:
        """Only a consumer makes batches."""
        self._term: Leadership = work.reading.term
        self.key: str = work.reading.partition.key
        self.stream: bytes = work.reading.partition.stream
        self.epoch: int = work.reading.term.epoch
        self.entries: Sequence[Entry] = tuple(work.entries)
        self.attempt: int = work.attempt
        self.fence: F = fence
        self.writer = Writer(key=self.key, epoch=self.epoch)
        self._steps: list[Step] | None = []
        self._keys: set[bytes] = set()
        self._arguments = 0
        self._bytes = 0

    @property
    def is_leader(self) -> bool:
        """Whether the term under which the batch was read goes on: a compare, no I/O.

        If False, the batch is dropped, unless no other node is elected by the time of the commit.
        """
        return self._term.is_leader

    def heartbeat(self) -> None:
        """Report to the watchdog (`max_stall`) that the handler makes progress."""
        self._term.heartbeat()

    def xadd(
        self, name: str | bytes, fields: Mapping[str | bytes, Value], *, maxlen: int | None = None
    ) -> None:
        """Stage an entry for the stream `name`, which is trimmed to about `maxlen` if given.

        Raises:
            ConfigError: if an argument is not allowed, or the batch would stage too much.
            ClosedError: if the handler has returned.
        """
        self._stage(Write.xadd(self.writer, name, fields, maxlen=maxlen))

    def set(self, name: str | bytes, value: Value, *, ttl: float | None = None) -> None:
        """Stage a write of `value` to the string `name`, for `ttl` seconds if given.

        Raises:
            ConfigError: if an argument is not allowed, or the batch would stage too much.
            ClosedError: if the handler has returned.
        """
        self._stage(Write.set(self.writer, name, value, ttl=ttl))

    def hset(self, name: str | bytes, mapping: Mapping[str | bytes, Value]) -> None:
        """Stage a write of the fields of `mapping` to the hash `name`.

        Raises:
            ConfigError: if an argument is not allowed, or the batch would stage too much.
            ClosedError: if the handler has returned.
        """
        self._stage(Write.hset(self.writer, name, mapping))

    def run(
        self,
        script: FencedScript,
        keys: Iterable[str | bytes] = (),
        arguments: Iterable[Value] = (),
    ) -> None:
        """Stage a run of the body of `script`, with its own KEYS and ARGV. Its result is dropped.

        If a body fails half way, its first writes stay, and it runs again with the batch. So let it
        check everything that can fail before it writes anything.

        Raises:
            ConfigError: if an argument is not allowed, or the batch would stage too much.
            ClosedError: if the handler has returned.
        """
        self._stage(Write.run(self.writer, script, keys, arguments))

    def _stage(self, write: Write) -> None:
        if self._steps is None:
            raise ClosedError(
                f"the handler of this batch of {self.key!r} has returned: nothing can be staged"
            )
        step = Step.of(write)
        keys = self._keys | set(step.keys)
        arguments = self._arguments + len(step.arguments)
        size_bytes = self._bytes + sum(map(len, (*step.keys, *step.arguments)))
        for what, count, limit in (
            ("writes", len(self._steps) + 1, MAX_STAGED),
            ("keys", len(keys), MAX_STAGED_KEYS),
            ("arguments", arguments, MAX_STAGED_ARGUMENTS),
            ("bytes", size_bytes, MAX_STAGED_BYTES),
        ):
            if count > limit:
                raise ConfigError(f"a batch may stage at most {limit} {what}, not {count}")
        self._keys, self._arguments, self._bytes = keys, arguments, size_bytes
        self._steps.append(step)

    def _close(self) -> list[Step]:
        """Return the staged writes, and refuse further ones from now on."""
        steps, self._steps = self._steps or [], None
        return steps

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        ids = f"{self.entries[0].id} to {self.entries[-1].id}"
        return f"<Batch of {len(self)} of {self.key!r}, {ids}, epoch {self.epoch}>"
