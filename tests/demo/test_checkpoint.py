"""Only the newest epoch moves a checkpoint, and every commit that was taken is in the journal."""

from __future__ import annotations

import pytest
import redis

from multielect._protocol.keys import group_layout
from multielect.cli.demo.checkpoint import (
    Checkpoint,
    CheckpointStore,
    Commit,
    JournalEntry,
    Totals,
    connect,
)
from multielect.embedded import EmbeddedServer

PREFIX = "flights"
KEYS = ["a", "b", "c"]
COMMITTED, REFUSED, FAILED = "committed", "refused", "failed"


@pytest.fixture
def store(redis_client: redis.Redis) -> CheckpointStore:
    return CheckpointStore(redis_client, PREFIX, KEYS)


def commit(store: CheckpointStore, *commits: Commit, node: str = "x") -> list[str]:
    """Commit, and return in a word what became of each."""
    return [
        COMMITTED if outcome.is_written else REFUSED if outcome.is_stale else FAILED
        for outcome in store.commit(node, commits)
    ]


def grant(client: redis.Redis, key: str, epoch: int) -> None:
    client.set(group_layout(PREFIX).epoch_key(key.encode()), epoch)


def place_of(client: redis.Redis, ending: str) -> bytes:
    (key,) = client.keys(f"*:{ending}")
    assert isinstance(key, bytes)
    return key


def test_a_commit_of_the_newest_epoch_moves_the_checkpoint(
    store: CheckpointStore, redis_client: redis.Redis
) -> None:
    grant(redis_client, "b", 7)

    assert store.read([0, 1]) == [Checkpoint(0, 0), Checkpoint(0, 0)]
    assert commit(store, Commit(1, 7, 0, 3, 11)) == [COMMITTED]
    assert commit(store, Commit(1, 7, 3, 5, 22)) == [COMMITTED]

    assert store.read([0, 1]) == [Checkpoint(0, 0), Checkpoint(5, 22)]
    assert store.journal() == [
        [],
        [JournalEntry(7, 0, 3, 11, "x"), JournalEntry(7, 3, 5, 22, "x")],
        [],
    ]
    assert store.epochs() == [0, 7, 0]
    assert store.totals() == Totals(events=5, refused=0)


def test_a_commit_of_an_older_epoch_is_refused(
    store: CheckpointStore, redis_client: redis.Redis
) -> None:
    grant(redis_client, "a", 7)
    commit(store, Commit(0, 7, 0, 3, 11))
    grant(redis_client, "a", 8)

    assert commit(store, Commit(0, 7, 3, 4, 22)) == [REFUSED]

    assert store.read([0]) == [Checkpoint(3, 11)]
    assert len(store.journal()[0]) == 1
    assert store.totals() == Totals(events=3, refused=1)


def test_the_fence_holds_where_the_counter_was_lost(
    store: CheckpointStore, redis_client: redis.Redis
) -> None:
    grant(redis_client, "a", 8)
    commit(store, Commit(0, 8, 0, 3, 11))
    redis_client.delete(place_of(redis_client, "epoch"))

    assert commit(store, Commit(0, 7, 3, 4, 22), node="y") == [REFUSED]
    assert commit(store, Commit(0, 9, 3, 4, 22), node="z") == [COMMITTED]


def test_epochs_are_compared_as_numbers(store: CheckpointStore, redis_client: redis.Redis) -> None:
    grant(redis_client, "a", 10)

    assert commit(store, Commit(0, 9, 0, 1, 1)) == [REFUSED]
    grant(redis_client, "a", 1_763_900_000_001)
    assert commit(store, Commit(0, 1_763_900_000_000, 0, 1, 1)) == [REFUSED]
    assert commit(store, Commit(0, 1_763_900_000_001, 0, 1, 1)) == [COMMITTED]


def test_what_follows_on_what_is_not_the_scripts_affair(store: CheckpointStore) -> None:
    """Else the checker of the journal could never find anything."""
    commits = [Commit(0, 1, 5, 9, 1), Commit(0, 1, 2, 3, 2), Commit(0, 1, 2, 3, 2)]

    assert [commit(store, one)[0] for one in commits] == [COMMITTED] * 3
    assert [entry[1:3] for entry in store.journal()[0]] == [(5, 9), (2, 3), (2, 3)]


