"""Consumers of either kind, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .rig import KEYS, PREFIX, Begin, Consumer, Handler, Loop, Threads


@pytest.fixture(params=[Threads, Loop], ids=["threads", "asyncio"])
def begin(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Begin]:
    """Start consumers of either kind; they are stopped when the test ends."""
    started: list[Consumer] = []

    def start(handler: Handler, **settings: Any) -> Consumer:
        given = {"prefix": PREFIX, "partitions": KEYS, "ttl": 1.0, "balance": True, **settings}
        url = given.pop("url", redis_url)
        consumer: Consumer = request.param(url, handler, given)
        started.append(consumer)
        return consumer

    yield start
    for consumer in started:
        consumer.stop()
