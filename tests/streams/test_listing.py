"""What a function lists is consumed, but for what cannot be, which is told once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import redis
from tests.diary import until

from multielect import ConfigError, HandlerError
from multielect.streams import AsyncStreamConsumer, Batch, StreamConsumer

from .rig import PREFIX, Begin, Consumer, Work, append, done

DEAD = f"{PREFIX}:dead-letters"
OFTEN = {"discover": 0.01}


class Lister:
    """Lists what it is told to, and counts how often it was asked."""

    def __init__(self, *found: Any) -> None:
        self.found: Any = found
        self.asked = 0
        self._changed = threading.Condition()

    def __call__(self) -> Any:
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
        return self.found

    def wait_until_asked(self, more: int) -> None:
        with self._changed:
            wanted = self.asked + more
            assert self._changed.wait_for(lambda: self.asked >= wanted, 20.0)


def told(consumer: Consumer, words: str) -> list[str]:
    return [str(error) for error in list(consumer.errors) if words in str(error)]


def test_a_pattern_that_also_finds_the_dead_letters_makes_no_loop(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 1, keys=["s0"])
    redis_client.xadd(DEAD, {"n": 7})
    lister = Lister("s0", DEAD)

    def fail(batch: Batch[Any]) -> None:
        raise ValueError(batch.key)

    consumer = begin(fail, partitions=lister, attempts=1, **OFTEN)
    until(lambda: redis_client.xlen(DEAD) == 2)
    lister.wait_until_asked(20)
    assert redis_client.xlen(DEAD) == 2
    assert consumer.keys() == {"s0"}
    (why,) = told(consumer, "left out")
    assert "is the dead-letter stream" in why


def test_what_cannot_be_consumed_keeps_none_of_the_others_back(
    begin: Begin, redis_client: redis.Redis
) -> None:
    append(redis_client, 1, keys=["s0", "s1"])
    # As SCAN lists: one may come twice.
    lister = Lister("s0", "", 7, "x" * 600, "s1", "s0")
    consumer = begin(Work(), partitions=lister, **OFTEN)
    until(lambda: done(redis_client, 1, ["s0", "s1"]))
    lister.wait_until_asked(20)
    assert consumer.keys() == {"s0", "s1"}
    (why,) = told(consumer, "left out")
    assert "(2 more are refused)" in why


@pytest.mark.parametrize("found", ["s0", 7, None], ids=str)
def test_what_is_no_list_is_told_of_once_and_asked_for_again(
    begin: Begin, redis_client: redis.Redis, found: Any
) -> None:
    append(redis_client, 1, keys=["s0"])
    lister = Lister()
    lister.found = found
    consumer = begin(Work(), partitions=lister, **OFTEN)
    until(lambda: lister.asked > 20)
    assert len(told(consumer, "cannot list the partitions")) <= 2
    lister.found = ["s0"]
    until(lambda: done(redis_client, 1, ["s0"]))


def test_a_plain_function_that_returns_a_coroutine_lists_nothing(redis_url: str) -> None:
    async def listing() -> list[str]:
        return ["s0"]

    errors: list[Any] = []
    consumer = StreamConsumer(
        redis_url,
        prefix=PREFIX,
        partitions=lambda: listing(),  # noqa: PLW0108  # what is tried here
        handler=print,
        on_error=errors.append,
    )
    with consumer:
        until(lambda: bool(errors))
    assert "partitions returned a coroutine" in str(errors[0])


class TestUnfinished:
    """Handlers that return what is still to be run: nothing of it must be committed."""

    @pytest.fixture
    def settings(self, redis_url: str, redis_client: redis.Redis) -> dict[str, Any]:
        append(redis_client, 1, keys=["s0"])
        return {
            "redis": redis_url,
            "prefix": PREFIX,
            "partitions": ["s0"],
            "ttl": 1.0,
            "on_failure": "halt",
            "attempts": 1,
        }

    def test_a_coroutine_that_nobody_awaits_is_a_failure(self, settings: dict[str, Any]) -> None:
        async def work(batch: Batch[Any]) -> None: ...

        errors: list[Any] = []
        consumer = StreamConsumer(
            **settings,
            handler=lambda batch: work(batch),  # noqa: PLW0108  # what is tried here
            on_error=errors.append,
        )
        with consumer:
            until(lambda: bool(errors))
            assert consumer.tally.handled == 0
        assert isinstance(errors[0], HandlerError)
        assert "AsyncStreamConsumer" in str(errors[0])

    def test_a_generator_that_nobody_runs_is_a_failure(self, settings: dict[str, Any]) -> None:
        errors: list[Any] = []
        consumer = StreamConsumer(
            **settings,
            handler=lambda batch: (each for each in batch.entries),
            on_error=errors.append,
        )
        with consumer:
            until(lambda: bool(errors))
            assert consumer.tally.handled == 0
        assert isinstance(errors[0], HandlerError)

    def test_so_it_is_in_a_loop(self, settings: dict[str, Any]) -> None:

        async def run() -> list[Any]:
            errors: list[Any] = []
            told = asyncio.Event()

            def tell(error: Any) -> None:
                errors.append(error)
                told.set()

            consumer = AsyncStreamConsumer(
                **settings, handler=lambda batch: (each for each in batch.entries), on_error=tell
            )
            async with consumer:
                await asyncio.wait_for(told.wait(), 20.0)
                assert consumer.tally.handled == 0
            return errors

        assert isinstance(asyncio.run(run())[0], HandlerError)


def test_a_listing_is_checked_as_a_whole_where_it_is_given_once(redis_url: str) -> None:
    with pytest.raises(ConfigError, match="twice"):
        StreamConsumer(redis_url, prefix=PREFIX, partitions=["s0", "s0"], handler=print)
