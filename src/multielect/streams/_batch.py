"""What a handler is given.

Rules of this file:
    * What a handler stages is only kept here; it is made with the checkpoint, when the handler
      has returned, or not at all.
    * Bad input is refused where it is staged, in the handler that gave it.
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
"""What one batch may stage: one script makes it, and nobody else is served meanwhile."""


class Batch(Generic[F]):
    """Entries of one partition, in order, to be handled by the leader of the partition.

    When the handler returns, the checkpoint moves past them, in one fenced script with all
    that was staged by `xadd`, `set`, `hset` and `run`. So those happen once for each entry,
    whatever fails: if another leader was elected meanwhile, neither they nor the checkpoint
    are written.

    In annotations `Batch` is what a `StreamConsumer` gives, whose fence is a `Fence`, and
    `AsyncBatch` what an `AsyncStreamConsumer` gives.

    It may be used by any thread, or task, while its handler runs. It stages at most 3,000 writes
    to 200 keys, of 64 MiB together.

    Attributes:
        key: the partition's key.
        stream: the stream's key.
        epoch: the epoch under which the entries were read.
        entries: what there is to handle, at least one entry.
        attempt: 1, or more for an entry that has failed on its own before.
        fence: for writes of your own at once, as by ``batch.fence.set(batch.writer, ...)``.
            They may be made twice, as the batch may be handled twice.
        writer: this term, as a fence wants it.
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
        """Whether the term under which this was read goes on: a compare, no I/O.

        If not, what the handler does is dropped, unless nobody else is elected by then.
        """
        return self._term.is_leader

    def heartbeat(self) -> None:
        """Tell the watchdog (`max_stall`) that the handler goes on."""
        self._term.heartbeat()

    def xadd(
        self, name: str | bytes, fields: Mapping[str | bytes, Value], *, maxlen: int | None = None
    ) -> None:
        """Stage an entry for the stream `name`, and trimming that to about `maxlen`.

        Raises:
            ConfigError: for an argument that is not allowed, or more than a batch may stage.
            ClosedError: if the handler has returned.
        """
        self._stage(Write.xadd(self.writer, name, fields, maxlen=maxlen))

    def set(self, name: str | bytes, value: Value, *, ttl: float | None = None) -> None:
        """Stage that the string `name` becomes `value`, for `ttl` seconds if given.

        Raises:
            ConfigError: for an argument that is not allowed, or more than a batch may stage.
            ClosedError: if the handler has returned.
        """
        self._stage(Write.set(self.writer, name, value, ttl=ttl))

    def hset(self, name: str | bytes, mapping: Mapping[str | bytes, Value]) -> None:
        """Stage that fields of the hash `name` become those of `mapping`.

        Raises:
            ConfigError: for an argument that is not allowed, or more than a batch may stage.
            ClosedError: if the handler has returned.
        """
        self._stage(Write.hset(self.writer, name, mapping))

    def run(
        self,
        script: FencedScript,
        keys: Iterable[str | bytes] = (),
        arguments: Iterable[Value] = (),
    ) -> None:
        """Stage the body of `script`, with KEYS and ARGV of its own. What it returns is lost.

        A body that fails half way keeps its first half, and is run again with the batch: let it
        look for all that can fail before it writes anything.

        Raises:
            ConfigError: for an argument that is not allowed, or more than a batch may stage.
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
        for what, count, most in (
            ("writes", len(self._steps) + 1, MAX_STAGED),
            ("keys", len(keys), MAX_STAGED_KEYS),
            ("arguments", arguments, MAX_STAGED_ARGUMENTS),
            ("bytes", size_bytes, MAX_STAGED_BYTES),
        ):
            if count > most:
                raise ConfigError(f"a batch may stage at most {most} {what}, not {count}")
        self._keys, self._arguments, self._bytes = keys, arguments, size_bytes
        self._steps.append(step)

    def _close(self) -> list[Step]:
        """Take what was staged; from now on nothing more can be."""
        steps, self._steps = self._steps or [], None
        return steps

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        ids = f"{self.entries[0].id} to {self.entries[-1].id}"
        return f"<Batch of {len(self)} of {self.key!r}, {ids}, epoch {self.epoch}>"
