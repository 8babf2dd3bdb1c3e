"""A model of our Lua scripts in Python.

Rules of this file:
    * Each script has a method with the KEYS, ARGV and reply of the file in ``lua/`` of that name.
      `tests/simulation/test_model.py` compares them with real servers.
    * A full server refuses commands that need memory to a script without flags, until that script
      has written something. A script with flags was refused as a whole, or may run every command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from .._protocol.netstrings import netstring
from .._protocol.scripts import LARGEST_EPOCH
from ._resp import Refusal, Reply
from ._store import WRONGTYPE, Store

ONE_DAY_MS = 86_400_000
MAX_ENTRY_MS = 7 * ONE_DAY_MS
MAX_PLAN_BYTES = 1 << 20

NO_INTEGER = Refusal("ERR epoch counter is not an integer")
OVERFLOW = Refusal("ERR epoch counter would overflow")
OOM = Refusal("OOM command not allowed when used memory > 'maxmemory'.")

_MAX_HOLDER_BYTES = 1100
_ENTRY = re.compile(rb"(\d+) (\d+) (.*)", re.DOTALL)
_INTEGER = re.compile(rb"-?\d+")

Publish: TypeAlias = Callable[[bytes, bytes], None]


class Scripts:
    """The scripts, which read and write a store.

    Args:
        store: the store.
        publish: sends a message to the subscribers of a channel.
    """

    def __init__(self, store: Store, publish: Publish) -> None:
        self._store = store
        self._publish = publish
        self._is_full = False

    def run(
        self, request: str, keys: Sequence[bytes], words: Sequence[bytes], *, full: bool
    ) -> Reply:
        """Run a script. `full` says that the server is full and the script has no flags."""
        self._is_full = full
        script: Callable[[Sequence[bytes], Sequence[bytes]], Reply] = getattr(self, request)
        self._store.stand_still()
        try:
            return script(keys, words)
        finally:
            self._store.go_on()

    def acquire(self, keys: Sequence[bytes], words: Sequence[bytes]) -> Reply:
        """Take every free lease, each under a new epoch."""
        holder, ttl_ms, epochs, claim_channel, *floors = words
        floor_of = dict(zip(map(int, floors[::2]), map(int, floors[1::2]), strict=True))
        store = self._store
        holders: list[Reply] = []
        outcomes: list[Reply] = []
        claimed: dict[bytes, bytes] = {}
        pairs = zip(keys[::2], keys[1::2], strict=True)
        for place, (leader_key, epoch_key) in enumerate(pairs, 1):
            leader = store.get(leader_key)
            if isinstance(leader, bytes) and leader != holder:
                leader = leader[:_MAX_HOLDER_BYTES]
                if leader not in holders:
                    holders.append(leader)
                remaining = store.remaining_ms(leader_key)
                rival = holders.index(leader) + 1
                told_ms = ONE_DAY_MS + 1 if remaining < 0 else min(remaining, ONE_DAY_MS)
                outcomes.append(-(told_ms * 256 + rival))
                claimed[leader] = claimed.get(leader, b"") + netstring(leader_key)
                continue
            epoch = self._raise(epoch_key, floor_of.get(place)) or self._mint(
                epoch_key, by_time=epochs == b"time"
            )
            if isinstance(epoch, int) and isinstance(leader, Refusal):
                epoch = leader
            if isinstance(epoch, int):
                store.put(leader_key, holder, int(ttl_ms))
            outcomes.append(epoch)
        if claim_channel:
            for leader, names in claimed.items():
                head = netstring(b"/" + leader) + netstring(b"claim") + netstring(holder)
                self._publish(claim_channel, head + names)
        return [store.now_ms(), holders, *outcomes]

    def _mint(self, epoch_key: bytes, *, by_time: bool) -> int | Refusal:
        if self._is_full and by_time:
            return OOM  # of the SET that comes before all else
        last = self._store.get(epoch_key)
        if isinstance(last, Refusal):
            return last
        if last is not None and not _INTEGER.fullmatch(last):
            return NO_INTEGER
        if last is not None and int(last) >= LARGEST_EPOCH:
            return OVERFLOW
        if self._is_full:
            return OOM
        epoch = int(last or 0) + 1
        if by_time:
            epoch = max(epoch, self._store.now_ms())
        stored = self._store.find(epoch_key)
        # INCR leaves an expiry as it is; SET takes it off.
        ends_ms = None if by_time or stored is None else stored[1]
        self._store.put_until(epoch_key, b"%d" % epoch, ends_ms)
        return epoch

    def _raise(self, epoch_key: bytes, floor: int | None) -> Refusal | None:
        if floor is None:
            return None
        if floor >= LARGEST_EPOCH:
            return OVERFLOW
        last = self._store.get(epoch_key)
        if isinstance(last, Refusal):
            return last
        if last is not None and (not _INTEGER.fullmatch(last) or int(last) >= floor):
            return None
        if self._is_full:
            return OOM
        self._store.put(epoch_key, b"%d" % floor)
        return None

    def refresh(self, keys: Sequence[bytes], words: Sequence[bytes]) -> Reply:
        """Extend every lease that is still this holder's."""
        holder, ttl_ms = words
        store, now_ms = self._store, self._store.now_ms()
        ends_ms = now_ms + int(ttl_ms)
        not_ours: list[Reply] = []
        for place, key in enumerate(keys, 1):
            stored = store.find(key)
            if stored is not None and stored[0] == holder:
                store.put_until(key, holder, ends_ms)
            else:
                not_ours.append(place)
        return [now_ms, not_ours, []]

    def release(self, keys: Sequence[bytes], words: Sequence[bytes]) -> Reply:
        """End every term that is still this holder's."""
        holder, channel, *epochs = words
        moved: list[Reply] = []
        released: list[bytes] = []
        pairs = zip(keys[::2], keys[1::2], epochs, strict=True)
        for place, (leader_key, epoch_key, epoch) in enumerate(pairs, 1):
            if self._is_term(leader_key, epoch_key, holder, epoch):
                released.append(leader_key)
            else:
                moved += self._moved(place, leader_key, epoch_key, holder)
        if released:
            for leader_key in released:
                self._store.delete(leader_key)
            self._publish(channel, netstring(holder) + b"".join(map(netstring, released)))
        return [self._store.now_ms(), moved, []]

    def grant(self, keys: Sequence[bytes], words: Sequence[bytes]) -> Reply:
        """End every term that is still this holder's, and grant each lease to its successor."""
        holder, channel, grant_ms, *terms = words
        moved: list[Reply] = []
        messages: dict[bytes, bytes] = {}
        quads = zip(keys[::2], keys[1::2], terms[::2], terms[1::2], strict=True)
        for place, (leader_key, epoch_key, epoch, wanted) in enumerate(quads, 1):
            if not self._is_term(leader_key, epoch_key, holder, epoch):
                moved += self._moved(place, leader_key, epoch_key, holder)
                continue
            successor = b"" if self._is_full else wanted
            head = (
                netstring(b"/" + successor) + netstring(b"grant")
                if successor
                else netstring(holder)
            )
            messages[successor] = messages.get(successor, head) + netstring(leader_key)
            if successor:
                self._store.put(leader_key, successor, int(grant_ms))
            else:
                self._store.delete(leader_key)
            self._is_full = False
        for message in messages.values():
            self._publish(channel, message)
        return [self._store.now_ms(), moved, []]

    def expiring_release(self, keys: Sequence[bytes], words: Sequence[bytes]) -> Reply:
        """End terms as `release` does, and let their epochs expire."""
        return self._expiring(self.release, keys, words, words[2:-1])

    def expiring_grant(self, keys: Sequence[bytes], words: Sequence[bytes]) -> Reply:
        """End terms as `grant` does, and let their epochs expire."""
        return self._expiring(self.grant, keys, words, words[3:-1:2])

    def _expiring(
        self,
        end: Callable[[Sequence[bytes], Sequence[bytes]], Reply],
        keys: Sequence[bytes],
        words: Sequence[bytes],
        epochs: Sequence[bytes],
    ) -> Reply:
        terms = list(zip(keys[::3], keys[1::3], keys[2::3], epochs, strict=True))
        ended = [term for term in terms if self._is_term(*term[:2], words[0], term[3])]
        reply = end([key for term in terms for key in term[:2]], words[:-1])
        for _, epoch_key, fence_key, epoch in ended:
            fence = self._store.get(fence_key)
            written = int(fence) if isinstance(fence, bytes) and fence.isdigit() else 0
            ends_ms = max(self._store.now_ms(), int(epoch), written) + int(words[-1])
            for key in (epoch_key, fence_key):
                stored = self._store.find(key)
                if stored is not None:
                    self._store.put_until(key, stored[0], ends_ms)
        return reply

    def _is_term(self, leader_key: bytes, epoch_key: bytes, holder: bytes, epoch: bytes) -> bool:
        return self._store.get(leader_key) == holder and self._store.get(epoch_key) == epoch

    def _moved(self, place: int, leader_key: bytes, epoch_key: bytes, holder: bytes) -> list[Reply]:
        """Return the place of a lease that the holder has under another epoch, and that epoch."""
        counter = self._store.get(epoch_key)
        if self._store.get(leader_key) != holder or not isinstance(counter, bytes):
            return []
        is_epoch = counter.isdigit() and int(counter) <= LARGEST_EPOCH
        return [place, int(counter)] if is_epoch else []

    def membership(self, keys: Sequence[bytes], words: Sequence[bytes]) -> Reply:
        """Keep a member's entry, and return all members."""
        key, plan_key = keys
        holder, lasts, since, description, channel, known, proposed = words
        lasts_ms, now_ms = int(lasts), self._store.now_ms()
        members = self._hash(key)
        if isinstance(members, Refusal):
            return members
        changed, was_there, last_ms = False, b"0", now_ms
        reply = b""

        def listed(name: bytes, ends_ms: int, since_text: bytes, text: bytes) -> bytes:
            nonlocal last_ms
            last_ms = max(last_ms, ends_ms)
            left = b"%d" % (ends_ms - now_ms)
            return b"".join(map(netstring, (name, left, since_text, text)))

        for name, entry in list(members.items()):
            found = _ENTRY.fullmatch(entry)
            ends_ms = int(found[1]) if found else 0
            if found is None or not now_ms < ends_ms <= now_ms + MAX_ENTRY_MS:
                del members[name]
                self._is_full = False
                changed |= name != holder
            elif name != holder:
                reply += listed(name, ends_ms, found[2], found[3])
            else:
                was_there = b"1"
                changed |= lasts_ms == 0 or found[3] != description
        if lasts_ms == 0:
            members.pop(holder, None)
            self._is_full = False
        elif self._is_full:
            return OOM
        else:
            changed |= was_there == b"0"
            since_text = b"%d" % (int(since) or now_ms)
            members[holder] = b"%d %s %s" % (now_ms + lasts_ms, since_text, description)
            reply += listed(holder, now_ms + lasts_ms, since_text, description)
        number, plan, is_new = self._plan(plan_key, proposed, last_ms + 1000)
        if members:
            self._store.put_until(key, members, last_ms + 1000)
        else:
            self._store.delete(key)
        if changed or is_new:
            self._publish(channel, netstring(b"/"))
        told = plan if number not in (0, int(known)) else b""
        head = (b"%d" % now_ms, was_there, b"%d" % number, told)
        return b"".join(map(netstring, head)) + reply

    def _plan(self, key: bytes, proposed: bytes, ends_ms: int) -> tuple[int, bytes, bool]:
        """Keep the newer plan.

        Returns:
            Its number, 0 where there is none, its text, and whether it is the proposed one.
        """
        kept = self._store.get(key)
        text = kept if isinstance(kept, bytes) and len(kept) <= MAX_PLAN_BYTES else b""
        is_new = _plan_number(proposed) > _plan_number(text)
        if is_new:
            text = proposed
        number = _plan_number(text)
        if number:
            self._store.put_until(key, text, ends_ms)
        return number, text.partition(b" ")[2], is_new

    # ---- fenced writes

    def fence(self, keys: Sequence[bytes], words: Sequence[bytes]) -> Reply:
        """Make each write whose epoch is not lower than the newest of its election.

        The body is that of `Fence.set` and `Fence.hset`.
        """
        outcomes: list[Reply] = []
        keys, words = list(keys), list(words)
        while keys:
            epoch, key_count, word_count = int(words[0]), int(words[1]), int(words[2])
            taken, given = keys[: 2 + key_count], words[3 : 3 + word_count]
            del keys[: 2 + key_count], words[: 3 + word_count]
            outcomes.append(self._write(taken, given, epoch))
        return outcomes

    def _write(self, keys: Sequence[bytes], words: Sequence[bytes], epoch: int) -> Reply:
        epoch_key, fence_key, *body_keys = keys
        counter, fence = self._epoch_of(epoch_key), self._epoch_of(fence_key)
        for found in (counter, fence):
            if isinstance(found, Refusal):
                return [-1, found.text.encode()]
        assert isinstance(counter, int)
        assert isinstance(fence, int)
        newest = max(counter, fence)
        if epoch < newest:
            if counter < newest and not self._is_full:
                self._store.put(epoch_key, b"%d" % newest)
            return [0, newest]
        for key, last in ((fence_key, fence), (epoch_key, counter)):
            if last < epoch:
                if self._is_full:
                    return [-1, OOM.text.encode()]
                self._store.put(key, b"%d" % epoch)
        reply = self._command(body_keys, words)
        return [-1, reply.text.encode()] if isinstance(reply, Refusal) else [1, reply]

    def _epoch_of(self, key: bytes) -> int | Refusal:
        value = self._store.get(key)
        if value is None:
            return -1
        if isinstance(value, Refusal):
            return value
        if not _INTEGER.fullmatch(value):
            return Refusal("ERR the epoch is not an integer")
        if int(value) > LARGEST_EPOCH:
            return Refusal("ERR the epoch is beyond 2^53")
        return int(value)

    def _hash(self, key: bytes) -> dict[bytes, bytes] | Refusal:
        stored = self._store.find(key)
        if stored is None:
            return {}
        return dict(stored[0]) if isinstance(stored[0], dict) else WRONGTYPE

    def _command(self, keys: Sequence[bytes], words: Sequence[bytes]) -> Reply:
        (key,) = keys
        command, *rest = words
        if self._is_full:
            return OOM
        if command == b"SET" and len(rest) in {1, 3}:
            self._store.put(key, rest[0], int(rest[2]) if len(rest) == 3 else None)
            return b"OK"
        if command == b"HSET":
            old = self._hash(key)
            if isinstance(old, Refusal):
                return old
            new = dict(zip(rest[::2], rest[1::2], strict=True))
            stored = self._store.find(key)
            self._store.put_until(key, old | new, None if stored is None else stored[1])
            return len(new.keys() - old.keys())
        raise NotImplementedError(f"the model of Redis makes no fenced {command.decode()}")


def _plan_number(plan: bytes) -> int:
    digits, space, _ = plan.partition(b" ")
    return int(digits) if space and digits.isdigit() and len(digits) <= 15 else 0
