"""The programs of docs/workers.md, run as they stand there, and ended by SIGTERM.

Only the address of the server is put in.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import redis
from tests.diary import WITHIN_S, until
from tests.recipes import WORKERS, recipes

from multielect import ElectionGroup

ADDRESS = "redis://localhost:6379/0"
GIVES_AWAY = """
import signal, sys, threading

def take_the_signal():
    sys.stdin.read()
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Thread(target=take_the_signal, daemon=True).start()
"""
PROGRAMS = ["shards", "shards-asyncio"]


def test_every_program_of_the_page_is_run() -> None:
    assert sorted(recipes("python", WORKERS)) == PROGRAMS
    assert WORKERS.read_text("utf-8").count("```python") == len(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_sigterm_releases_all_leases_at_once(
    name: str, redis_url: str, redis_client: redis.Redis
) -> None:
    program = recipes("python", WORKERS)[name]
    assert program.count(ADDRESS) == 1
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", GIVES_AWAY + program.replace(ADDRESS, redis_url)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: len(redis_client.keys("shards:*:leader")) == 64)
        # Leases last 10 s: who takes over sooner was told of the release.
        with ElectionGroup(redis_url, prefix="shards", ttl=60.0) as successor:
            successor.add_many(f"shard-{number}" for number in range(64))
            until(lambda: successor.counters.checks >= 64)
            assert successor.led == []
            # The end of its input, for which another thread than the main thread takes the signal.
            _, said = process.communicate(timeout=WITHIN_S)
            assert process.returncode == 0, said
            assert said == ""
            holders = {redis_client.get(key) for key in redis_client.keys("shards:*:leader")}
            assert holders <= {successor.holder.encode()}
            until(lambda: len(successor.led) == 64)
            assert successor.counters.wakeups > 0
    finally:
        process.kill()
        process.communicate()
