"""The fences: writes through a client of the user's, refused where their epoch is not the newest.

Rules of this file:
    * Each fence makes the calls that `_steps` asks for, in its own way, and decides nothing.
    * It uses the user's client and no other connection, so that client's timeouts and retries
      hold, and a fence is as safe for threads, or tasks, as its client.
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
        self, writer: Candidacy | Writer, name: str | bytes, mapping: Mapping[str | bytes, Value]
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
            StaleEpochError: if a newer epoch is known; nothing was done.
            NotLeaderError: if the writer has never led.
            ConfigError: for an argument that is not allowed.
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
