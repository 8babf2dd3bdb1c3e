"""A worker that is wedged is demoted, though its refreshes are good, and another takes over.

Rules of this file:
    * How soon is asserted by the terms' own instants. The exact instants are held by
      `tests/core/test_watchdog_clock.py`; here the bound is wide, for a busy machine.
"""

from __future__ import annotations

import threading

import pytest
from tests.diary import Diary

from multielect import ConfigError, DemotionReason, ElectionGroup, Elector, aio

PREFIX = "watchdog"
WIDE_S = 1.0
STALLED = DemotionReason.STALLED


def a_group(
    url: str, diary: Diary, *, ttl: float = 0.6, max_stall: float | None = None
) -> ElectionGroup:
    return ElectionGroup(
        url,
        prefix=PREFIX,
        ttl=ttl,
        max_stall=max_stall,
        on_elected=diary.elected,
        on_demoted=diary.demoted,
        on_error=diary.error,
    )


def lasted_s(diary: Diary, key: str) -> float:
    """Return how long the first term of an election lasted."""
    began, ended = [entry.at_ns for entry in diary.entries if entry.key == key][:2]
    return (ended - began) / 1e9


def test_who_is_silent_is_demoted_and_another_takes_over(redis_url: str) -> None:
    wedged, successor = Diary(), Diary()
    with a_group(redis_url, wedged, max_stall=0.5) as group:
        election = group.add("a")
        wedged.wait_for(lambda: len(wedged.entries) == 1)
        with a_group(redis_url, successor) as other:
            other.add("a")
            wedged.wait_for(lambda: len(wedged.entries) == 2)
            assert not election.is_leader
            # Told of the release: nobody waits for the lease to end.
            assert other["a"].wait(0.5)
            successor.wait_for(lambda: len(successor.entries) == 1)
            assert wedged.told("a") == [None, STALLED]
            assert 0.5 <= lasted_s(wedged, "a") < 0.5 + WIDE_S
            assert group.counters.refreshes >= 1
            assert wedged.errors == []
            assert successor.entries[0].epoch > wedged.entries[0].epoch


def test_it_lets_the_others_go_first_for_one_ttl(redis_url: str) -> None:
    diary = Diary()
    with a_group(redis_url, diary, ttl=1.0, max_stall=0.2) as group:
        group.add("a")
        diary.wait_for(lambda: len(diary.entries) >= 3)
        _, ended, again = diary.entries[:3]
        assert diary.told("a")[:3] == [None, STALLED, None]
        assert 1.0 <= (again.at_ns - ended.at_ns) / 1e9 < 1.0 + WIDE_S


def test_a_worker_that_speaks_keeps_its_term(redis_url: str) -> None:
    diary = Diary()
    with a_group(redis_url, diary, max_stall=0.5) as group:
        election = group.add("a")
        assert election.wait(10)
        ending = threading.Event()
        for _ in range(30):
            ending.wait(0.05)
            election.heartbeat()
        assert diary.told("a") == [None]
        assert election.is_leader
        diary.wait_for(lambda: len(diary.entries) == 2)
        assert diary.told("a") == [None, STALLED]
        assert 2.0 <= lasted_s(diary, "a") < 2.0 + 2 * WIDE_S


def test_an_election_may_have_a_limit_of_its_own(redis_url: str) -> None:
    diary = Diary()
    with a_group(redis_url, diary, max_stall=0.3) as strict:
        strict.add("patient", max_stall=60)
        strict.add_many(["impatient"])
        # One that is there keeps the limit that it has.
        strict.add("patient", max_stall=0.01)
        diary.wait_for(lambda: STALLED in diary.told("impatient"))
        assert diary.told("patient") in ([], [None])
    easy = Diary()
    with a_group(redis_url, easy) as group:
        group.add_many(["without"])
        group.add("with", max_stall=0.3)
        easy.wait_for(lambda: STALLED in easy.told("with"))
        assert easy.told("without") == [None]


def test_an_elector_has_one_too(redis_url: str) -> None:
    diary = Diary()
    with Elector(
        redis_url,
        prefix=PREFIX,
        ttl=0.6,
        max_stall=0.5,
        on_elected=diary.elected,
        on_demoted=diary.demoted,
    ) as elector:
        assert elector.wait(10)
        elector.heartbeat()
        diary.wait_for(lambda: len(diary.entries) == 2)
    assert diary.told("")[:2] == [None, STALLED]
    assert 0.5 <= lasted_s(diary, "") < 0.5 + WIDE_S


BAD = [0, -1, 0.009, float("nan"), float("inf"), True, "1", 7 * 86_400 + 1]


@pytest.mark.parametrize("max_stall", BAD)
def test_what_cannot_be_is_refused(max_stall: float) -> None:
    url = "redis://localhost:1/0"
    for kind in (ElectionGroup, Elector, aio.ElectionGroup, aio.Elector):
        with pytest.raises(ConfigError, match="max_stall"):
            kind(url, prefix=PREFIX, max_stall=max_stall)
    for group in (ElectionGroup(url, prefix=PREFIX), aio.ElectionGroup(url, prefix=PREFIX)):
        with pytest.raises(ConfigError, match="max_stall"):
            group.add("a", max_stall=max_stall)
        assert "a" not in group
