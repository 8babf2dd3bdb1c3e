"""The fences: writes through a client of the user's, refused where their epoch is not the newest.

Rules of this file:
    * A write is refused if and only if its epoch is lower than the newest known: the larger of
      the election's counter and the newest that wrote through a fence.
    * Where one of the two was lost, the next write puts it back before it does anything else.
    * Whoever is refused as a `Term` or `Election` of this process has its node told: it gives the
      term up, and stands again under an epoch above the newest. A `Writer` leads to no node.
    * What fails at Redis is raised as redis-py raises it; only what is stale is an error of ours.
    * It uses the user's client and no other connection, so that client's timeouts and retries
      hold, and a fence is as safe for threads, or tasks, as its client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import redis
import redis.asyncio
from redis.crc import key_slot
from redis.exceptions import NoScriptError, RedisClusterException

from .._node.front import ElectorFront, GroupFront
from .._node.interface import node_of
from .._protocol.keys import encode_key, group_layout
from .._protocol.refusals import refusal_in
from .._protocol.scripts import PROBE, Script, is_about_flags
from ..election import Standing
from ..errors import ConfigError, StaleEpochError
from ._writes import Batch, FencedScript, Outcome, Value, Write, Writer, packed

_OURS = frozenset({"leader", "epoch", "fence"})
_NOT_REACHED = (redis.ConnectionError, redis.TimeoutError)
_AT_REDIS = (redis.RedisError, RedisClusterException)

C = TypeVar("C")


class _Fencing(Generic[C]):
    """What both fences share: all but waiting for Redis."""

    def __init__(
        self,
        client: C,
        of: str | GroupFront[Any] | ElectorFront[Any],
        *,
        buckets: int | None,
        raise_stale: bool,
        plain: type[Any],
        clustered: type[Any],
        pipeline: type[Any],
    ) -> None:
        if isinstance(client, pipeline) or not isinstance(client, (plain, clustered)):
            raise ConfigError(
                f"client must be a {plain.__module__.rpartition('.')[0]}.Redis, no pipeline, not"
                f" {type(client).__module__}.{type(client).__qualname__}:"
                " many writes at once are what write_many is for"
            )
        if isinstance(of, str):
            self._layout = group_layout(of, buckets)
        elif not isinstance(of, (GroupFront, ElectorFront)):
            raise ConfigError(f"a fence is of a prefix, a group or an elector, not of {of!r}")
        elif buckets is not None:
            raise ConfigError("buckets go with a prefix only: a group knows how many it has")
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
            ConfigError: for a key that is not allowed.
        """
        head = self._head(self._checked_key(key)).decode("utf-8", "surrogateescape")
        return head[head.index("{") : head.index("}") + 1]

    def data_key(self, key: str | bytes, name: str) -> bytes:
        """Return a Redis key for data of election `key`, in the same Cluster slot as that.

        It is ``{prefix}:{<bucket>}:<key>:<name>`` with literal braces around the bucket; no two
        pairs of key and name have the same.

        Args:
            key: the election's key; empty for an `Elector`.
            name: what is kept there; without a colon, and not ``leader``, ``epoch`` or
                ``fence``.

        Raises:
            ConfigError: for a key or name that is not allowed.
        """
        raw = self._checked_key(key)
        if not isinstance(name, str):
            raise ConfigError(f"a name must be str, not {type(name).__name__}")
        if not name or ":" in name or name in _OURS:
            raise ConfigError(
                f"a name must be text without ':', and none of {', '.join(sorted(_OURS))}: {name!r}"
            )
        return self._head(raw) + raw + b":" + name.encode("utf-8", "surrogateescape")

    def _head(self, raw: bytes) -> bytes:
        return self._layout.heads[self._layout.bucket(raw)]

    def _checked_key(self, key: str | bytes) -> bytes:
        if not self._layout.buckets_key:
            if key not in ("", b""):
                raise ConfigError(f"an elector's election has an empty key, not {key!r}")
            return b""
        return encode_key(key)

    def _planned(self, writes: Iterable[Write]) -> tuple[deque[Batch], list[Outcome]]:
        """Return what to send, and a place for each outcome."""
        listed = list(writes)
        for write in listed:
            self._check(write)
        batches = packed(listed, self._layout, spans_buckets=not self._is_clustered)
        return deque(batches), [Outcome()] * len(listed)

    def _check(self, write: Write) -> None:
        if not isinstance(write, Write):
            raise ConfigError(f"a write is made by Write.set and its like, not {write!r}")
        self._checked_key(write.key)
        theirs, ours = write.layout, self._layout
        if theirs is not None and theirs is not ours and theirs != ours:
            raise ConfigError(
                f"this fence is of {ours.channel.decode(errors='replace')!r}, and the writer of"
                f" {theirs.channel.decode(errors='replace')!r}: its epochs mean nothing here"
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
        wanted = str(len(self._layout.heads))
        text = found.decode(errors="replace") if isinstance(found, bytes) else found
        if text is not None and text != wanted:
            raise ConfigError(
                f"this namespace is divided into {text} buckets, not {wanted}:"
                " a fence with another number looks for epochs where there are none"
            )
        # Nobody has stood for election there yet: whoever will may choose another number.
        self._buckets_agreed = text is not None

    def _script(self, batch: Batch) -> Script:
        return batch.script.with_flags if self._knows_flags else batch.script.without_flags

    def _parted(self, batch: Batch, error: Exception) -> Sequence[Batch]:
        """Return what to send in place of a batch that was refused; nothing where it has failed.

        One key that this user may not use costs a script all that it serves; nothing was done.
        """
        refusal = refusal_in(error)
        if refusal is None or not refusal.is_of_keys or len(batch.writes) == 1:
            return ()
        return batch.halves(self._layout)

    def _given(self, outcome: Outcome) -> Any:  # noqa: ANN401
        if outcome.error is None:
            return outcome.reply
        if isinstance(outcome.error, StaleEpochError) and not self._raise_stale:
            return False
        raise outcome.error


def _keep(outcomes: list[Outcome], these: Iterable[tuple[int, Outcome]]) -> None:
    for place, outcome in these:
        outcomes[place] = outcome


def _give_up(outcomes: list[Outcome], unsent: Iterable[Batch], error: Exception) -> None:
    for batch in unsent:
        lost = redis.ConnectionError("not sent, as what was sent before it was not answered")
        lost.__cause__ = error
        _keep(outcomes, batch.failed(lost))


class Fence(_Fencing["redis.Redis | redis.RedisCluster"]):
    """Makes writes that are refused once a newer epoch was elected.

    A term whose write is refused ends, with the reason ``SUPERSEDED``, and its node stands again
    under an epoch above the newest: nothing more would be written under the old one. That needs a
    `Term` or an `Election` as the writer; a `Writer` leads to no node.

    Its methods may be called from any thread. Each write takes one round trip, `write_many`
    one for each 250. Whatever redis-py raises for the client (connection, timeout, a full
    server) it raises here too.

    A client that sends again what was not answered, as redis-py does by default, may make a
    write twice, under the same epoch: give it ``retry=Retry(NoBackoff(), 0)``, or write what
    may be written twice.

    Args:
        client: a `redis.Redis` or `redis.RedisCluster` of the server that holds the elections,
            in the same database.
        of: the prefix of a group, or an `ElectionGroup` or `Elector` (of `multielect.aio` as
            well), which need not be started.
        buckets: with a prefix, into how many buckets its group is divided; 256 by default.
        raise_stale: what a stale write does: True raises `StaleEpochError`, False returns
            False, and nothing else does.

    Raises:
        ConfigError: for any argument that is not allowed; in the first write, for a number of
            buckets that is not the one in use.
    """

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        of: str | GroupFront[Any] | ElectorFront[Any],
        *,
        buckets: int | None = None,
        raise_stale: bool = True,
    ) -> None:
        super().__init__(
            client,
            of,
            buckets=buckets,
            raise_stale=raise_stale,
            plain=redis.Redis,
            clustered=redis.RedisCluster,
            pipeline=redis.client.Pipeline,
        )

    def set(
        self,
        writer: Standing | Writer,
        name: str | bytes,
        value: Value,
        *,
        ttl: float | None = None,
    ) -> bool:
        """Set the string `name` to `value`, to end after `ttl` seconds if given.

        Args:
            writer: a `Term`, an `Election` or a `Writer`. A `Term` has the epoch under which the
                work was begun; an `Election` the newest that this node won, perhaps since.
            name: the Redis key.
            value: what it is to hold.
            ttl: seconds, or None for ever.

        Returns:
            True; False for a stale write, if the fence does not raise.

        Raises:
            StaleEpochError: if a newer epoch is known; nothing was done.
            NotLeaderError: if the writer has never led.
            ConfigError: for an argument that is not allowed.
        """
        return bool(self._one(Write.set(writer, name, value, ttl=ttl)))

    def hset(
        self, writer: Standing | Writer, name: str | bytes, mapping: Mapping[str | bytes, Value]
    ) -> bool:
        """Set the fields of `mapping`, at least one, in the hash `name`.

        Returns:
            True, also if no field is new; False for a stale write, if the fence does not raise.

        Raises:
            StaleEpochError: if a newer epoch is known; nothing was done.
            NotLeaderError: if the writer has never led.
            ConfigError: for an argument that is not allowed.
        """
        return bool(self._one(Write.hset(writer, name, mapping)))

    def xadd(
        self,
        writer: Standing | Writer,
        name: str | bytes,
        fields: Mapping[str | bytes, Value],
        *,
        id: str | bytes = "*",  # noqa: A002
        maxlen: int | None = None,
    ) -> bytes | str | Literal[False]:
        """Append an entry to the stream `name`, and trim it to about `maxlen` if given.

        Returns:
            The entry's id; False for a stale write, if the fence does not raise.

        Raises:
            StaleEpochError: if a newer epoch is known; nothing was done.
            NotLeaderError: if the writer has never led.
            ConfigError: for an argument that is not allowed.
        """
        made: bytes | str | Literal[False]
        made = self._one(Write.xadd(writer, name, fields, id=id, maxlen=maxlen))
        return made

    def run(
        self,
        writer: Standing | Writer,
        script: FencedScript,
        keys: Iterable[str | bytes] = (),
        arguments: Iterable[Value] = (),
    ) -> Any:  # noqa: ANN401
        """Run the body of `script` with `keys` as its KEYS and `arguments` as its ARGV.

        Returns:
            What the body returns; False for a stale write, if the fence does not raise.

        Raises:
            StaleEpochError: if a newer epoch is known; nothing was done.
            redis.ResponseError: if the body failed; what it had done until then stays.
            redis.exceptions.NoPermissionError: if the server refused it to the client's user; it
                says which command, or key.
            NotLeaderError: if the writer has never led.
            ConfigError: for an argument that is not allowed.
        """
        return self._one(Write.run(writer, script, keys, arguments))

    def write_many(self, writes: Iterable[Write]) -> list[Outcome]:
        """Make many writes in as few scripts as possible, of at most 250 writes each.

        Each write has its own outcome, and one that is stale or fails keeps none of the others
        from being made. The writes of one election are made in the order given. They are no
        transaction: what must be done together belongs into one `FencedScript`.

        Where the connection is lost, the outcomes of the script on its way are unknown, and no
        more are sent.

        Returns:
            An outcome for each write, in the order given. It raises for none of them.

        Raises:
            ConfigError: for a write of another election group; nothing was sent.
        """
        batches, outcomes = self._planned(writes)
        self._prepare()
        while batches:
            batch = batches.popleft()
            try:
                _keep(outcomes, batch.outcomes(self._send(batch)))
                batch.tell_superseded(outcomes)
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

    def _one(self, write: Write) -> Any:  # noqa: ANN401
        return self._given(self.write_many([write])[0])

    def _prepare(self) -> None:
        if not self._buckets_agreed:
            self._judge_buckets(self._client.get(self._layout.buckets_key))
        if self._knows_flags is None:
            try:
                self._client.eval(PROBE, 0)
            except redis.ResponseError as error:
                if not is_about_flags(error):
                    raise
                self._knows_flags = False
            else:
                self._knows_flags = True

    def _send(self, batch: Batch) -> Any:  # noqa: ANN401
        script = self._script(batch)
        try:
            return self._client.evalsha(script.sha.decode(), *batch.sent)
        except NoScriptError:
            # Nothing was done; and what is sent whole, the server keeps.
            return self._client.eval(script.body.decode(), *batch.sent)


