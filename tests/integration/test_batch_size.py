"""Promise 8: a script serves at most 250 keys, and a tick takes as few scripts as that allows."""

from __future__ import annotations

import redis
from tests.diary import until

from multielect._protocol.keys import KeyLayout

from .conftest import Stand
from .lease import LAYOUT
from .proxy import Command, Proxy, script_keys

MAX_KEYS = 250
COUNT = 600


def names(layout: KeyLayout, keys: list[str]) -> set[bytes]:
    return {layout.leader_key(key.encode()) for key in keys}


def served(commands: list[Command], *, keys_each: int) -> list[bytes]:
    """Return the leader keys that scripts were given, having checked how many a script."""
    leaders: list[bytes] = []
    for command in commands:
        keys = script_keys(command)
        assert 0 < len(keys) <= MAX_KEYS
        leaders += keys[::keys_each]
    return leaders


def test_no_script_serves_more_than_250_keys(
    proxy: Proxy, redis_client: redis.Redis, stand: Stand
) -> None:
    keys = [f"k{n}" for n in range(COUNT)]
    group, _ = stand(proxy.url, *keys, ttl=1.5)
    until(lambda: len(group.led) == COUNT)
    acquires = proxy.scripts("acquire")
    assert sorted(served(acquires, keys_each=2)) == sorted(names(LAYOUT, keys))
    assert len(acquires) <= COUNT * 2 / MAX_KEYS + 1

    until(lambda: group.counters.refreshes >= 3 * COUNT)
    group.stop()
    refreshes = proxy.scripts("refresh")
    refreshed = served(refreshes, keys_each=1)
    assert set(refreshed) == names(LAYOUT, keys)
    # Full batches, but for the last few of each third of the TTL.
    assert len(refreshes) <= 3 * len(refreshed) / MAX_KEYS

    releases = proxy.scripts("release")
    assert sorted(served(releases, keys_each=2)) == sorted(names(LAYOUT, keys))
    assert len(releases) <= COUNT * 2 / MAX_KEYS + 1
    assert redis_client.exists(*names(LAYOUT, keys)) == 0
