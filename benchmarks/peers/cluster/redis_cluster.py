"""redis-py's cluster client: one script for each lease, which compares the holder, in turn.

Its pipelines take no EVALSHA, so each lease takes a round trip.
"""

from __future__ import annotations

import redis

SCRIPT = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""


class Peer:
    """Leases that a cluster client extends one after another."""

    name = "redis-py RedisCluster"
    library = "redis"
    one_by_one = True
    version = redis.__version__

    def prepare(self, url: str, prefix: str, leases: int, ttl: float) -> None:
        """Take the leases."""
        self._client = redis.RedisCluster.from_url(url)
        self._holder = b"node-0123456789ab/0123456789abcdef"
        self._ttl_ms = round(ttl * 1000)
        self._sha = self._client.script_load(SCRIPT)
        self._keys = [f"{prefix}:{{{n % 256}}}:election-{n:07d}:leader" for n in range(leases)]
        for key in self._keys:
            self._client.set(key, self._holder, px=self._ttl_ms)

    def refresh(self) -> None:
        """Extend each lease once."""
        for key in self._keys:
            if not self._client.evalsha(self._sha, 1, key, self._holder, self._ttl_ms):
                raise RuntimeError("a lease was lost")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
