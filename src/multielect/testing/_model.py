"""A model of Redis in memory, with the commands that a node uses, on a clock that the test moves.

Rules of this file:
    * The model does what the scripts do, without their Lua. `tests/simulation/test_model.py`
      compares it with real servers.
    * Its wall clock is the test's clock with another origin. So a test would fail if the core took
      a deadline from the server's time.
    * The test sets faults. A fault lasts until the test ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .._protocol.scripts import WITH_FLAGS, WITHOUT_FLAGS
from .._runtime.clock import Clock
from ..fencing._writes import COMMAND
from ._resp import CommandReader, Push, Refusal, Reply, encode
from ._scripts_model import OOM, Scripts
from ._store import Store, Value

NOSCRIPT = Refusal("NOSCRIPT No matching script.")
READONLY = Refusal("READONLY You can't write against a read only replica.")

MAX_BATCHES = 10_000
"""How many of the newest batches are kept."""


@dataclass(frozen=True)
class Batch:
    """A script call that the server ran or refused."""

    request: str
    command: str
    keys: tuple[bytes, ...]
    arguments: tuple[bytes, ...]

    @property
    def elections(self) -> int:
        """How many elections the call concerns."""
        if self.request == "membership":
            return 0
        if self.request == "refresh":
            return len(self.keys)
        return len(self.keys) // (3 if self.request.startswith("expiring_") else 2)


@dataclass(frozen=True)
class _Known:
    """A script that the model can run."""

    request: str
    sha: bytes
    has_flags: bool

    @property
    def is_refused_when_full(self) -> bool:
        """Whether a full server refuses the whole script."""
        return self.has_flags and self.request in {"acquire", "fence"}


def _known_scripts() -> dict[bytes, _Known]:
    found = {}
    for scripts, fence, has_flags in (
        (WITH_FLAGS, COMMAND.with_flags, True),
        (WITHOUT_FLAGS, COMMAND.without_flags, False),
    ):
        for request, script in [*vars(scripts).items(), ("fence", fence)]:
            known = _Known(request, script.sha, has_flags)
            found[script.sha] = found[script.body] = known
    return found


_KNOWN = _known_scripts()


class RedisModel:
    """A server with one database that knows our scripts and no others.

    Attributes:
        clock: its clock.
        refusal: the reply to every script from now on, if set.
        is_full: whether it is above its `maxmemory`.
        is_replica: whether it takes no writes.
        batches: the newest script calls, oldest first.
        observe: called with each script call and its reply, if set.
        subscribers: the channels, each with a function that takes its messages.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.refusal: Refusal | None = None
        self.is_full = False
        self.is_replica = False
        self.batches: list[Batch] = []
        self.observe: Callable[[Batch, Reply], None] | None = None
        self.subscribers: list[tuple[bytes, Callable[[Push], None]]] = []
        self.store = Store(clock)
        self._scripts = Scripts(self.store, self.publish)
        self._loaded: set[bytes] = set()

    # ---- for tests

    def now_ms(self) -> int:
        """Return the server's wall clock, in milliseconds."""
        return self.store.now_ms()

    def get(self, key: bytes) -> bytes | None:
        """Return a string, as GET does.

        Raises:
            TypeError: if the key does not hold a string.
        """
        value = self.store.get(key)
        if isinstance(value, Refusal):
            raise TypeError(f"{key!r} does not hold a string")
        return value

    def put(self, key: bytes, value: Value, ttl_ms: int | None = None) -> None:
        """Store a string, a list or a hash, as SET, RPUSH and HSET do."""
        self.store.put(key, value, ttl_ms)

    def delete(self, key: bytes) -> bool:
        """Delete a key, as DEL does. Returns whether it existed."""
        return self.store.delete(key)

    def remaining_ms(self, key: bytes) -> int:
        """Return the remaining time of a key in milliseconds, as PTTL does."""
        return self.store.remaining_ms(key)

    def forget_scripts(self) -> None:
        """Forget all scripts, as SCRIPT FLUSH and a restart do."""
        self._loaded.clear()

    def left_behind(self) -> RedisModel:
        """Return this server as it goes on after it was replaced, when its leases have ended."""
        orphan = RedisModel(self.clock)
        orphan.store.copy_lasting(self.store)
        return orphan

    def dump(self) -> dict[bytes, Value]:
        """Return the value of every key."""
        return self.store.dump()

    # ---- for connections

    def call(self, words: list[bytes]) -> Reply:
        """Run one script, as EVAL and EVALSHA do."""
        command, script, count, *rest = words
        keys, arguments = tuple(rest[: int(count)]), tuple(rest[int(count) :])
        assert command in {b"EVAL", b"EVALSHA"}, f"a node sent {command!r}"
        known = _KNOWN[script]
        batch = Batch(known.request, command.decode(), keys, arguments)
        self.batches.append(batch)
        if len(self.batches) > MAX_BATCHES:
            del self.batches[: MAX_BATCHES // 2]
        reply = self._run(known, batch)
        if self.observe is not None:
            self.observe(batch, reply)
        return reply

    def publish(self, channel: bytes, message: bytes) -> None:
        """Send a message to the subscribers of a channel."""
        for subscribed, take in list(self.subscribers):
            if subscribed == channel:
                take(Push((b"message", channel, message)))

    def _run(self, known: _Known, batch: Batch) -> Reply:
        if self.refusal is not None:
            return self.refusal
        if batch.command == "EVALSHA" and known.sha not in self._loaded:
            return NOSCRIPT
        # A server does not keep a script that it refuses for its flags.
        if self.is_replica:
            return READONLY
        if self.is_full and known.is_refused_when_full:
            return OOM
        self._loaded.add(known.sha)
        full = self.is_full and not known.has_flags
        return self._scripts.run(known.request, batch.keys, batch.arguments, full=full)


class Session:
    """A client's connection, as the server sees it: bytes in, bytes out.

    Args:
        server: the server that runs its commands.
        send: takes the bytes of each reply and announcement.
        pushes: whether announcements are pushes (RESP3) or ordinary replies (RESP2).
    """

    def __init__(
        self, server: RedisModel, send: Callable[[bytes], None], *, pushes: bool = True
    ) -> None:
        self._server = server
        self._send = send
        self._pushes = pushes
        self._reader = CommandReader()
        self._channels: list[tuple[bytes, Callable[[Push], None]]] = []

    def receive(self, data: bytes) -> int:
        """Take bytes, in any pieces, and run the complete commands. Returns how many."""
        commands = self._reader.feed(data)
        for words in commands:
            if words[0] == b"SUBSCRIBE":
                self._subscribe(words[1])
            else:
                self._send(encode(self._server.call(words)))
        return len(commands)

    def moved_to(self, server: RedisModel) -> Session:
        """Return this session moved to another server, with its unread bytes and subscriptions."""
        moved = Session(server, self._send, pushes=self._pushes)
        moved._reader = self._reader
        for channel, _ in self._channels:
            entry = (channel, moved._push)
            moved._channels.append(entry)
            server.subscribers.append(entry)
        self.close()
        return moved

    def close(self) -> None:
        """End the subscriptions."""
        for entry in self._channels:
            self._server.subscribers.remove(entry)
        self._channels.clear()

    def _subscribe(self, channel: bytes) -> None:
        entry = (channel, self._push)
        self._channels.append(entry)
        self._server.subscribers.append(entry)
        self._push(Push((b"subscribe", channel, 1)))

    def _push(self, push: Push) -> None:
        self._send(encode(push if self._pushes else list(push.values)))
