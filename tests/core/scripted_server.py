"""A server for one core, in memory and in bytes: it answers what the core sends.

Rules of this file:
    * It does what the three scripts mean, on the clock that the test moves.
    * It holds the core to the protocol: bytes that are no batch fail the test at once.
    * A rival takes leases in its name where a test says so.
"""

from __future__ import annotations

from multielect._clock import Clock
from multielect._scripts import WITH_FLAGS

MS = 1_000_000
_REQUESTS = {
    text: name for name, script in vars(WITH_FLAGS).items() for text in (script.body, script.sha)
}


class ScriptedServer:
    """Leases and epochs, and how often each script was asked for."""

    def __init__(self, clock: Clock) -> None:
        self.leases: dict[bytes, tuple[bytes, int]] = {}
        self.epochs: dict[bytes, int] = {}
        self.asked = {"acquire": 0, "refresh": 0, "release": 0}
        self._clock = clock
        self._unread = b""

    def holder(self, leader_key: bytes) -> bytes | None:
        """Return who holds a lease now."""
        holder, end_ns = self.leases.get(leader_key, (None, 0))
        return holder if end_ns > self._clock.now_ns() else None

    def take(self, leader_key: bytes, holder: bytes, ttl_ms: int) -> None:
        """Give a lease to somebody, whoever holds it."""
        self.leases[leader_key] = (holder, self._clock.now_ns() + ttl_ms * MS)

    def answer(self, data: bytes) -> bytes:
        """Return the replies to the batches that are whole."""
        self._unread += data
        replies = []
        while (words := self._next_command()) is not None:
            command, script, count, *rest = words
            assert command in {b"EVAL", b"EVALSHA"}
            request = _REQUESTS[script]
            self.asked[request] += 1
            keys, arguments = rest[: int(count)], rest[int(count) :]
            replies.append(getattr(self, f"_{request}")(keys, *arguments))
        return b"".join(replies)

    def forget_unread(self) -> None:
        """Forget half a batch, as when its connection is lost."""
        self._unread = b""

    def _acquire(self, keys: list[bytes], holder: bytes, ttl_ms: bytes, *_: bytes) -> bytes:
        holders: list[bytes] = []
        outcomes = []
        for leader_key, epoch_key in zip(keys[::2], keys[1::2], strict=True):
            other = self.holder(leader_key)
            if other in {None, holder}:
                self.epochs[epoch_key] = self.epochs.get(epoch_key, 0) + 1
                self.take(leader_key, holder, int(ttl_ms))
                outcomes.append(self.epochs[epoch_key])
                continue
            assert other is not None
            if other not in holders:
                holders.append(other)
            left_ms = (self.leases[leader_key][1] - self._clock.now_ns()) // MS
            outcomes.append(-(left_ms * 256 + holders.index(other) + 1))
        names = b"".join(b"$%d\r\n%s\r\n" % (len(name), name) for name in holders)
        numbers = b"".join(b":%d\r\n" % outcome for outcome in outcomes)
        head = b"*%d\r\n%s*%d\r\n" % (2 + len(outcomes), self._time(), len(holders))
        return head + names + numbers

    def _refresh(self, keys: list[bytes], holder: bytes, ttl_ms: bytes) -> bytes:
        not_ours = []
        for place, leader_key in enumerate(keys, 1):
            if self.holder(leader_key) == holder:
                self.take(leader_key, holder, int(ttl_ms))
            else:
                not_ours.append(b":%d\r\n" % place)
        return b"*3\r\n%s*%d\r\n%s*0\r\n" % (self._time(), len(not_ours), b"".join(not_ours))

    def _release(self, keys: list[bytes], holder: bytes, _: bytes, *epochs: bytes) -> bytes:
        for leader_key, epoch_key, epoch in zip(keys[::2], keys[1::2], epochs, strict=True):
            if self.holder(leader_key) == holder and self.epochs[epoch_key] == int(epoch):
                del self.leases[leader_key]
        return b"*1\r\n" + self._time()

    def _time(self) -> bytes:
        return b":%d\r\n" % (self._clock.now_ns() // MS)

    def _next_command(self) -> list[bytes] | None:
        words: list[bytes] = []
        data, at = self._unread, 0
        if not data:
            return None
        assert data[:1] == b"*", data[:40]
        end = data.find(b"\r\n")
        if end < 0:
            return None
        count, at = int(data[1:end]), end + 2
        for _ in range(count):
            end = data.find(b"\r\n", at)
            if end < 0:
                return None
            assert data[at : at + 1] == b"$", data[at : at + 40]
            size, at = int(data[at + 1 : end]), end + 2
            if len(data) < at + size + 2:
                return None
            words.append(data[at : at + size])
            at += size + 2
        self._unread = data[at:]
        return words
