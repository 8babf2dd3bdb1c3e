"""Many writes at once: what shares a script, in which order, and what fails alone."""

from __future__ import annotations

import pytest
import redis

from multielect import ConfigError, StaleEpochError
from multielect._protocol.keys import group_layout
from multielect.fencing import Fence, FencedScript, Write, Writer
from multielect.fencing._writes import MAX_BYTES, packed

from .elections import LAYOUT, PREFIX, elect

PUSH = FencedScript("return redis.call('RPUSH', KEYS[1], ARGV[1])")


def test_each_write_has_its_own_outcome(fence: Fence, redis_client: redis.Redis) -> None:
    good, bad = elect(redis_client, "good"), elect(redis_client, "bad")
    old = elect(redis_client, "stale")
    elect(redis_client, "stale")
    elect(redis_client, "spoilt")
    redis_client.set(LAYOUT.epoch_key(b"spoilt"), "no epoch")
    redis_client.rpush("list", "x")
    outcomes = fence.write_many(
        [
            Write.set(Writer(key="stale", epoch=old), "register", "stale"),
            Write.set(Writer(key="good", epoch=good), "string", "x"),
            Write.hset(Writer(key="bad", epoch=bad), "list", {"a": 1}),
            Write.set(Writer(key="spoilt", epoch=1), "register", "spoilt"),
            Write.xadd(Writer(key="good", epoch=good), "stream", {"a": 1}, id="5-1"),
            Write.run(Writer(key="good", epoch=good), PUSH, ["list"], ["y"]),
        ]
    )
    assert [outcome.is_written for outcome in outcomes] == [False, True, False, False, True, True]
    assert [outcome.is_stale for outcome in outcomes] == [True, *[False] * 5]
    assert [outcome.reply for outcome in outcomes] == [None, True, None, None, b"5-1", 2]
    assert isinstance(outcomes[0].error, StaleEpochError)
    assert isinstance(outcomes[2].error, redis.ResponseError)
    assert "WRONGTYPE" in str(outcomes[2].error)
    assert isinstance(outcomes[3].error, redis.ResponseError)
    assert redis_client.get("register") is None


def test_a_thousand_writes_take_four_scripts(fence: Fence, redis_client: redis.Redis) -> None:
    epochs = {f"p{i}": elect(redis_client, f"p{i}") for i in range(1000)}
    stale = {f"p{i}" for i in range(0, 1000, 7)}
    for key in stale:
        elect(redis_client, key)
    writes = [
        Write.set(Writer(key=key, epoch=epoch), f"data:{key}", key) for key, epoch in epochs.items()
    ]
    fence.write_many(writes[:1])
    redis_client.config_resetstat()
    outcomes = fence.write_many(writes)
    assert redis_client.info("commandstats")["cmdstat_evalsha"]["calls"] == 4
    assert [outcome.is_stale for outcome in outcomes] == [key in stale for key in epochs]
    kept = redis_client.mget([f"data:{key}" for key in epochs])
    assert kept == [None if key in stale else key.encode() for key in epochs]


def test_no_writes_are_no_scripts(fence: Fence) -> None:
    assert fence.write_many([]) == []


def test_writes_of_one_election_stay_in_order_across_scripts(
    fence: Fence, redis_client: redis.Redis
) -> None:
    other = FencedScript("return redis.call('RPUSH', KEYS[1], ARGV[1]) -- another script")
    writers = [Writer(key=key, epoch=elect(redis_client, key)) for key in "abc"]
    steps = [(i, PUSH if i % 2 else other) for i in range(8)]
    outcomes = fence.write_many(
        Write.run(writer, script, [f"list:{writer.key!s}"], [i])
        for i, script in steps
        for writer in writers
    )
    assert all(outcome.is_written for outcome in outcomes)
    for writer in writers:
        assert redis_client.lrange(f"list:{writer.key!s}", 0, -1) == [b"%d" % i for i, _ in steps]