class AsyncFence(_Fencing["redis.asyncio.Redis | redis.asyncio.RedisCluster"]):
    """The same for asyncio, with a client of `redis.asyncio`: see `Fence`.

    Its methods may be called by any tasks of the client's loop. A task that is cancelled in one
    does not know whether its write was made.

    Args:
        client: a `redis.asyncio.Redis` or `redis.asyncio.RedisCluster`.
        of: see `Fence`.
        buckets: see `Fence`.
        raise_stale: see `Fence`.

    Raises:
        ConfigError: for any argument that is not allowed; in the first write, for a number of
            buckets that is not the one in use.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        of: str | GroupFront[Any] | ElectorFront[Any],
        *,
        buckets: int | None = None,
        raise_stale: bool = True,
    ) -> None:
        super().__init__(
            client,
            of,
            buckets=buckets,
            raise_stale=raise_stale,
            plain=redis.asyncio.Redis,
            clustered=redis.asyncio.RedisCluster,
            pipeline=redis.asyncio.client.Pipeline,
        )

    async def set(
        self,
        writer: Standing | Writer,
        name: str | bytes,
        value: Value,
        *,
        ttl: float | None = None,
    ) -> bool:
        """Set the string `name`: see `Fence.set`."""
        return bool(await self._one(Write.set(writer, name, value, ttl=ttl)))

    async def hset(
        self, writer: Standing | Writer, name: str | bytes, mapping: Mapping[str | bytes, Value]
    ) -> bool:
        """Set fields in the hash `name`: see `Fence.hset`."""
        return bool(await self._one(Write.hset(writer, name, mapping)))

    async def xadd(
        self,
        writer: Standing | Writer,
        name: str | bytes,
        fields: Mapping[str | bytes, Value],
        *,
        id: str | bytes = "*",  # noqa: A002
        maxlen: int | None = None,
    ) -> bytes | str | Literal[False]:
        """Append an entry to the stream `name`: see `Fence.xadd`."""
        made: bytes | str | Literal[False]
        made = await self._one(Write.xadd(writer, name, fields, id=id, maxlen=maxlen))
        return made

    async def run(
        self,
        writer: Standing | Writer,
        script: FencedScript,
        keys: Iterable[str | bytes] = (),
        arguments: Iterable[Value] = (),
    ) -> Any:  # noqa: ANN401
        """Run the body of `script`: see `Fence.run`."""
        return await self._one(Write.run(writer, script, keys, arguments))

    async def write_many(self, writes: Iterable[Write]) -> list[Outcome]:
        """Make many writes in as few scripts as possible: see `Fence.write_many`."""
        batches, outcomes = self._planned(writes)
        await self._prepare()
        while batches:
            batch = batches.popleft()
            try:
                _keep(outcomes, batch.outcomes(await self._send(batch)))
                batch.tell_superseded(outcomes)
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

    async def _one(self, write: Write) -> Any:  # noqa: ANN401
        return self._given((await self.write_many([write]))[0])

    async def _prepare(self) -> None:
        if not self._buckets_agreed:
            self._judge_buckets(await self._client.get(self._layout.buckets_key))
        if self._knows_flags is None:
            try:
                await self._client.eval(PROBE, 0)
            except redis.ResponseError as error:
                if not is_about_flags(error):
                    raise
                self._knows_flags = False
            else:
                self._knows_flags = True

    async def _send(self, batch: Batch) -> Any:  # noqa: ANN401
        script = self._script(batch)
        try:
            return await self._client.evalsha(script.sha.decode(), *batch.sent)
        except NoScriptError:
            return await self._client.eval(script.body.decode(), *batch.sent)
