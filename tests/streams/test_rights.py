"""Consumers whose user may not do all that they need: they say what is missing, and wait."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from tests.diary import until
from tests.rights import OF_ELECTIONS, OF_STREAMS, Clerk

from multielect import HandlerError, ServerError
from multielect.streams import Batch, StreamConsumer

from .rig import PREFIX, Begin, Consumer, Work, append, check_whole, done

PAIR = ["s0", "s1"]
ALL_RIGHTS = (*OF_ELECTIONS, *OF_STREAMS)
KEYS_GRANTED = (f"{PREFIX}:*", "s*", "out:*", "last:*", "sum:*")

STANDING = {"partitions": PAIR, "balance": False, "ttl": 30.0}


class Staging(Work):
    """Stages by each command that there is."""

    def __call__(self, batch: Batch[Any]) -> None:
        super().__call__(batch)
        last = self.seen[batch.key][-1]
        batch.hset(f"sum:{batch.key}", {"last": last})
        batch.set(f"last:{batch.key}", last)


@pytest.fixture(autouse=True)
def _all_is_granted(clerk: Clerk) -> None:
    clerk.may(ALL_RIGHTS, KEYS_GRANTED)


def refusals(consumer: Consumer, right: str) -> list[ServerError]:
    return [
        error
        for error in list(consumer.errors)
        if isinstance(error, ServerError) and f"grant this user +{right} " in str(error)
    ]


def check_what_was_told(consumer: Consumer, right: str) -> None:
    told = refusals(consumer, right)
    assert {error.code for error in told} == {"NOPERM"}
    assert any("s0" in str(error) or "s1" in str(error) for error in told)
    assert any(f"'{right}' command" in str(error.__cause__) for error in told)
    # However often it is tried again.
    assert len(told) <= 8, told
    assert not [error for error in consumer.errors if isinstance(error, HandlerError)]


# What the election itself goes by, and the membership of a fleet, is not of this file.
@pytest.mark.parametrize("right", ["hget", "hset", "xinfo|stream"])
def test_what_is_missing_to_begin_is_named_and_waited_for(
    begin: Begin, clerk: Clerk, redis_client: redis.Redis, right: str
) -> None:
    clerk.take_away(right)
    append(redis_client, 3, keys=PAIR)
    consumer = begin(Staging(), url=clerk.url, **STANDING)
    until(lambda: bool(refusals(consumer, right)))
    clerk.grant(right)
    until(lambda: done(redis_client, 3, PAIR))
    check_what_was_told(consumer, right)
    check_whole(redis_client, 3, PAIR)


@pytest.mark.parametrize(
    "right", ["evalsha", "eval", "get", "hmget", "hset", "set", "type", "xadd", "xread"]
)
def test_what_is_taken_away_is_named_and_waited_for(
    begin: Begin, clerk: Clerk, redis_client: redis.Redis, right: str
) -> None:
    append(redis_client, 3, keys=PAIR)
    consumer = begin(Staging(), url=clerk.url, **STANDING)
    until(lambda: done(redis_client, 3, PAIR))
    until(lambda: all(lag.entries == 0 for lag in consumer.lag().values()))
    clerk.take_away(right)
    if right == "eval":
        # Only where the server does not have the script any more is it sent whole.
        redis_client.script_flush()
    append(redis_client, 3, first=3, keys=PAIR)
    until(lambda: len(refusals(consumer, right)) > 1)
    if right != "xread":  # a request that waited already is answered
        assert [redis_client.xlen(f"out:{key}") for key in PAIR] == [3, 3], "half of it was made"
    clerk.grant(right)
    until(lambda: done(redis_client, 6, PAIR))
    check_what_was_told(consumer, right)
    check_whole(redis_client, 6, PAIR)
    assert not redis_client.exists(f"{PREFIX}:dead-letters")


def test_what_cannot_be_set_aside_waits_and_is_no_failure_of_the_handler(
    begin: Begin, clerk: Clerk, redis_client: redis.Redis
) -> None:
    clerk.take_away("xadd")
    append(redis_client, 1, keys=PAIR)

    def fail(batch: Batch[Any]) -> None:
        raise ValueError(batch.key)

    consumer = begin(fail, url=clerk.url, attempts=1, **STANDING)
    until(lambda: bool(refusals(consumer, "xadd")))
    clerk.grant("xadd")
    until(lambda: redis_client.xlen(f"{PREFIX}:dead-letters") == 2)
    failures = [error for error in consumer.errors if isinstance(error, HandlerError)]
    assert [failure.outcome for failure in failures] == ["dead-letter"] * 2


def told_of_keys(consumer: Consumer, key: str, request: str) -> bool:
    return any(
        isinstance(error, ServerError)
        and (error.code, error.request) == ("NOPERM", request)
        and repr(key) in str(error)
        and "grant this user its keys" in str(error)
        for error in list(consumer.errors)
    )


def test_a_stream_that_may_not_be_read_keeps_no_other_back(
    begin: Begin, clerk: Clerk, redis_client: redis.Redis
) -> None:
    clerk.may(ALL_RIGHTS, (f"{PREFIX}:*", "s1", "out:*"))
    append(redis_client, 3, keys=PAIR)
    consumer = begin(Work(), url=clerk.url, **STANDING)
    until(lambda: done(redis_client, 3, ["s1"]))
    until(lambda: told_of_keys(consumer, "s0", "claim"))
    clerk.may(ALL_RIGHTS, KEYS_GRANTED)
    until(lambda: done(redis_client, 3, PAIR))
    clerk.may(ALL_RIGHTS, (f"{PREFIX}:*", "s1", "out:*"))
    append(redis_client, 3, first=3, keys=PAIR)
    until(lambda: done(redis_client, 6, ["s1"]))
    until(lambda: told_of_keys(consumer, "s0", "read"))
    clerk.may(ALL_RIGHTS, KEYS_GRANTED)
    until(lambda: done(redis_client, 6, PAIR))
    check_whole(redis_client, 6, PAIR)
    assert not [error for error in consumer.errors if isinstance(error, HandlerError)]


def test_a_key_that_may_not_be_written_keeps_no_other_back(
    begin: Begin, clerk: Clerk, redis_client: redis.Redis
) -> None:
    clerk.may(ALL_RIGHTS, (f"{PREFIX}:*", "s*", "out:s1"))
    append(redis_client, 3, keys=PAIR)
    consumer = begin(Work(), url=clerk.url, **STANDING)
    until(lambda: done(redis_client, 3, ["s1"]))
    until(lambda: told_of_keys(consumer, "s0", "commit"))
    clerk.may(ALL_RIGHTS, KEYS_GRANTED)
    until(lambda: done(redis_client, 3, PAIR))
    check_whole(redis_client, 3, PAIR)
    assert not [error for error in consumer.errors if isinstance(error, HandlerError)]


@pytest.mark.parametrize("right", ["eval", "hmget", "xinfo|stream"])
def test_a_lag_that_may_not_be_asked_for_is_not_made_up(
    clerk: Clerk, redis_client: redis.Redis, right: str
) -> None:
    append(redis_client, 3, keys=PAIR)
    consumer = StreamConsumer(clerk.url, prefix=PREFIX, partitions=PAIR, handler=print)
    clerk.take_away(right)
    with pytest.raises(redis.ResponseError, match=f"'{right.replace('|', '[|]')}' command"):
        consumer.lag()
    clerk.grant(right)
    assert consumer.lag()["s0"].entries == 3
