"""Nodes and a wire for the tests on real servers; what a test starts here ends with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
import redis

from multielect import ElectionGroup
from multielect.embedded import EmbeddedServer

from .lease import PREFIX
from .liar import Liar
from .proxy import Proxy
from .record import Record


class Stand(Protocol):
    """Starts a group that stands for `keys`, and a record of what it tells."""

    def __call__(
        self, source: str | redis.Redis, *keys: str | bytes, **settings: Any
    ) -> tuple[ElectionGroup, Record]: ...


@pytest.fixture
def stand() -> Iterator[Stand]:
    """Start groups; they are stopped when the test ends."""
    started: list[ElectionGroup] = []

    def start(
        source: str | redis.Redis, *keys: str | bytes, **settings: Any
    ) -> tuple[ElectionGroup, Record]:
        record = Record()
        group = ElectionGroup(
            source,
            **{
                "prefix": PREFIX,
                "ttl": 1.0,
                "on_elected": record.elected,
                "on_demoted": record.demoted,
                "on_error": record.error,
                **settings,
            },
        )
        group.add_many(keys)
        started.append(group)
        group.start()
        return group, record

    yield start
    for group in started:
        group.stop(timeout=1.0)


@pytest.fixture
def proxy(server: EmbeddedServer, redis_client: redis.Redis) -> Iterator[Proxy]:
    """A wire to the shared server, which holds no keys and no scripts yet."""
    assert server.socket_path is not None
    with Proxy(server.socket_path) as wire:
        yield wire


@pytest.fixture(scope="session")
def backing() -> Iterator[EmbeddedServer]:
    """One real server, for tests of what does not come from it."""
    with EmbeddedServer() as running:
        yield running


@pytest.fixture
def liar(backing: EmbeddedServer) -> Iterator[Liar]:
    """A server that tells the truth, until it is told to lie."""
    assert backing.socket_path is not None
    with redis.Redis.from_url(backing.url) as client:
        client.flushall()
    with Liar(backing.socket_path) as lying:
        yield lying
