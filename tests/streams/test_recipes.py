"""The programs of docs/streams.md and the README, run as they stand there.

Only the address of the server is put in. Each is a process of its own, ended by SIGTERM.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from tests.diary import WITHIN_S, until
from tests.recipes import README, STREAMS, recipes

ADDRESS = "redis://localhost:6379/0"
STREAM = "orders:7"


@contextlib.contextmanager
def running(program: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block is left, on this server instead of the one it names."""
    assert program.count(ADDRESS) == 1
    code = program.replace(ADDRESS, url)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code], stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def order(client: redis.Redis, first: int, last: int) -> None:
    for number in range(first, last):
        client.xadd(STREAM, {"order": f"o{number}", "amount": number})


def paid(client: redis.Redis) -> list[bytes]:
    entries: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange("paid")  # type: ignore[assignment]
    assert all(fields[b"partition"] == STREAM.encode() for _, fields in entries)
    return [fields[b"order"] for _, fields in entries]


def billed(client: redis.Redis) -> list[bytes]:
    found: dict[bytes, bytes] = client.hgetall("billed")  # type: ignore[assignment]
    assert all(int(epoch) > 0 for epoch in found.values())
    return sorted(found, key=lambda name: int(name[1:]))


def last(client: redis.Redis) -> list[bytes]:
    amount: bytes | None = client.hget(f"last:{STREAM}", "amount")  # type: ignore[assignment]
    return [] if amount is None else [b"o%d" % number for number in range(int(amount) + 1)]


@pytest.mark.parametrize(
    ("page", "name", "outcome"),
    [(STREAMS, "orders-paid", paid), (STREAMS, "orders-billed", billed), (README, "streams", last)],
    ids=["docs-threads", "docs-asyncio", "readme"],
)
def test_the_program_on_the_page_does_what_it_says(
    page: Path,
    name: str,
    outcome: Callable[[redis.Redis], list[bytes]],
    redis_url: str,
    redis_client: redis.Redis,
) -> None:
    order(redis_client, 0, 10)
    with running(recipes("python", page)[name], redis_url) as process:
        until(lambda: len(outcome(redis_client)) == 10)
        order(redis_client, 10, 20)
        until(lambda: len(outcome(redis_client)) == 20)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=WITHIN_S)
        assert process.returncode == 0, said
    assert outcome(redis_client) == [b"o%d" % number for number in range(20)]
    assert not redis_client.keys("*:leader"), "it did not release what it led"


def test_every_program_of_the_page_is_run() -> None:
    assert set(recipes("python", STREAMS)) == {"orders-paid", "orders-billed"}
    assert STREAMS.read_text("utf-8").count("```python") == 2
    assert set(recipes("python", README)) == {"streams"}
