"""How far each partition is committed, in Redis, fenced by the epoch of its election.

Rules of this file:
    * Only one script, `commit.lua`, writes a checkpoint, through a `Fence`, and only under the
      newest epoch. So a node that reads checkpoints *after* its election reads values that no
      earlier leader can change any more.
    * Every commit leaves an entry in the journal of its partition, in the order of commits.
    * Nothing is retried. A call without a reply has an unknown outcome, and the caller has to deal
      with it (see worker.py).
    * A partition's keys share the bucket of its election, and so does the counter of events that
      its commits raise: in a cluster a script has the keys of one slot.
    * Refused commits are counted afterwards, for the view.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from multielect._protocol.keys import encode_key, group_layout
from multielect.fencing import Fence, FencedScript, Outcome, Write, Writer

from .. import client
from ..client import FAILURES, Client, values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_COMMIT = FencedScript((resources.files(__package__) / "commit.lua").read_text("utf-8"))

_READS_A_CALL = 500
_CONNECT_SECONDS = 3.0
_REPLY_SECONDS = 5.0

_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """How far a partition is committed: the next event's number, and the digest before it."""

    next_event: int
    digest: int


class Commit(NamedTuple):
    """Events `first` up to, but without, `after` of a partition, processed under an epoch."""

    partition: int
    epoch: int
    first: int
    after: int
    digest: int


class JournalEntry(NamedTuple):
    """A commit that was accepted, as the journal of its partition has it."""

    epoch: int
    first: int
    after: int
    digest: int
    node: str


@dataclass(frozen=True)
class Totals:
    """Over all partitions: events in accepted commits, and commits that were refused."""

    events: int
    refused: int


def connect(url: str) -> Client:
    """Return a client that never sends anything twice and waits a few seconds at most."""
    return client.connect(url, connect_timeout_s=_CONNECT_SECONDS, timeout_s=_REPLY_SECONDS)


class CheckpointStore:
    """The checkpoints and journals of all partitions of one run.

    For one thread at a time, as its client is.
    """

    def __init__(self, client: Client, prefix: str, keys: Sequence[str]) -> None:
        layout = group_layout(prefix)
        self._client = client
        self._fence = Fence(client, prefix)
        self._keys = keys
        self._epoch_keys = [layout.epoch_key(encode_key(key)) for key in keys]
        self._checkpoint_keys = [self._fence.data_key(key, "checkpoint") for key in keys]
        self._journal_keys = [self._fence.data_key(key, "journal") for key in keys]
        self._events_keys = [f"{prefix}:{self._fence.tag(key)}:events".encode() for key in keys]
        self._all_events_keys = list(dict.fromkeys(self._events_keys))
        self._refused_key = prefix.encode() + b":refused"

    def read(self, partitions: Iterable[int]) -> list[Checkpoint]:
        """Return the checkpoints of some partitions, in their order."""
        found: list[Checkpoint] = []
        for some in _slices(partitions, _READS_A_CALL):
            keys = [self._checkpoint_keys[partition] for partition in some]
            found.extend(map(_parse_checkpoint, values(self._client, keys)))
        return found

    def commit(self, node: str, commits: Sequence[Commit]) -> list[Outcome]:
        """Commit what `node` processed.

        Returns:
            The outcome of each, in their order. A commit that fails does not affect the others. The
            method raises for none of them: without a reply, each may have been accepted or not.
        """
        try:
            outcomes = self._fence.write_many(self._write(node, commit) for commit in commits)
        except FAILURES as error:
            # The fence sent commands before its first write, and got no reply to them.
            return [Outcome(error=error)] * len(commits)
        refused = sum(outcome.is_stale for outcome in outcomes)
        if refused:
            self._count_refused(refused)
        return outcomes

    def _write(self, node: str, commit: Commit) -> Write:
        partition, epoch, first, after, digest = commit
        return Write.run(
            Writer(key=self._keys[partition], epoch=epoch),
            _COMMIT,
            [
                self._checkpoint_keys[partition],
                self._journal_keys[partition],
                self._events_keys[partition],
            ],
            [node, epoch, first, after, digest],
        )

    def _count_refused(self, refused: int) -> None:
        try:
            self._client.incrby(self._refused_key, refused)
        except FAILURES as error:
            _logger.warning("%d refused commits are not counted: %s", refused, error)

    def journal(self) -> list[list[JournalEntry]]:
        """Return the commits that were accepted, of each partition, in their order."""
        entries: list[list[JournalEntry]] = []
        for some in _slices(self._journal_keys, _READS_A_CALL):
            pipeline = self._client.pipeline(transaction=False)
            for key in some:
                pipeline.lrange(key, 0, -1)
            entries.extend([_parse_entry(entry) for entry in found] for found in pipeline.execute())
        return entries

    def epochs(self) -> list[int]:
        """Return the newest epoch granted in each election, 0 where there is none."""
        found: list[int] = []
        for some in _slices(self._epoch_keys, _READS_A_CALL):
            found.extend(int(value or 0) for value in values(self._client, some))
        return found

    def totals(self) -> Totals:
        """Return the totals so far."""
        *events, refused = values(self._client, [*self._all_events_keys, self._refused_key])
        return Totals(sum(int(value or 0) for value in events), int(refused or 0))


def _slices(items: Iterable[_T], max_count: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while some := list(islice(rest, max_count)):
        yield some


def _parse_checkpoint(value: bytes | None) -> Checkpoint:
    if value is None:
        return Checkpoint(0, 0)
    next_event, digest = value.split()
    return Checkpoint(int(next_event), int(digest))


def _parse_entry(entry: bytes) -> JournalEntry:
    epoch, first, after, digest, node = entry.split(b" ", 4)
    return JournalEntry(int(epoch), int(first), int(after), int(digest), node.decode())
