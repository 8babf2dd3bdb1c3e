"""Real servers for the tests that need one.

Rules of this file:
    * A test that takes `server` runs once on every kind of server that is installed, and is
      skipped, with the reason, for a kind that is not.
    * The shared servers are flushed before each test that uses them. A test that stops, kills
      or configures its server takes `private_server`.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import redis
from tests.rights import Clerk

from multielect.embedded import EmbeddedServer, bundled_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

BINARIES = {
    "valkey": bundled_binary() or shutil.which("valkey-server"),
    "redis": shutil.which("redis-server"),
}


@pytest.fixture(scope="session", params=sorted(BINARIES))
def binary(request: pytest.FixtureRequest) -> str:
    """The server program of this kind."""
    path = BINARIES[request.param]
    if path is None:
        pytest.skip(f"no {request.param}-server is installed")
    return path


@pytest.fixture(scope="session")
def server(binary: str) -> Iterator[EmbeddedServer]:
    """A running server, shared by all tests of the session."""
    with EmbeddedServer(binary=binary) as running:
        yield running


@pytest.fixture
def redis_client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the shared server, which holds no keys and no scripts yet."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.script_flush()
        yield client


@pytest.fixture
def redis_url(server: EmbeddedServer, redis_client: redis.Redis) -> str:
    """The address of the shared server, which holds no keys and no scripts yet."""
    return server.url


@pytest.fixture
def clerk(server: EmbeddedServer, redis_client: redis.Redis) -> Iterator[Clerk]:
    """A user of the shared server who may do nothing yet."""
    user = Clerk(server, redis_client)
    yield user
    user.dismiss()


@pytest.fixture
def private_server(binary: str) -> Iterator[EmbeddedServer]:
    """A running server that the test may stop, kill and start again."""
    with EmbeddedServer(binary=binary) as running:
        yield running
