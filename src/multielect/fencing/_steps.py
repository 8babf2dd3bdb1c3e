"""What a fence sends, and how it acts on each reply, for blocking and asyncio clients.

Rules of this file:
    * A write is refused if and only if its epoch is lower than the newest known epoch. That is the
      larger of the election's counter and the newest epoch that wrote through a fence.
    * If one of the two was lost, the next write restores it before it does anything else.
    * When a write of a `Term` or `Election` of this process is refused, its node learns the newest
      epoch, ends the term, and stands again for an epoch above it. A `Writer` has no node.
    * Errors of Redis are raised as redis-py raises them. Only a stale write raises our own error.
    * No I/O: the steps yield the calls to make, and receive the replies or the errors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import redis
from redis.crc import key_slot
from redis.exceptions import NoScriptError, RedisClusterException

from .._node.base import BaseElectionGroup, BaseElector
from .._node.interface import node_of
from .._protocol.keys import encode_key, group_layout
from .._protocol.refusals import refusal_in
from .._protocol.scripts import PROBE, is_about_flags
from ..errors import ConfigError, StaleEpochError
from ._writes import Outcome, Write, WriteBatch, packed

_OURS = frozenset({"leader", "epoch", "fence"})
_NOT_REACHED = (redis.ConnectionError, redis.TimeoutError)
_AT_REDIS = (redis.RedisError, RedisClusterException)

C = TypeVar("C")
T = TypeVar("T")

Call: TypeAlias = tuple[str, tuple[Any, ...]]
"""A method of the client, and its arguments."""

Steps: TypeAlias = Generator[Call, Any, T]
"""Yields the calls to make, one at a time, and receives the reply to each, or the error."""


class Fencing(Generic[C]):
    """What both fences share: everything but the wait for Redis."""

    def __init__(
        self,
        client: C,
        of: str | BaseElectionGroup[Any] | BaseElector[Any],
        *,
        buckets: int | None,
        raise_stale: bool,
        plain: type[Any],
        clustered: type[Any],
        pipeline: type[Any],
    ) -> None:
        if isinstance(client, pipeline) or not isinstance(client, (plain, clustered)):
            raise ConfigError(
                f"client must be a {plain.__module__.rpartition('.')[0]}.Redis, not a pipeline, not"
                f" {type(client).__module__}.{type(client).__qualname__};"
                " use write_many for many writes at once"
            )
        if isinstance(of, str):
            self._layout = group_layout(of, buckets)
        elif not isinstance(of, (BaseElectionGroup, BaseElector)):
            raise ConfigError(f"a fence needs a prefix, a group or an elector, not {of!r}")
        elif buckets is not None:
            raise ConfigError("buckets may be given with a prefix only: a group knows its number")
        else:
            self._layout = node_of(of).layout
        self._client = client
        self._raise_stale = raise_stale
        self._is_clustered = isinstance(client, clustered)
        self._knows_flags: bool | None = None
        self._buckets_agreed = not self._layout.buckets_key

    def tag(self, key: str | bytes = "") -> str:
        """Return the hash tag of election `key`, in braces.

        Redis Cluster keeps all keys with one tag on one server. There, every key of a fenced
        write must have the tag of its election.

        Raises:
            ConfigError: if the key is not allowed.
        """
        key_prefix = self._key_prefix(self._checked_key(key)).decode("utf-8", "surrogateescape")
        return key_prefix[key_prefix.index("{") : key_prefix.index("}") + 1]

    def data_key(self, key: str | bytes, name: str) -> bytes:
        """Return a Redis key for data of election `key`, in the Cluster slot of that election.

        The Redis key is ``<prefix>:{<bucket>}:<key>:<name>``; the braces are literal. It differs
        for each pair of key and name.

        Args:
            key: the election's key; empty for an `Elector`.
            name: the name of the data: without a colon, and not ``leader``, ``epoch`` or
                ``fence``.

        Raises:
            ConfigError: if the key or name is not allowed.
        """
        raw = self._checked_key(key)
        if not isinstance(name, str):
            raise ConfigError(f"a name must be str, not {type(name).__name__}")
        if not name or ":" in name or name in _OURS:
            raise ConfigError(
                f"a name must be text without ':', and none of {', '.join(sorted(_OURS))}: {name!r}"
            )
        return self._key_prefix(raw) + raw + b":" + name.encode("utf-8", "surrogateescape")

    def _key_prefix(self, raw: bytes) -> bytes:
        return self._layout.key_prefixes[self._layout.bucket(raw)]

    def _checked_key(self, key: str | bytes) -> bytes:
        if not self._layout.buckets_key:
            if key not in ("", b""):
                raise ConfigError(f"an elector's election has an empty key, not {key!r}")
            return b""
        return encode_key(key)

    def _planned(self, writes: Iterable[Write]) -> tuple[deque[WriteBatch], list[Outcome]]:
        """Return the batches to send, and a list with a place for each outcome."""
        listed = list(writes)
        for write in listed:
            self._check(write)
        batches = packed(listed, self._layout, spans_buckets=not self._is_clustered)
        return deque(batches), [Outcome()] * len(listed)

    def _check(self, write: Write) -> None:
        if not isinstance(write, Write):
            raise ConfigError(f"a write must be made by Write.set or the like, not {write!r}")
        self._checked_key(write.key)
        theirs, ours = write.layout, self._layout
        if theirs is not None and theirs is not ours and theirs != ours:
            raise ConfigError(
                f"this fence belongs to {ours.channel.decode(errors='replace')!r}, and the writer"
                f" to {theirs.channel.decode(errors='replace')!r}: their epochs are not comparable"
            )
        if self._is_clustered:
            slot = key_slot(ours.epoch_key(write.key))
            for key in write.keys:
                if key_slot(key) != slot:
                    raise ConfigError(
                        f"in Redis Cluster the key {key!r} must have the hash tag"
                        f" {self.tag(write.key)}: see Fence.data_key"
                    )

    def _judge_buckets(self, found: bytes | str | None) -> None:
        wanted = str(len(self._layout.key_prefixes))
        text = found.decode(errors="replace") if isinstance(found, bytes) else found
        if text is not None and text != wanted:
            raise ConfigError(
                f"this prefix is divided into {text} buckets, not {wanted}:"
                " a fence with another number would not find the epochs"
            )
        # Without the key no node has used this prefix yet, and the first may choose another number.
        self._buckets_agreed = text is not None

    def _parted(self, batch: WriteBatch, error: Exception) -> Sequence[WriteBatch]:
        """Return the batches to send in place of a refused one, or none if that one has failed.

        Redis refuses a whole script if its user may not use one of the keys. Nothing was written.
        """
        refusal = refusal_in(error)
        if refusal is None or not refusal.is_of_keys or len(batch.writes) == 1:
            return ()
        return batch.halves(self._layout)

    def _writing(self, writes: Iterable[Write]) -> Steps[list[Outcome]]:
        """Make many writes: see `Fence.write_many`."""
        batches, outcomes = self._planned(writes)
        yield from self._preparing()
        while batches:
            batch = batches.popleft()
            try:
                reply = yield from self._sending(batch)
                _keep(outcomes, batch.outcomes(reply))
                batch.report_superseded(outcomes)
            except _NOT_REACHED as error:
                _keep(outcomes, batch.failed(error))
                _give_up(outcomes, batches, error)
                break
            except _AT_REDIS as error:
                parts = self._parted(batch, error)
                batches.extendleft(reversed(parts))
                if not parts:
                    _keep(outcomes, batch.failed(error))
        return outcomes

    def _preparing(self) -> Steps[None]:
        """Check the number of buckets, and ask what the server knows: once for each fence."""
        if not self._buckets_agreed:
            self._judge_buckets((yield "get", (self._layout.buckets_key,)))
        if self._knows_flags is None:
            try:
                yield "eval", (PROBE, 0)
            except redis.ResponseError as error:
                if not is_about_flags(error):
                    raise
                self._knows_flags = False
            else:
                self._knows_flags = True

    def _sending(self, batch: WriteBatch) -> Steps[Any]:
        """Send a script. Returns its reply."""
        script = batch.script.with_flags if self._knows_flags else batch.script.without_flags
        try:
            return (yield "evalsha", (script.sha.decode(), *batch.sent))
        except NoScriptError:
            # Nothing was written. The server keeps the script after an EVAL.
            return (yield "eval", (script.body.decode(), *batch.sent))

    def _given(self, outcome: Outcome) -> Any:  # noqa: ANN401
        if outcome.error is None:
            return outcome.reply
        if isinstance(outcome.error, StaleEpochError) and not self._raise_stale:
            return False
        raise outcome.error


def _keep(outcomes: list[Outcome], these: Iterable[tuple[int, Outcome]]) -> None:
    for place, outcome in these:
        outcomes[place] = outcome


def _give_up(outcomes: list[Outcome], unsent: Iterable[WriteBatch], error: Exception) -> None:
    for batch in unsent:
        lost = redis.ConnectionError("not sent, as an earlier script was not answered")
        lost.__cause__ = error
        _keep(outcomes, batch.failed(lost))
