"""A process that is frozen for two TTLs leads nothing when it goes on, and tells its ends first.

Rules of this file:
    * The process freezes itself by SIGSTOP. Its first instructions afterwards read `is_leader`
      of all its terms and elections, with its other threads held back as well as can be.
    * Terms are held against each other by the clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.diary import Diary, until

from multielect import ElectionGroup
from multielect._runtime.clock import Clock

PREFIX = "frozen"
LEASES = 1000
TTL_S = 1.0
ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, signal, sys
from multielect import ElectionGroup
from tests.diary import Diary, until
from tests.integration.candidate import others_behind

diary = Diary()
leases = int(sys.argv[2])
group = ElectionGroup(sys.argv[1], prefix="frozen", ttl=float(sys.argv[3]),
                      on_elected=diary.elected, on_demoted=diary.demoted)
elections = [group.add(f"election-{number}") for number in range(leases)]
with group:
    diary.wait_for(lambda: len(diary.elections()) == leases, 20)
    terms = [entry.term for entry in diary.elections()]
    print("leading", flush=True)
    with others_behind():
        signal.raise_signal(signal.SIGSTOP)
        old = sum(term.is_leader for term in terms)
        any = sum(election.is_leader for election in elections)
    print(old, any, flush=True)
    diary.wait_for(lambda: len(diary.entries) >= 3 * leases, 20)
print(json.dumps([
    [entry.key, entry.epoch, entry.reason and entry.reason.name, entry.at_ns]
    for entry in diary.entries
]))
"""


class Told(NamedTuple):
    epoch: int
    reason: str | None
    at_ns: int


class Frozen:
    """The process, from when it stands still, leading all."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process, self._out = process, process.stdout
        assert self._out.readline() == "leading\n"
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it ended instead of standing still"
        self.since_ns = Clock().now_ns()

    def thaw(self) -> tuple[int, int]:
        """Let it go on; returns in how many old terms, and elections, it then read True."""
        os.kill(self._process.pid, signal.SIGCONT)
        terms, elections = map(int, self._out.readline().split())
        return terms, elections

    def told(self) -> dict[str, list[Told]]:
        """Return what each election's callbacks were told, once it has ended."""
        told: dict[str, list[Told]] = {}
        for key, *entry in json.loads(self._out.readline()):
            told.setdefault(key, []).append(Told(*entry))
        assert self._process.wait(20) == 0
        return told


@contextmanager
def frozen(url: str) -> Iterator[Frozen]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, str(LEASES), str(TTL_S)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Frozen(process)
        finally:
            process.kill()


def assert_ended_in_time_and_began_anew(told: dict[str, list[Told]], frozen_ns: int) -> None:
    assert len(told) == LEASES
    for entries in told.values():
        assert [entry.reason for entry in entries] == [None, "EXPIRED", None, "STOPPED"]
        first, ended, second, stopped = entries
        assert first.epoch == ended.epoch < second.epoch == stopped.epoch
        # The margin is a tenth of the TTL; the last refresh was sent before it froze.
        assert ended.at_ns <= frozen_ns + 0.9 * TTL_S * 1e9
        assert ended.at_ns < second.at_ns


def test_for_two_ttls_alone(redis_url: str, record_property: Callable[[str, object], None]) -> None:
    with frozen(redis_url) as process:
        until(lambda: Clock().now_ns() > process.since_ns + 2 * TTL_S * 1e9)
        thawed_ns = Clock().now_ns()
        terms, _ = process.thaw()
        # Where its other threads came first after all, it leads some anew.
        assert terms == 0
        told = process.told()
    assert_ended_in_time_and_began_anew(told, process.since_ns)
    led_again_ns = [entries[2].at_ns - thawed_ns for entries in told.values()]
    assert min(led_again_ns) > 0
    record_property("all_led_again_after_ms", round(max(led_again_ns) / 1e6))


def test_for_two_ttls_while_another_takes_over(
    redis_url: str, record_property: Callable[[str, object], None]
) -> None:
    diary = Diary()
    with frozen(redis_url) as process:
        with ElectionGroup(
            redis_url, prefix=PREFIX, on_elected=diary.elected, on_demoted=diary.demoted
        ) as other:
            other.add_many(f"election-{number}" for number in range(LEASES))
            until(lambda: Clock().now_ns() > process.since_ns + 2 * TTL_S * 1e9)
            diary.wait_for(lambda: len(diary.entries) == LEASES)
            assert process.thaw() == (0, 0)
            assert len(other.led) == LEASES
        told = process.told()
    assert_ended_in_time_and_began_anew(told, process.since_ns)
    ends_ns = {entry.key: entry.at_ns for entry in diary.demotions()}
    gaps_ns = []
    for began in diary.elections():
        first, expired, second, _ = told[began.key]
        gaps_ns.append(began.at_ns - expired.at_ns)
        assert first.epoch < began.epoch < second.epoch
        assert expired.at_ns < began.at_ns
        assert ends_ns[began.key] < second.at_ns
    assert len(gaps_ns) == LEASES
    record_property("min_gap_ms", round(min(gaps_ns) / 1e6))
    record_property("max_gap_ms", round(max(gaps_ns) / 1e6))
