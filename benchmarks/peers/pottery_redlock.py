"""pottery's `Redlock`, on one server: one object and one round trip a lease."""

from __future__ import annotations

import importlib.metadata

import pottery
import redis


class Peer:
    """Leases that are locks of pottery's."""

    name = "pottery Redlock"
    library = "pottery"
    one_by_one = True
    version = importlib.metadata.version("pottery")

    def prepare(self, url: str, prefix: str, leases: int, ttl: float) -> None:
        """Take the leases."""
        self._client = redis.Redis.from_url(url)
        self._locks = [
            pottery.Redlock(
                key=f"{prefix}:election-{n:07d}",
                masters={self._client},
                auto_release_time=ttl,
                # pottery refuses to extend a lock more often than this.
                num_extensions=1_000_000_000,
            )
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