@pytest.mark.parametrize("ending", ["epoch", "fence", "journal"])
def test_a_bad_key_fails_alone_and_writes_nothing(
    store: CheckpointStore,
    redis_client: redis.Redis,
    ending: str,
) -> None:
    grant(redis_client, "b", 1)
    commit(store, Commit(1, 1, 0, 1, 1))
    bad = place_of(redis_client, ending)
    redis_client.delete(bad)
    redis_client.zadd(bad, {"not what it should be": 1})
    before = types(redis_client)
    journal_key, checkpoint_key = (
        bad[: -len(ending)] + b"journal",
        bad[: -len(ending)] + b"checkpoint",
    )

    outcomes = store.commit("x", [Commit(p, 1, 1, 2, 2) for p in range(3)])

    assert [outcome.is_written for outcome in outcomes] == [True, False, True]
    assert "WRONGTYPE" in str(outcomes[1].error)
    assert store.totals() == Totals(events=3, refused=0)
    assert before.items() <= types(redis_client).items()
    if ending != "journal":
        assert redis_client.llen(journal_key) == 1
    assert redis_client.get(checkpoint_key) == b"1 1"


def test_an_epoch_that_is_no_number_fails_alone(
    store: CheckpointStore, redis_client: redis.Redis
) -> None:
    redis_client.set(group_layout(PREFIX).epoch_key(b"a"), "seven")

    assert commit(store, Commit(0, 1, 0, 1, 1), Commit(1, 1, 0, 1, 1)) == [FAILED, COMMITTED]


def test_many_commits_need_few_calls(redis_client: redis.Redis) -> None:
    count = 4 * 250 + 1
    store = CheckpointStore(redis_client, PREFIX, [f"k{number}" for number in range(count)])
    commit(store, Commit(0, 1, 0, 1, 0))
    calls_before = scripts_run(redis_client)

    outcomes = commit(store, *(Commit(number, 1, 0, 1, number) for number in range(count)))

    assert outcomes == [COMMITTED] * count
    assert 5 <= scripts_run(redis_client) - calls_before <= 10
    assert [checkpoint.digest for checkpoint in store.read(range(count))] == list(range(count))
    assert store.totals() == Totals(events=count + 1, refused=0)


def test_the_keys_share_the_bucket_of_their_election(
    store: CheckpointStore, redis_client: redis.Redis
) -> None:
    grant(redis_client, "a", 1)
    commit(store, Commit(0, 1, 0, 1, 1))

    head = place_of(redis_client, "epoch").removesuffix(b"epoch")
    assert set(redis_client.keys()) == {
        head + b"epoch",
        head + b"fence",
        head + b"checkpoint",
        head + b"journal",
        head.removesuffix(b"a:") + b"events",
    }


def test_without_a_server_nobody_can_tell_what_became_of_a_commit(
    private_server: EmbeddedServer,
) -> None:
    with connect(private_server.url) as client:
        store = CheckpointStore(client, PREFIX, KEYS)
        private_server.stop()
        assert commit(store, Commit(0, 1, 0, 1, 1), Commit(1, 1, 0, 1, 1)) == [FAILED, FAILED]


def test_nothing_is_sent_twice(redis_url: str) -> None:
    """A commit that was sent again after a lost reply could count twice."""
    with connect(redis_url) as client:
        assert isinstance(client, redis.Redis)
        client.ping()
        connection = client.connection_pool.get_connection()
        assert connection.retry.get_retries() == 0
        client.connection_pool.release(connection)


def types(client: redis.Redis) -> dict[bytes | str, bytes | str]:
    return {key: client.type(key) for key in client.scan_iter()}


def scripts_run(client: redis.Redis) -> int:
    statistics = client.info("commandstats")
    return int(statistics.get("cmdstat_evalsha", {"calls": 0})["calls"])
