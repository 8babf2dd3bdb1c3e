"""The fences: they write through the user's client, and refuse a write of an old epoch.

Rules of this file:
    * Each fence makes the calls that `_steps` asks for, blocking or awaited. It decides nothing.
    * A fence uses the user's client and no other connection. So the client's timeouts and retries
      apply, and a fence is as safe for threads, or tasks, as its client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import redis
import redis.asyncio

from .._node.base import BaseElectionGroup, BaseElector
from ..election import Candidacy
from ._steps import Call, Fencing
from ._writes import FencedScript, Outcome, Value, Write, Writer


class Fence(Fencing["redis.Redis | redis.RedisCluster"]):
    """Makes writes that are refused once a newer epoch was elected.

    When a write is refused, the term behind it ends with reason ``SUPERSEDED``: all its further
    writes would be refused too. Its node stands again, for an epoch above the newest. This needs a
    `Term` or an `Election` as the writer; a `Writer` has no node.

    The methods may be called from any thread. A write takes one round trip. `write_many` takes one
    for every 250 writes. The methods raise whatever redis-py raises for the client (connection,
    timeout, a full server).

    A client that sends an unanswered request again, as redis-py does by default, may make a write
    twice under the same epoch. Give it ``retry=Retry(NoBackoff(), 0)``, or make only writes that
    may be made twice.

    Args:
        client: a `redis.Redis` or `redis.RedisCluster` of the server that holds the elections,
            with the same database.
        of: the prefix of a group, or an `ElectionGroup` or `Elector` (also of `multielect.aio`),
            which need not be started.
        buckets: the number of buckets of the group; only with a prefix. 256 by default.
        raise_stale: if True, a stale write raises `StaleEpochError`. If False, it returns False,
            and no other write returns False.

    Raises:
        ConfigError: if an argument is not allowed. The first write raises it if the group has
            another number of buckets.
    """

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster,
        of: str | BaseElectionGroup[Any] | BaseElector[Any],
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
        writer: Candidacy | Writer,
        name: str | bytes,
        value: Value,
        *,
        ttl: float | None = None,
    ) -> bool:
        """Set the string `name` to `value`. It expires after `ttl` seconds if `ttl` is given.

        Args:
            writer: a `Term`, an `Election` or a `Writer`. A `Term` has the epoch under which the
                work began. An `Election` has the newest epoch that this node won, which may have
                begun later.
            name: the Redis key.
            value: the value.
            ttl: seconds, or None to keep the value for ever.

        Returns:
            True; False for a stale write, if the fence does not raise.

        Raises:
            StaleEpochError: if a newer epoch is known; nothing was written.
            NotLeaderError: if the writer has never led.
            ConfigError: if an argument is not allowed.
        """
        return bool(self._one(Write.set(writer, name, value, ttl=ttl)))

    def hset(
        self, writer: Candidacy | Writer, name: str | bytes, mapping: Mapping[str | bytes, Value]
    ) -> bool:
        """Set the fields of `mapping`, at least one, in the hash `name`.

        Returns:
            True, also if no field is new; False for a stale write, if the fence does not raise.

        Raises:
            StaleEpochError: if a newer epoch is known; nothing was written.
            NotLeaderError: if the writer has never led.
            ConfigError: if an argument is not allowed.
        """
        return bool(self._one(Write.hset(writer, name, mapping)))

    def xadd(
        self,
        writer: Candidacy | Writer,
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
            StaleEpochError: if a newer epoch is known; nothing was written.
            NotLeaderError: if the writer has never led.
            ConfigError: if an argument is not allowed.
        """
        made: bytes | str | Literal[False]
        made = self._one(Write.xadd(writer, name, fields, id=id, maxlen=maxlen))
        return made

    def run(
        self,
        writer: Candidacy | Writer,
        script: FencedScript,
        keys: Iterable[str | bytes] = (),
        arguments: Iterable[Value] = (),
    ) -> Any:  # noqa: ANN401
        """Run the body of `script` with `keys` as its KEYS and `arguments` as its ARGV.

        Returns:
            What the body returns; False for a stale write, if the fence does not raise.

        Raises:
            StaleEpochError: if a newer epoch is known; nothing was written.
            redis.ResponseError: if the body failed. What the body wrote before stays.
            redis.exceptions.NoPermissionError: if the client's user may not use a command or a
                key. The message names it.
            NotLeaderError: if the writer has never led.
            ConfigError: if an argument is not allowed.
        """
        return self._one(Write.run(writer, script, keys, arguments))

    def write_many(self, writes: Iterable[Write]) -> list[Outcome]:
        """Make many writes in as few scripts as possible, of at most 250 writes each.

        Each write has its own outcome. A write that is stale or fails does not stop the others.
        The writes of one election are made in the order given. They are not a transaction: put
        writes that belong together into one `FencedScript`.

        If the connection is lost, the writes of the script in flight have an unknown outcome, and
        the fence sends no further script.

        Returns:
            An outcome for each write, in the order given. The method raises for none of them.

        Raises:
            ConfigError: if a write belongs to another group; nothing was sent.
        """
        steps = self._writing(writes)
        ask: Callable[[], Call] = partial(next, steps)
        try:
            while True:
                command, arguments = ask()
                try:
                    reply = getattr(self._client, command)(*arguments)
                except Exception as error:  # noqa: BLE001  # the steps know which they expect
                    ask = partial(steps.throw, error)
                else:
                    ask = partial(steps.send, reply)
        except StopIteration as end:
            outcomes: list[Outcome] = end.value
            return outcomes

    def _one(self, write: Write) -> Any:  # noqa: ANN401
        return self._given(self.write_many([write])[0])