def test_writes_share_scripts_as_far_as_order_allows() -> None:
    other = FencedScript("return 1")
    writers = [Writer(key=f"p{i}", epoch=1) for i in range(100)]
    pairs = [Write.run(w, script, ["k"]) for w in writers for script in (PUSH, other)]
    assert [batch.script for batch in packed(pairs, LAYOUT, spans_buckets=True)] == [PUSH, other]
    there_and_back = [Write.run(writers[0], script) for script in (PUSH, other, PUSH, PUSH)]
    batches = packed(there_and_back, LAYOUT, spans_buckets=True)
    assert [[place for place, _ in batch.writes] for batch in batches] == [[0], [1], [2, 3]]


def test_a_script_is_given_a_bounded_share() -> None:
    writer = Writer(key="p", epoch=1)
    small = packed([Write.set(writer, "k", 1)] * 501, LAYOUT, spans_buckets=True)
    assert [len(batch.writes) for batch in small] == [250, 250, 1]
    without_keys = packed([Write.run(writer, PUSH)] * 251, LAYOUT, spans_buckets=True)
    assert [len(batch.writes) for batch in without_keys] == [250, 1]
    many_keys = packed([Write.run(writer, PUSH, ["k"] * 100)] * 20, LAYOUT, spans_buckets=True)
    assert [len(batch.writes) for batch in many_keys] == [7, 7, 6]
    large = [Write.set(writer, "k", b"x" * (MAX_BYTES // 3))] * 5
    huge = Write.set(writer, "k", b"x" * (2 * MAX_BYTES))
    batches = packed([*large, huge, large[0]], LAYOUT, spans_buckets=True)
    assert [[place for place, _ in batch.writes] for batch in batches] == [
        [0, 1],
        [2, 3],
        [4],
        [5],
        [6],
    ]


def test_in_a_cluster_a_script_serves_one_bucket() -> None:
    layout = group_layout(PREFIX, 4)
    writes = [Write.set(Writer(key=f"p{i}", epoch=1), "k", 1) for i in range(100)]
    batches = packed(writes, layout, spans_buckets=False)
    assert len(batches) == 4
    for batch in batches:
        assert len({layout.bucket(write.key) for _, write in batch.writes}) == 1


class Failing(redis.Redis):
    """Loses the connection, or is refused, in the second script."""

    scripts = 0
    error: type[redis.RedisError] = redis.ConnectionError

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: object) -> object:
        self.scripts += 1
        if self.scripts == 2:
            raise self.error("as planned")
        return super().evalsha(sha, numkeys, *keys_and_args)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [redis.ConnectionError, redis.TimeoutError])
def test_after_a_lost_connection_nothing_more_is_sent(
    redis_client: redis.Redis, redis_url: str, error: type[redis.RedisError]
) -> None:
    writer = Writer(key="p", epoch=elect(redis_client))
    with Failing.from_url(redis_url) as client:
        client.error = error
        outcomes = Fence(client, PREFIX).write_many(
            Write.set(writer, f"k{i}", i) for i in range(750)
        )
        assert client.scripts == 2
    assert all(outcome.is_written for outcome in outcomes[:250])
    assert {type(outcome.error) for outcome in outcomes[250:500]} == {error}
    assert {type(outcome.error) for outcome in outcomes[500:]} == {redis.ConnectionError}
    assert {str(outcome.error).split(",")[0] for outcome in outcomes[500:]} == {"not sent"}
    assert redis_client.exists("k0", "k249", "k250", "k500") == 2


def test_a_script_that_is_refused_fails_alone(redis_client: redis.Redis, redis_url: str) -> None:
    writer = Writer(key="p", epoch=elect(redis_client))
    with Failing.from_url(redis_url) as client:
        client.error = redis.exceptions.OutOfMemoryError
        outcomes = Fence(client, PREFIX).write_many(
            Write.set(writer, f"k{i}", i) for i in range(750)
        )
    assert [outcome.is_written for outcome in outcomes] == [True] * 250 + [False] * 250 + (
        [True] * 250
    )
    assert isinstance(outcomes[250].error, redis.exceptions.OutOfMemoryError)


def test_one_bad_write_keeps_all_from_being_sent(redis_client: redis.Redis) -> None:
    writer = Writer(key="p", epoch=elect(redis_client))
    fence = Fence(redis_client, PREFIX)
    with pytest.raises(ConfigError):
        fence.write_many([Write.set(writer, "register", 1), Write.set(Writer(epoch=7), "k", 1)])
    assert redis_client.get("register") is None
