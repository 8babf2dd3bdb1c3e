"""Promise 9: a forked child owns nothing and shares no socket, and its parent does not notice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from .lease import LAYOUT, PREFIX

PROGRAM = Path(__file__).with_name("forking.py")
COUNT = 500
TTLS = 2


@contextmanager
def forking(url: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), url, PREFIX],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def asked(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    return told(process)


def test_a_forked_child_owns_nothing_and_hurts_nothing(
    redis_url: str, redis_client: redis.Redis
) -> None:
    client: Any = redis_client

    def connections() -> list[str]:
        return [each["id"] for each in client.client_list(_type="pubsub")]

    with forking(redis_url) as process:
        assert told(process)["what"] == "leading"
        before = connections()
        assert len(before) == 1
        child = asked(process)
        assert child["what"] == "child"
        assert child["leading"] == 0
        assert child["remaining"] == 0.0
        assert child["outcomes"] == {
            **dict.fromkeys(
                ("start", "add", "add_many", "remove", "resign", "campaign", "wait"), "ClosedError"
            ),
            **dict.fromkeys(("getitem", "iter", "leader_id", "counters"), "ClosedError"),
            "owned": "[]",
            "len": str(COUNT),
            "repr": "True",
            **dict.fromkeys(("stop", "stop again", "leave"), "None"),
        }
        parent = told(process)
        assert parent == {"what": "parent", "child": 0}
        assert connections() == before

        # The same connection goes on to refresh the same terms, for longer than any lease lasts.
        kept = asked(process)
        until_refreshes = kept["refreshes"] + 3 * TTLS * COUNT
        while kept["refreshes"] < until_refreshes:
            kept = asked(process)
            assert kept["same"]
        assert (kept["reconnects"], kept["demoted"]) == (0, 0)
        assert connections() == before
        leaders = [LAYOUT.leader_key(f"k{number}".encode()) for number in range(COUNT)]
        assert client.exists(*leaders) == COUNT
        assert process.stdin is not None
        process.stdin.close()
        assert told(process)["what"] == "stopped"
        assert client.exists(*leaders) == 0
