"""python-redis-lock: one object and one round trip a lease."""

from __future__ import annotations

import importlib.metadata

import redis
import redis_lock


class Peer:
    """Leases that are locks of python-redis-lock's."""

    name = "python-redis-lock"
    library = "python-redis-lock"
    one_by_one = True
    version = importlib.metadata.version("python-redis-lock")

    def prepare(self, url: str, prefix: str, leases: int, ttl: float) -> None:
        """Take the leases."""
        self._client = redis.Redis.from_url(url)
        self._locks = [
            redis_lock.Lock(self._client, f"{prefix}:election-{n:07d}", expire=round(ttl))
            for n in range(leases)
        ]
        for lock in self._locks:
            if not lock.acquire(blocking=False):
                raise RuntimeError("a lease was taken")

    def refresh(self) -> None:
        """Extend each lease once. Raises an exception if one is lost."""
        for lock in self._locks:
            lock.extend()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
