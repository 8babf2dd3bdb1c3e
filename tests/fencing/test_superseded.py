"""A fence that refuses a leader for its epoch has it give the term up and lead again above it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from tests.diary import Diary, until

from multielect import DemotionReason, ElectionGroup, Elector, StaleEpochError, Term, aio
from multielect.fencing import AsyncFence, Fence, Write, Writer

from .elections import PREFIX

LATER = 10_000_000
"""So far above the lawful leader's epoch is the one that was granted beside it."""


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def group(redis_url: str, diary: Diary) -> Iterator[ElectionGroup]:
    made = ElectionGroup(
        redis_url,
        prefix=PREFIX,
        ttl=5.0,
        on_elected=diary.elected,
        on_demoted=diary.demoted,
        on_error=diary.error,
    )
    with made:
        yield made


def newest_term(diary: Diary, key: str, above: int = 0) -> Term:
    def found() -> list[Term]:
        return [entry.term for entry in diary.elections() if entry.key == key]

    diary.wait_for(lambda: any(term.epoch > above for term in found()))
    return found()[-1]


def supersede(client: redis.Redis, term: Term) -> int:
    """Write under an epoch that a primary gave which nobody follows. Returns that epoch."""
    epoch = term.epoch + LATER
    Fence(client, PREFIX).set(Writer(key=term.key, epoch=epoch), "data", "orphan")
    return epoch


def writes(term: Term, name: str = "data") -> dict[str, Write]:
    return {
        "set": Write.set(term, name, "lawful"),
        "hset": Write.hset(term, f"{name}:hash", {"a": 1}),
        "xadd": Write.xadd(term, f"{name}:stream", {"a": 1}),
    }


@pytest.mark.parametrize("kind", ["set", "hset", "xadd"])
def test_the_lawful_leader_leads_and_writes_again(
    group: ElectionGroup, diary: Diary, redis_client: redis.Redis, kind: str
) -> None:
    group.add("k")
    lawful = newest_term(diary, "k")
    fence = Fence(redis_client, group)
    newest = supersede(redis_client, lawful)
    assert fence.write_many([writes(lawful)[kind]])[0].is_stale
    assert not lawful.is_leader
    again = newest_term(diary, "k", above=newest)
    assert fence.write_many([writes(again)[kind]])[0].is_written
    assert diary.told("k") == [None, DemotionReason.SUPERSEDED, None]
    # It is the same lawful leader: nothing happens to it any more.
    assert again.is_leader


def test_a_single_write_raises_or_answers_false_and_the_term_ends_in_any_case(
    group: ElectionGroup, diary: Diary, redis_client: redis.Redis
) -> None:
    group.add("k")
    first = newest_term(diary, "k")
    second_epoch = supersede(redis_client, first)
    with pytest.raises(StaleEpochError):
        Fence(redis_client, group).set(first, "data", 1)
    second = newest_term(diary, "k", above=second_epoch)
    third_epoch = supersede(redis_client, second)
    assert Fence(redis_client, group, raise_stale=False).set(second, "data", 1) is False
    newest_term(diary, "k", above=third_epoch)
    assert len(diary.terms()["k"]) == 3


def test_an_election_writes_under_the_epoch_that_it_has_when_the_write_is_made(
    group: ElectionGroup, diary: Diary, redis_client: redis.Redis
) -> None:
    election = group.add("k")
    lawful = newest_term(diary, "k")
    late = Write.set(election, "data", "late")
    newest = supersede(redis_client, lawful)
    fence = Fence(redis_client, group)
    with pytest.raises(StaleEpochError):
        fence.set(election, "data", "lawful")
    again = newest_term(diary, "k", above=newest)
    # What was made under the old epoch is refused, and costs the new term nothing.
    assert fence.write_many([late])[0].is_stale
    assert fence.set(election, "data", "lawful")
    assert again.is_leader
    assert diary.told("k") == [None, DemotionReason.SUPERSEDED, None]


def test_of_many_writes_the_stale_end_their_terms_and_no_others(
    group: ElectionGroup, diary: Diary, redis_client: redis.Redis
) -> None:
    keys = [f"k{n}" for n in range(600)]
    group.add_many(keys)
    terms = {key: newest_term(diary, key) for key in keys}
    stale = keys[::7]
    newest = {key: supersede(redis_client, terms[key]) for key in stale}
    outcomes = Fence(redis_client, group).write_many(
        Write.set(term, f"data:{key}", key) for key, term in terms.items()
    )
    refused = [key for key, outcome in zip(keys, outcomes, strict=True) if outcome.is_stale]
    assert refused == stale
    for key in stale:
        assert newest_term(diary, key, above=newest[key]).is_leader
        assert diary.told(key) == [None, DemotionReason.SUPERSEDED, None]
    assert all(terms[key].is_leader for key in keys if key not in newest)


def test_an_elector_is_told_as_well(redis_url: str, redis_client: redis.Redis) -> None:
    diary = Diary()
    elector = Elector(
        redis_url, prefix="one", ttl=5.0, on_elected=diary.elected, on_demoted=diary.demoted
    )
    with elector:
        lawful = newest_term(diary, "")
        fence = Fence(redis_client, elector)
        newest = lawful.epoch + LATER
        fence.set(Writer(epoch=newest), "data", "orphan")
        with pytest.raises(StaleEpochError):
            fence.set(lawful, "data", "lawful")
        again = newest_term(diary, "", above=newest)
        assert fence.set(again, "data", "lawful")


def test_a_writer_leads_to_no_node(
    group: ElectionGroup, diary: Diary, redis_client: redis.Redis
) -> None:
    group.add("k")
    lawful = newest_term(diary, "k")
    supersede(redis_client, lawful)
    with pytest.raises(StaleEpochError):
        Fence(redis_client, group).set(Writer(key="k", epoch=lawful.epoch), "data", 1)
    assert lawful.is_leader
    assert diary.told("k") == [None]


def test_a_write_of_a_group_that_stopped_is_refused_and_no_more(
    group: ElectionGroup, diary: Diary, redis_client: redis.Redis
) -> None:
    group.add("k")
    lawful = newest_term(diary, "k")
    supersede(redis_client, lawful)
    group.stop()
    with pytest.raises(StaleEpochError):
        Fence(redis_client, group).set(lawful, "data", 1)
    assert diary.told("k") == [None, DemotionReason.STOPPED]


def test_in_a_loop_the_lawful_leader_leads_and_writes_again(
    redis_url: str, redis_client: redis.Redis
) -> None:
    diary = Diary()

    async def lead() -> Any:
        group = aio.ElectionGroup(
            redis_url,
            prefix=PREFIX,
            ttl=5.0,
            on_elected=diary.elected,
            on_demoted=diary.demoted,
        )
        group.add_many(["k", "other"])
        async with group, redis.asyncio.Redis.from_url(redis_url) as client:
            fence = AsyncFence(client, group)
            lawful, other = [
                await asyncio.to_thread(newest_term, diary, key) for key in ("k", "other")
            ]
            newest = supersede(redis_client, lawful)
            outcomes = await fence.write_many(
                [Write.set(lawful, "data", 1), Write.set(other, "other", 1)]
            )
            assert [outcome.is_stale for outcome in outcomes] == [True, False]
            again = await asyncio.to_thread(newest_term, diary, "k", newest)
            assert await fence.set(again, "data", "lawful")
            assert other.is_leader

    asyncio.run(lead())
    until(lambda: len(diary.told("k")) == 4)
    assert diary.told("k")[:3] == [None, DemotionReason.SUPERSEDED, None]
