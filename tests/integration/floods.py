"""What is logged while something goes wrong for thousands of elections at once.

    python -m tests.integration.floods --seconds 20

Rules of this file:
    * The servers are real ones. All that is logged from the start to the end of the stop counts.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable

import redis
from tests.diary import until

from multielect import ElectionGroup, Term
from multielect._protocol.keys import group_layout
from multielect.embedded import EmbeddedServer

from .outage import Lines

ELECTIONS = 4_000
PREFIX = "flood"
KEYS = [f"k{number}" for number in range(ELECTIONS)]
WITHIN_S = 60.0


def full(admin: redis.Redis) -> None:
    """Have the server answer OOM."""
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", "1")


def without_replicas(admin: redis.Redis) -> None:
    """Have the server answer NOREPLICAS."""
    admin.config_set("min-replicas-to-write", "1")


def forbidding(admin: redis.Redis) -> None:
    """Have the server answer NOPERM."""
    admin.execute_command("ACL SETUSER default -set")  # type: ignore[no-untyped-call]


def taken(admin: redis.Redis) -> None:
    """Have the server answer WRONGTYPE for every election."""
    layout = group_layout(PREFIX)
    with admin.pipeline() as pipeline:
        for key in KEYS:
            pipeline.rpush(layout.epoch_key(key.encode()), "an element")
        pipeline.execute()


REFUSALS = {
    "OOM": full,
    "NOREPLICAS": without_replicas,
    "NOPERM": forbidding,
    "WRONGTYPE": taken,
}


def log_of_a_refusal(
    server: EmbeddedServer, refuse: Callable[[redis.Redis], None], seconds: float
) -> Lines:
    """Return what is logged while a server refuses everything."""
    lines = Lines()
    with redis.Redis.from_url(server.url) as admin:
        refuse(admin)
    group = ElectionGroup(server.url, prefix=PREFIX, ttl=1.0, logger=lines.logger("flood"))
    group.add_many(KEYS)
    with group:
        time.sleep(seconds)
        assert not group.led
    return lines


def log_of_failing_callbacks(server: EmbeddedServer) -> Lines:
    """Return what is logged while every callback fails."""
    lines = Lines()
    failed = threading.Semaphore(0)

    def fail(term: Term) -> None:
        failed.release()
        raise ValueError(term.key)

    group = ElectionGroup(
        server.url, prefix=PREFIX, ttl=10.0, on_elected=fail, logger=lines.logger("flood")
    )
    group.add_many(KEYS)
    with group:
        for _ in KEYS:
            assert failed.acquire(timeout=WITHIN_S)
    return lines


def log_of_an_absent_server(groups: int, seconds: float) -> Lines:
    """Return what groups log whose server was never there."""
    lines = Lines()
    logger = lines.logger("flood")
    made = [
        ElectionGroup("redis://127.0.0.1:1", prefix=f"flood-{number}", ttl=10.0, logger=logger)
        for number in range(groups)
    ]
    try:
        for group in made:
            group.start()
        time.sleep(seconds)
        until(lambda: len(lines.lines) > 0)
    finally:
        for group in made:
            group.stop()
    return lines


def main() -> None:
    """Print how many lines there are of each."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds: float = parser.parse_args().seconds
    found: dict[str, Lines] = {}
    for name, refuse in REFUSALS.items():
        with EmbeddedServer() as server:
            found[name] = log_of_a_refusal(server, refuse, seconds)
    with EmbeddedServer() as server:
        found["failing callbacks"] = log_of_failing_callbacks(server)
    found["100 groups, absent server"] = log_of_an_absent_server(100, seconds)
    for name, lines in found.items():
        print(f"== {name}: {len(lines.lines)} lines, {lines.tracebacks} of them with a traceback")  # noqa: T201
        for at_s, level, text in lines.lines[:40]:
            print(f"{at_s:8.3f} {level:<7} {text}")  # noqa: T201


if __name__ == "__main__":
    main()