class AsyncFence(Fencing["redis.asyncio.Redis | redis.asyncio.RedisCluster"]):
    """A `Fence` for asyncio, with a client of `redis.asyncio`.

    Any task of the client's loop may call its methods. A task that is cancelled during a call does
    not know whether the write was made.

    Args:
        client: a `redis.asyncio.Redis` or `redis.asyncio.RedisCluster`.
        of: see `Fence`.
        buckets: see `Fence`.
        raise_stale: see `Fence`.

    Raises:
        ConfigError: if an argument is not allowed. The first write raises it if the group has
            another number of buckets.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
        of: str | BaseElectionGroup[Any] | BaseElector[Any],
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
        writer: Candidacy | Writer,
        name: str | bytes,
        value: Value,
        *,
        ttl: float | None = None,
    ) -> bool:
        """Set the string `name`: see `Fence.set`."""
        return bool(await self._one(Write.set(writer, name, value, ttl=ttl)))

    async def hset(
        self, writer: Candidacy | Writer, name: str | bytes, mapping: Mapping[str | bytes, Value]
    ) -> bool:
        """Set fields in the hash `name`: see `Fence.hset`."""
        return bool(await self._one(Write.hset(writer, name, mapping)))

    async def xadd(
        self,
        writer: Candidacy | Writer,
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
        writer: Candidacy | Writer,
        script: FencedScript,
        keys: Iterable[str | bytes] = (),
        arguments: Iterable[Value] = (),
    ) -> Any:  # noqa: ANN401
        """Run the body of `script`: see `Fence.run`."""
        return await self._one(Write.run(writer, script, keys, arguments))

    async def write_many(self, writes: Iterable[Write]) -> list[Outcome]:
        """Make many writes in as few scripts as possible: see `Fence.write_many`."""
        steps = self._writing(writes)
        ask: Callable[[], Call] = partial(next, steps)
        try:
            while True:
                command, arguments = ask()
                try:
                    reply = await getattr(self._client, command)(*arguments)
                except Exception as error:  # noqa: BLE001  # the steps know which they expect
                    ask = partial(steps.throw, error)
                else:
                    ask = partial(steps.send, reply)
        except StopIteration as end:
            outcomes: list[Outcome] = end.value
            return outcomes

    async def _one(self, write: Write) -> Any:  # noqa: ANN401
        return self._given((await self.write_many([write]))[0])
