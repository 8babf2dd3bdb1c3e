"""redis-py's asyncio, batched: script and pipeline of `redis_pipeline`, in an event loop."""

from __future__ import annotations

import asyncio

import redis
import redis.asyncio

SCRIPT = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
CHUNK = 10_000


class Peer:
    """Leases that a pipeline in an event loop extends."""

    name = "redis-py asyncio pipeline"
    library = "redis"
    one_by_one = False
    version = redis.__version__

    def prepare(self, url: str, prefix: str, leases: int, ttl: float) -> None:
        """Take the leases."""
        self._loop = asyncio.new_event_loop()
        self._client = redis.asyncio.Redis.from_url(url)
        self._holder = b"node-0123456789ab/0123456789abcdef"
        self._ttl_ms = round(ttl * 1000)
        self._keys = [f"{prefix}:{{{n % 256}}}:election-{n:07d}:leader" for n in range(leases)]
        self._loop.run_until_complete(self._take())

    async def _take(self) -> None:
        self._sha = await self._client.script_load(SCRIPT)
        for first in range(0, len(self._keys), CHUNK):
            pipeline = self._client.pipeline(transaction=False)
            for key in self._keys[first : first + CHUNK]:
                pipeline.set(key, self._holder, px=self._ttl_ms)
            await pipeline.execute()

    def refresh(self) -> None:
        """Extend each lease once."""
        self._loop.run_until_complete(self._extend())

    async def _extend(self) -> None:
        for first in range(0, len(self._keys), CHUNK):
            pipeline = self._client.pipeline(transaction=False)
            for key in self._keys[first : first + CHUNK]:
                pipeline.evalsha(self._sha, 1, key, self._holder, str(self._ttl_ms))
            if not all(await pipeline.execute()):
                raise RuntimeError("a lease was lost")

    def close(self) -> None:
        """Close the connection and the loop."""
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()
