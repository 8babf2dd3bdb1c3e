"""Scripts of up to 100 leases of one slot, each sent when the one before is answered.

So does Redisson, in Java: its watchdog renews up to 100 locks of a slot by one EVAL. This is not
Redisson, but its way, by redis-py.
"""

from __future__ import annotations

from collections import defaultdict

import redis

SCRIPT = """
local extended = 0
for _, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[1] then
        extended = extended + redis.call('PEXPIRE', key, ARGV[2])
    end
end
return extended
"""
LEASES_A_SCRIPT = 100


class Peer:
    """Leases that scripts of one slot extend, one script after another."""

    name = "scripts of 100, in turn"
    library = "redis"
    one_by_one = False
    version = redis.__version__

    def prepare(self, url: str, prefix: str, leases: int, ttl: float) -> None:
        """Take the leases."""
        self._client = redis.RedisCluster.from_url(url)
        self._holder = b"node-0123456789ab/0123456789abcdef"
        self._ttl_ms = round(ttl * 1000)
        by_slot: dict[int, list[str]] = defaultdict(list)
        pipeline = self._client.pipeline()  # type: ignore[no-untyped-call]
        for number in range(leases):
            key = f"{prefix}:{{{number % 256}}}:election-{number:07d}:leader"
            by_slot[number % 256].append(key)
            pipeline.set(key, self._holder, px=self._ttl_ms)
        pipeline.execute()
        self._scripts = [
            keys[first : first + LEASES_A_SCRIPT]
            for keys in by_slot.values()
            for first in range(0, len(keys), LEASES_A_SCRIPT)
        ]

    def refresh(self) -> None:
        """Extend each lease once."""
        for keys in self._scripts:
            extended = self._client.eval(SCRIPT, len(keys), *keys, self._holder, self._ttl_ms)
            if extended != len(keys):
                raise RuntimeError("a lease was lost")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
