"""Elections held by hand, one script at a time, so that a test says who is elected and when."""

from __future__ import annotations

from typing import Any

import redis

from multielect._protocol.keys import KeyLayout, group_layout
from multielect._protocol.scripts import WITHOUT_FLAGS

PREFIX = "orders"
LAYOUT = group_layout(PREFIX)


def elect(
    client: Any, key: str = "p", *, epochs: str = "counter", layout: KeyLayout = LAYOUT
) -> int:
    """End whatever lease there is and take it, as a node does. Returns the epoch won."""
    raw = key.encode()
    client.delete(layout.leader_key(raw))
    keys = (layout.leader_key(raw), layout.epoch_key(raw))
    script = WITHOUT_FLAGS.acquire.body.decode()
    _, _, epoch = client.eval(script, 2, *keys, "node/1", 60_000, epochs)
    assert isinstance(epoch, int)
    assert epoch > 0
    return epoch


def wait_until_after(client: redis.Redis, epoch: int) -> None:
    """Ask for the server's time until it is past an epoch by time, a millisecond at most."""
    while True:
        seconds, microseconds = client.time()
        if seconds * 1000 + microseconds // 1000 > epoch:
            return


def counter(client: redis.Redis, key: str = "p") -> bytes | None:
    """The election's counter, as it is in Redis."""
    value = client.get(LAYOUT.epoch_key(key.encode()))
    assert not isinstance(value, str)
    return value


def lose_counter(client: redis.Redis, key: str = "p") -> None:
    """Evict the counter."""
    client.delete(LAYOUT.epoch_key(key.encode()))


def lose_fence(client: redis.Redis, key: str = "p") -> None:
    """Evict the newest epoch that wrote."""
    client.delete(LAYOUT.fence_key(key.encode()))
