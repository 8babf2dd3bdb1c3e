"""redis-py's `Lock`: one object and one round trip a lease."""

from __future__ import annotations

import redis
from redis.lock import Lock


class Peer:
    """Leases that are locks of redis-py's."""

    name = "redis-py Lock"
    library = "redis"
    one_by_one = True
    version = redis.__version__

    def prepare(self, url: str, prefix: str, leases: int, ttl: float) -> None:
        """Take the leases."""
        self._client = redis.Redis.from_url(url)
        self._locks = [
            Lock(self._client, f"{prefix}:election-{n:07d}", timeout=ttl) for n in range(leases)
        ]
        for lock in self._locks:
            if not lock.acquire(blocking=False):
                raise RuntimeError("a lease was taken")

    def refresh(self) -> None:
        """Extend each lease once. Raises an exception if one is lost."""
        for lock in self._locks:
            lock.reacquire()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
