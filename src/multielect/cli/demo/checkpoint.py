"""How far each partition is committed, in Redis, fenced by the epoch of its election.

Rules of this file:
    * A checkpoint is written by one script only, `commit.lua`, and only for an epoch that no
      newer one has followed. Whoever reads checkpoints *after* being elected therefore reads
      what no earlier leader can change any more.
    * Every commit leaves an entry in the journal of its partition, in the order of commits.
    * Nothing is retried: a call that got no reply has an unknown outcome, which is for the
      caller to deal with (see worker.py).
    * A partition's keys share the bucket of its election.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from multielect._keys import encode_key, group_layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_COMMITS_A_CALL = 100
"""Keeps a call below half a millisecond of the server's time."""

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


class Outcome(enum.Enum):
    """What became of one commit."""

    COMMITTED = enum.auto()
    REFUSED = enum.auto()
    """A newer epoch had been granted: whoever sent this is no longer the leader."""
    FAILED = enum.auto()
    """The server could not do it; it is logged why."""


@dataclass(frozen=True)
class Totals:
    """Over all partitions: events in accepted commits, and commits that were refused."""

    events: int
    refused: int


def connect(url: str) -> redis.Redis:
    """Return a client that never sends anything twice and waits a few seconds at most."""
    return redis.Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_REPLY_SECONDS,
    )


class CheckpointStore:
    """The checkpoints and journals of all partitions of one run.

    For one thread at a time, as its client is.
    """

    def __init__(self, client: redis.Redis, prefix: str, keys: Sequence[str]) -> None:
        layout = group_layout(prefix)
        raw = [encode_key(key) for key in keys]
        heads = [layout.heads[layout.bucket(key)] + key for key in raw]
        self._epoch_keys = [layout.epoch_key(key) for key in raw]
        self._checkpoint_keys = [head + b":checkpoint" for head in heads]
        self._journal_keys = [head + b":journal" for head in heads]
        self._totals_key = prefix.encode() + b":totals"
        self._client = client
        source = (resources.files(__package__) / "commit.lua").read_text("utf-8")
        self._script = client.register_script(source)

    def read(self, partitions: Iterable[int]) -> list[Checkpoint]:
        """Return the checkpoints of some partitions, in their order."""
        found: list[Checkpoint] = []
        for some in _slices(partitions, _READS_A_CALL):
            values = self._client.mget([self._checkpoint_keys[partition] for partition in some])
            found.extend(map(_parse_checkpoint, cast("list[bytes | None]", values)))
        return found

    def commit(self, node: str, commits: Sequence[Commit]) -> list[Outcome]:
        """Commit what `node` processed, one partition at most once a call.

        Returns:
            What became of each, in their order. One that fails leaves the others alone.

        Raises:
            redis.RedisError: if there was no reply; each commit may then have been accepted
                or not, or may still be.
        """
        outcomes: list[Outcome] = []
        for some in _slices(commits, MOST_COMMITS_A_CALL):
            keys = [self._totals_key]
            args: list[str | int] = [node]
            for partition, epoch, first, after, digest in some:
                keys += (
                    self._epoch_keys[partition],
                    self._checkpoint_keys[partition],
                    self._journal_keys[partition],
                )
                args += (epoch, first, after, digest)
            outcomes.extend(map(_outcome, self._script(keys=keys, args=args)))
        return outcomes

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
            found.extend(int(value or 0) for value in self._client.mget(some))
        return found

    def totals(self) -> Totals:
        """Return the totals so far."""
        events, refused = self._client.hmget(self._totals_key, ["events", "refused"])
        return Totals(int(events or 0), int(refused or 0))


def _slices(items: Iterable[_T], most: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while some := list(islice(rest, most)):
        yield some


def _outcome(reply: int | bytes) -> Outcome:
    if isinstance(reply, int):
        return Outcome.COMMITTED if reply else Outcome.REFUSED
    _logger.error("a commit failed at the server: %s", reply.decode(errors="replace"))
    return Outcome.FAILED


def _parse_checkpoint(value: bytes | None) -> Checkpoint:
    if value is None:
        return Checkpoint(0, 0)
    next_event, digest, _epoch = value.split()
    return Checkpoint(int(next_event), int(digest))


def _parse_entry(entry: bytes) -> JournalEntry:
    epoch, first, after, digest, node = entry.split(b" ", 4)
    return JournalEntry(int(epoch), int(first), int(after), int(digest), node.decode())
