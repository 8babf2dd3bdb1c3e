"""Both consumers behind one face, and what their tests put in and look for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import redis

from multielect import MultielectError
from multielect.streams import AsyncStreamConsumer, Batch, StreamConsumer

PREFIX = "test-streams"
KEYS = [f"s{number}" for number in range(8)]
LONG_S = 20.0

Handler = Callable[[Batch[Any]], None]


class Consumer(Protocol):
    """What the tests need of either consumer."""

    errors: list[MultielectError]

    def stop(self, timeout: float | None = None) -> None: ...
    def add(self, key: str) -> None: ...
    def remove(self, key: str) -> None: ...
    def keys(self) -> set[str]: ...
    def holder(self) -> str: ...
    def loads(self) -> int: ...
    def lag(self) -> Mapping[str, Any]: ...
    def resume(self, key: str) -> bool: ...
    def in_hand(self) -> int: ...


class Threads:
    """The consumer of threads."""

    def __init__(self, url: str, handler: Handler, settings: dict[str, Any]) -> None:
        self.errors: list[MultielectError] = []
        self.consumer = StreamConsumer(
            url, handler=handler, on_error=self.errors.append, **settings
        )
        self.consumer.start()

    def stop(self, timeout: float | None = None) -> None:
        self.consumer.stop(timeout)

    def add(self, key: str) -> None:
        self.consumer.add(key)

    def remove(self, key: str) -> None:
        self.consumer.remove(key)

    def keys(self) -> set[str]:
        return set(self.consumer.partitions)

    def holder(self) -> str:
        return self.consumer.group.holder

    def loads(self) -> int:
        return len(self.consumer.group.led)

    def lag(self) -> Mapping[str, Any]:
        return self.consumer.lag()

    def resume(self, key: str) -> bool:
        return self.consumer.resume(key)

    def in_hand(self) -> int:
        return self.consumer.in_hand


class Loop:
    """The consumer of asyncio, in a loop on a thread of its own."""

    def __init__(self, url: str, handler: Handler, settings: dict[str, Any]) -> None:
        self.errors: list[MultielectError] = []
        self._loop = asyncio.new_event_loop()
        # As many as handlers of these tests block at once.
        self._executor = ThreadPoolExecutor(64)
        self._loop.set_default_executor(self._executor)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def handle(batch: Batch[Any]) -> None:
            # Handlers of these tests block, and a loop must not.
            await asyncio.to_thread(handler, batch)

        async def start() -> AsyncStreamConsumer:
            consumer = AsyncStreamConsumer(
                url, handler=handle, on_error=self.errors.append, **settings
            )
            await consumer.start()
            return consumer

        self.consumer = self._run(start())
        self._is_over = False

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LONG_S)

    def stop(self, timeout: float | None = None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._run(self.consumer.stop(timeout))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._executor.shutdown(wait=False)

    def add(self, key: str) -> None:
        async def add() -> None:
            self.consumer.add(key)

        self._run(add())

    def remove(self, key: str) -> None:
        async def remove() -> None:
            self.consumer.remove(key)

        self._run(remove())

    def keys(self) -> set[str]:
        return set(self.consumer.partitions)

    def holder(self) -> str:
        return str(self.consumer.group.holder)

    def loads(self) -> int:
        return len(self.consumer.group.led)

    def lag(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._run(self.consumer.lag())
        return found

    def resume(self, key: str) -> bool:
        async def resume() -> bool:
            return bool(self.consumer.resume(key))

        return bool(self._run(resume()))

    def in_hand(self) -> int:
        return int(self.consumer.in_hand)


class Work:
    """A handler that stages what it saw, beside the checkpoint, and remembers it."""

    def __init__(self, name: str = "work") -> None:
        self.name = name
        self.seen: dict[str, list[int]] = {}

    def __call__(self, batch: Batch[Any]) -> None:
        for entry in batch.entries:
            number = int(entry.fields[b"n"])
            self.seen.setdefault(batch.key, []).append(number)
            batch.xadd(f"out:{batch.key}", {"n": number, "epoch": batch.epoch, "by": self.name})


def append(client: redis.Redis, count: int, *, first: int = 0, keys: list[str] = KEYS) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(first, first + count):
        for key in keys:
            pipeline.xadd(key, {"n": number})
    pipeline.execute()


def written(client: Any, key: str) -> list[tuple[int, int]]:
    """What was staged for a partition and made: number and epoch, in order."""
    return [(int(f[b"n"]), int(f[b"epoch"])) for _, f in client.xrange(f"out:{key}")]


def done(client: redis.Redis, count: int, keys: list[str] = KEYS) -> bool:
    return all(client.xlen(f"out:{key}") >= count for key in keys)


def check_whole(client: redis.Redis, count: int, keys: list[str] = KEYS) -> None:
    """Nothing lost, doubled or out of order, and no older epoch after a newer one."""
    for key in keys:
        found = written(client, key)
        assert [number for number, _ in found] == list(range(count)), key
        epochs = [epoch for _, epoch in found]
        assert epochs == sorted(epochs), key


class Begin(Protocol):
    """Starts a consumer."""

    def __call__(self, handler: Handler, **settings: Any) -> Consumer: ...
