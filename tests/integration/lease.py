"""What the server holds of one election of the tests' group, read by a client of the test's own."""

from __future__ import annotations

from typing import Any

import redis

from multielect._protocol.keys import KeyLayout, group_layout

PREFIX = "it"
LAYOUT = group_layout(PREFIX)

# The oldest server has no PEXPIRETIME. Within one millisecond these two tell the same.
ENDS_MS = """
local function now_ms()
  local clock = redis.call('TIME')
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end
local before_ms, remaining_ms
repeat
  before_ms, remaining_ms = now_ms(), redis.call('PTTL', KEYS[1])
until now_ms() == before_ms
return remaining_ms < 0 and remaining_ms or before_ms + remaining_ms
"""


class Lease:
    """The leader key and the epoch key of one election."""

    def __init__(self, client: redis.Redis, key: str = "k", layout: KeyLayout = LAYOUT) -> None:
        # redis-py's types make no difference between its clients for threads and asyncio.
        self._client: Any = client
        self.leader_key = layout.leader_key(key.encode())
        self.epoch_key = layout.epoch_key(key.encode())

    @property
    def holder(self) -> bytes | None:
        """The value of the leader key, or None while there is no lease."""
        value: bytes | None = self._client.get(self.leader_key)
        return value

    @property
    def is_held(self) -> bool:
        """Whether there is a leader key, of any type."""
        return bool(self._client.exists(self.leader_key))

    @property
    def ends_ms(self) -> int:
        """When the lease ends, by the server's clock: it changes with each refresh.

        Negative without an end (-1) or a lease (-2).
        """
        return int(self._client.eval(ENDS_MS, 1, self.leader_key))

    @property
    def epoch(self) -> int:
        """The epoch granted last, or 0."""
        return int(self._client.get(self.epoch_key) or 0)

    def delete(self) -> None:
        """End the lease as nobody should."""
        self._client.delete(self.leader_key)

    def overwrite(self, holder: str, px: int | None = None) -> None:
        """Put another holder in the place of whoever is there."""
        self._client.set(self.leader_key, holder, px=px)
