"""The data of the model of Redis: keys that expire, a wall clock that can be set, a history.

Rules of this file:
    * A key expires by the wall clock. The wall clock runs with the server's clock, and the test
      may set it forward and back.
    * Time stands still while a script runs.
    * The writes of the last seconds can be undone, as by a failover to a replica that lacks them.
      They are kept for `REMEMBERED_NS`, and only if `remembers` is set.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, TypeAlias

from .._runtime.clock import Clock
from ._resp import Refusal

WALL_CLOCK_AHEAD_MS = 1_700_000_000_000
REMEMBERED_NS = 10_000_000_000
WRONGTYPE = Refusal("WRONGTYPE Operation against a key holding the wrong kind of value")

Value: TypeAlias = "bytes | list[bytes] | dict[bytes, bytes]"

_MS = 1_000_000


Stored: TypeAlias = "tuple[Value, int | None]"
"""A value, and when it expires by the wall clock; None for never."""


class _Before(NamedTuple):
    """The value of a key before a write."""

    at_ns: int
    key: bytes
    stored: Stored | None


class Store:
    """The one database of a server.

    Args:
        clock: the clock with which its wall clock runs.

    Attributes:
        remembers: whether writes can be undone.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.remembers = False
        self._still_ms: int | None = None
        self._ahead_ns = WALL_CLOCK_AHEAD_MS * _MS
        self._stored: dict[bytes, Stored] = {}
        self._before: deque[_Before] = deque()

    # ---- time

    def now_ms(self) -> int:
        """Return the server's wall clock."""
        if self._still_ms is not None:
            return self._still_ms
        return (self._ahead_ns + self.clock.now_ns()) // _MS

    def step_clock(self, step_ns: int) -> None:
        """Set the wall clock forward, or back if `step_ns` is negative."""
        self._ahead_ns += step_ns

    def stand_still(self) -> None:
        """Let the wall clock stand still until `go_on`, for a script."""
        self._still_ms = self.now_ms()

    def go_on(self) -> None:
        """Let the wall clock go on."""
        self._still_ms = None

    # ---- keys

    def find(self, key: bytes) -> Stored | None:
        """Return the value of a key, unless the key has expired."""
        stored = self._stored.get(key)
        if stored is not None and stored[1] is not None and stored[1] <= self.now_ms():
            self._put(key, None)
            return None
        return stored

    def get(self, key: bytes) -> bytes | Refusal | None:
        """Return a string, as GET does."""
        stored = self.find(key)
        if stored is None:
            return None
        return stored[0] if isinstance(stored[0], bytes) else WRONGTYPE

    def put(self, key: bytes, value: Value, ttl_ms: int | None = None) -> None:
        """Store a value, which expires after `ttl_ms` if given."""
        self._put(key, (value, None if ttl_ms is None else self.now_ms() + ttl_ms))

    def put_until(self, key: bytes, value: Value, ends_ms: int | None) -> None:
        """Store a value, which expires at `ends_ms` by the wall clock."""
        self._put(key, (value, ends_ms))

    def delete(self, key: bytes) -> bool:
        """Delete a key, as DEL does."""
        if self.find(key) is None:
            return False
        self._put(key, None)
        return True

    def remaining_ms(self, key: bytes) -> int:
        """Return the remaining time of a key, as PTTL does."""
        stored = self.find(key)
        if stored is None:
            return -2
        return -1 if stored[1] is None else stored[1] - self.now_ms()

    def copy_lasting(self, other: Store) -> None:
        """Copy another store's wall clock, and its keys that have no expiry."""
        self._ahead_ns = other._ahead_ns
        self._stored = {key: kept for key, kept in other._stored.items() if kept[1] is None}

    def dump(self) -> dict[bytes, Value]:
        """Return the value of every key."""
        found = {}
        for key in list(self._stored):
            stored = self.find(key)
            if stored is not None:
                found[key] = stored[0]
        return found

    # ---- faults

    def clear(self) -> None:
        """Delete everything, as FLUSHALL and a restart without data do."""
        self._stored.clear()
        self._before.clear()

    def forget(self, span_ns: int) -> int:
        """Undo the writes of the last `span_ns`. Returns how many."""
        since_ns = self.clock.now_ns() - span_ns
        count = 0
        while self._before and self._before[-1].at_ns > since_ns:
            _, key, stored = self._before.pop()
            count += 1
            if stored is None:
                self._stored.pop(key, None)
            else:
                self._stored[key] = stored
        return count

    def _put(self, key: bytes, stored: Stored | None) -> None:
        if self.remembers:
            self._remember(key)
        if stored is None:
            self._stored.pop(key, None)
        else:
            self._stored[key] = stored

    def _remember(self, key: bytes) -> None:
        now_ns = self.clock.now_ns()
        while self._before and self._before[0].at_ns < now_ns - REMEMBERED_NS:
            self._before.popleft()
        self._before.append(_Before(now_ns, key, self._stored.get(key)))
