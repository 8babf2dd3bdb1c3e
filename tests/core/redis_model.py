"""Redis as far as a node uses it: in memory, on a clock that the test moves.

Rules of this file:
    * It does what the scripts mean, without their Lua. `test_redis_model.py` holds it
      against real servers.
    * Its wall clock is the test's clock from another beginning, so that a deadline which the
      core took from the server's time would show.
    * A fault is what the test sets, and lasts until the test takes it away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from multielect._clock import ManualClock
from multielect._scripts import WITH_FLAGS, WITHOUT_FLAGS

from .resp import Push, Refusal, Reply

WALL_CLOCK_AHEAD_MS = 1_700_000_000_000
LARGEST_COUNTER = 2**53 - 1
ONE_DAY_MS = 86_400_000

WRONGTYPE = Refusal("WRONGTYPE Operation against a key holding the wrong kind of value")
NO_INTEGER = Refusal("ERR epoch counter is not an integer")
OVERFLOW = Refusal("ERR epoch counter would overflow")
NOSCRIPT = Refusal("NOSCRIPT No matching script.")

_NAMES = {
    script.sha: name
    for scripts in (WITH_FLAGS, WITHOUT_FLAGS)
    for name, script in vars(scripts).items()
}
_BODIES = {
    script.body: script.sha
    for scripts in (WITH_FLAGS, WITHOUT_FLAGS)
    for script in vars(scripts).values()
}


@dataclass(frozen=True)
class Batch:
    """A script that was asked for, run or refused."""

    request: str
    command: str
    keys: tuple[bytes, ...]
    arguments: tuple[bytes, ...]

    @property
    def elections(self) -> int:
        """How many elections it is about."""
        if self.request == "roll":
            return 0
        return len(self.keys) if self.request == "refresh" else len(self.keys) // 2


@dataclass
class _Stored:
    value: bytes | list[bytes]
    ends_ms: int | None


@dataclass(frozen=True)
class _Member:
    ends_ms: int
    since_ms: int
    words: bytes


@dataclass
class RedisModel:
    """A server with one database.

    Attributes:
        clock: its clock and everybody else's.
        ahead_ms: how far its wall clock is ahead of that: a test that moves it steps the clock.
        refusal: the answer to every batch from now on, if set.
        batches: what it was asked, oldest first.
        subscribers: who is told of what is published, and on which channel.
    """

    clock: ManualClock
    ahead_ms: int = WALL_CLOCK_AHEAD_MS
    refusal: Refusal | None = None
    batches: list[Batch] = field(default_factory=list)
    subscribers: list[tuple[bytes, Callable[[Push], None]]] = field(default_factory=list)
    _stored: dict[bytes, _Stored] = field(default_factory=dict)
    _members: dict[bytes, dict[bytes, _Member]] = field(default_factory=dict)
    _loaded: set[bytes] = field(default_factory=set)

    # ---- for tests

    def now_ms(self) -> int:
        """Return the server's wall clock."""
        return self.ahead_ms + self.clock.now_ns() // 1_000_000

    def get(self, key: bytes) -> bytes | None:
        """Return a string, as GET does."""
        value = self._get(key)
        assert not isinstance(value, Refusal), f"{key!r} holds no string"
        return value

    def put(self, key: bytes, value: bytes | list[bytes], ttl_ms: int | None = None) -> None:
        """Store a string or a list, as SET and RPUSH do."""
        self._stored[key] = _Stored(value, None if ttl_ms is None else self.now_ms() + ttl_ms)

    def delete(self, key: bytes) -> bool:
        """Delete a key, as DEL does."""
        self._drop_if_ended(key)
        return self._stored.pop(key, None) is not None

    def remaining_ms(self, key: bytes) -> int:
        """Return how long a key lives, as PTTL does."""
        self._drop_if_ended(key)
        stored = self._stored.get(key)
        if stored is None:
            return -2
        return -1 if stored.ends_ms is None else stored.ends_ms - self.now_ms()

    def forget_scripts(self) -> None:
        """Forget the scripts' digests, as SCRIPT FLUSH and a restart do."""
        self._loaded.clear()

    def forget(self) -> None:
        """Forget all data, as FLUSHALL does."""
        self._stored.clear()
        self._members.clear()

    def members(self, key: bytes) -> list[bytes]:
        """Return the holders of the members of a fleet."""
        return list(self._members.get(key, {}))

    def forge_member(self, key: bytes, holder: bytes, words: bytes, lasts_ms: int) -> None:
        """Write an entry of a fleet, as anybody may who can write to the server."""
        now_ms = self.now_ms()
        self._members.setdefault(key, {})[holder] = _Member(now_ms + lasts_ms, now_ms, words)

    def dump(self) -> dict[bytes, bytes | list[bytes]]:
        """Return all that is stored."""
        for key in list(self._stored):
            self._drop_if_ended(key)
        return {key: stored.value for key, stored in self._stored.items()}

    # ---- for connections

    def call(self, words: list[bytes]) -> Reply:
        """Run one command."""
        command, script, count, *rest = words
        keys, arguments = tuple(rest[: int(count)]), tuple(rest[int(count) :])
        assert command in {b"EVAL", b"EVALSHA"}, f"a node sent {command!r}"
        sha = _BODIES[script] if command == b"EVAL" else script
        request = _NAMES[sha]
        self.batches.append(Batch(request, command.decode(), keys, arguments))
        if self.refusal is not None:
            return self.refusal
        if command == b"EVALSHA" and sha not in self._loaded:
            return NOSCRIPT
        self._loaded.add(sha)
        run: Callable[..., Reply] = getattr(self, f"_{request}")
        return run(keys, *arguments)

    def _acquire(
        self,
        keys: tuple[bytes, ...],
        holder: bytes,
        ttl_ms: bytes,
        epochs: bytes,
        claim_channel: bytes,
    ) -> Reply:
        holders: list[Reply] = []
        outcomes: list[Reply] = []
        claimed: dict[bytes, bytes] = {}
        for leader_key, epoch_key in zip(keys[::2], keys[1::2], strict=True):
            leader = self._get(leader_key)
            if isinstance(leader, bytes) and leader != holder:
                if leader not in holders:
                    holders.append(leader)
                remaining = self.remaining_ms(leader_key)
                if remaining < 0:
                    remaining = int(ttl_ms)
                place = holders.index(leader) + 1
                outcomes.append(-(min(remaining, ONE_DAY_MS) * 256 + place))
                claimed[leader] = claimed.get(leader, b"") + _netstring(leader_key)
                continue
            if isinstance(leader, Refusal):
                outcomes.append(leader)
                continue
            epoch = self._mint(epoch_key, by_time=epochs == b"time")
            if isinstance(epoch, int):
                self.put(leader_key, holder, int(ttl_ms))
            outcomes.append(epoch)
        if claim_channel:
            for leader, names in claimed.items():
                head = _netstring(b"/" + leader) + _netstring(b"claim") + _netstring(holder)
                self.publish(claim_channel, head + names)
        return [self.now_ms(), holders, *outcomes]

    def _mint(self, epoch_key: bytes, *, by_time: bool) -> int | Refusal:
        last = self._get(epoch_key)
        if isinstance(last, Refusal):
            return last
        if last is not None and not last.removeprefix(b"-").isdigit():
            return NO_INTEGER
        if last is not None and int(last) >= LARGEST_COUNTER:
            return OVERFLOW
        epoch = int(last or 0) + 1
        if by_time:
            epoch = max(epoch, self.now_ms())
        self.put(epoch_key, b"%d" % epoch)
        return epoch

    def _refresh(self, keys: tuple[bytes, ...], holder: bytes, ttl_ms: bytes) -> Reply:
        not_ours: list[Reply] = []
        for place, key in enumerate(keys, 1):
            if self._get(key) == holder:
                self.put(key, holder, int(ttl_ms))
            else:
                not_ours.append(place)
        return [self.now_ms(), not_ours, []]

    def _release(
        self, keys: tuple[bytes, ...], holder: bytes, channel: bytes, *epochs: bytes
    ) -> Reply:
        released: list[Reply] = []
        message = _netstring(holder)
        pairs = zip(keys[::2], keys[1::2], epochs, strict=True)
        for place, (leader_key, epoch_key, epoch) in enumerate(pairs, 1):
            if self._get(leader_key) == holder and self._get(epoch_key) == epoch:
                self.delete(leader_key)
                released.append(place)
                message += _netstring(leader_key)
        if released:
            self.publish(channel, message)
        return [self.now_ms(), *released]

    def _grant(
        self,
        keys: tuple[bytes, ...],
        holder: bytes,
        channel: bytes,
        grant_ms: bytes,
        *terms: bytes,
    ) -> Reply:
        ended: list[Reply] = []
        messages: dict[bytes, bytes] = {}
        quads = zip(keys[::2], keys[1::2], terms[::2], terms[1::2], strict=True)
        for place, (leader_key, epoch_key, epoch, heir) in enumerate(quads, 1):
            if self._get(leader_key) != holder or self._get(epoch_key) != epoch:
                continue
            ended.append(place)
            head = _netstring(b"/" + heir) + _netstring(b"grant") if heir else _netstring(holder)
            messages[heir] = messages.get(heir, head) + _netstring(leader_key)
            if heir:
                self.put(leader_key, heir, int(grant_ms))
            else:
                self.delete(leader_key)
        for message in messages.values():
            self.publish(channel, message)
        return [self.now_ms(), *ended]

    def _roll(
        self,
        keys: tuple[bytes, ...],
        holder: bytes,
        lasts_ms: bytes,
        since_ms: bytes,
        *rest: bytes,
    ) -> Reply:
        words, channel, known, proposed = rest
        if keys[0] in self._stored:
            return WRONGTYPE
        members = self._members.setdefault(keys[0], {})
        now_ms = self.now_ms()
        ended = [name for name, member in members.items() if member.ends_ms <= now_ms]
        changed = any(name != holder for name in ended)
        for name in ended:
            del members[name]
        mine = members.pop(holder, None)
        if int(lasts_ms):
            since = int(since_ms) or now_ms
            members[holder] = _Member(now_ms + int(lasts_ms), since, words)
            changed |= mine is None or mine.words != words
        else:
            changed |= mine is not None
        if changed:
            self.publish(channel, _netstring(b"/"))
        reply = _netstring(b"%d" % now_ms) + _netstring(b"0" if mine is None else b"1")
        reply += self._plan(keys[1], int(known), proposed)
        for name, member in members.items():
            reply += _netstring(name) + _netstring(b"%d" % (member.ends_ms - now_ms))
            reply += _netstring(b"%d" % member.since_ms) + _netstring(member.words)
        return reply

    def _plan(self, key: bytes, known: int, proposed: bytes) -> bytes:
        kept = self._get(key)
        text = kept if isinstance(kept, bytes) else b""
        if _plan_number(proposed) > _plan_number(text):
            text = proposed
            self.put(key, text)
        number = _plan_number(text)
        told = text.partition(b" ")[2] if number not in (0, known) else b""
        return _netstring(b"%d" % number) + _netstring(told)

    def publish(self, channel: bytes, message: bytes) -> None:
        """Tell the subscribers of a channel."""
        for subscribed, tell in self.subscribers:
            if subscribed == channel:
                tell(Push((b"message", channel, message)))

    def _get(self, key: bytes) -> bytes | Refusal | None:
        self._drop_if_ended(key)
        stored = self._stored.get(key)
        if stored is None:
            return None
        return stored.value if isinstance(stored.value, bytes) else WRONGTYPE

    def _drop_if_ended(self, key: bytes) -> None:
        stored = self._stored.get(key)
        if stored is not None and stored.ends_ms is not None and stored.ends_ms <= self.now_ms():
            del self._stored[key]


def _plan_number(text: bytes) -> int:
    digits, space, _ = text.partition(b" ")
    return int(digits) if space and digits.isdigit() and len(digits) <= 15 else 0


def _netstring(text: bytes) -> bytes:
    return b"%d:%s" % (len(text), text)
