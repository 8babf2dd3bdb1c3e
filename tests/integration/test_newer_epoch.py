"""A leader that learns of a newer epoch gives its term up, and leads again above it."""

from __future__ import annotations

import pytest
import redis

from multielect import ConfigError, DemotionReason, StaleEpochError, Term
from multielect._protocol.scripts import LARGEST_EPOCH
from multielect.fencing import Fence
from multielect.fencing._writes import Writer

from .conftest import Stand
from .lease import PREFIX, Lease

EPOCHS = pytest.mark.parametrize("epochs", ["time", "counter"])


def write(client: redis.Redis, writer: Writer | Term) -> None:
    Fence(client, PREFIX).set(writer, f"{PREFIX}:data", "x")


@EPOCHS
def test_the_lawful_leader_leads_again_where_a_newer_epoch_wrote(
    redis_url: str, redis_client: redis.Redis, stand: Stand, epochs: str
) -> None:
    lease = Lease(redis_client)
    group, told = stand(redis_url, "k", epochs=epochs)
    lawful = told.wait_elected("k").term
    newest = lawful.epoch + 10_000_000
    write(redis_client, Writer(key="k", epoch=newest))
    with pytest.raises(StaleEpochError) as refused:
        write(redis_client, lawful)
    lawful.learn_epoch(refused.value.newest_epoch)

    assert not lawful.is_leader
    assert told.wait_demoted("k").reason is DemotionReason.SUPERSEDED
    again = told.wait_elected("k", above=newest).term
    assert lease.epoch == again.epoch == newest + 1
    write(redis_client, again)
    assert group["k"].is_leader


@EPOCHS
def test_an_epoch_is_above_the_floor_though_the_server_forgot(
    redis_url: str, redis_client: redis.Redis, stand: Stand, epochs: str
) -> None:
    # What refused may be no Redis: then its counter knows nothing of it.
    group, told = stand(redis_url, "k", "other", epochs=epochs)
    first = told.wait_elected("k").epoch
    other = told.wait_elected("other").epoch
    newest = first + 10_000_000
    redis_client.delete(Lease(redis_client).epoch_key)
    assert group["k"].learn_epoch(newest)
    assert told.wait_elected("k", above=first).epoch == newest + 1
    assert Lease(redis_client).epoch == newest + 1
    assert group["other"].epoch == other
    assert told.told("k") == [None, DemotionReason.SUPERSEDED, None]


def test_a_key_that_cannot_be_raised_fails_alone(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(redis_url, "k", "other")
    newest = {key: told.wait_elected(key).epoch + 10_000 for key in ("k", "other")}
    redis_client.delete(Lease(redis_client).epoch_key)
    redis_client.rpush(Lease(redis_client).epoch_key, "no", "counter")
    for key, epoch in newest.items():
        group[key].learn_epoch(epoch)
    told.wait_elected("other", above=newest["other"])
    told.wait_for(lambda: any("WRONGTYPE" in str(error) for error in told.errors))
    assert not group["k"].is_leader
    redis_client.delete(Lease(redis_client).epoch_key)
    told.wait_elected("k", above=newest["k"])


def test_a_counter_at_its_maximum_can_be_mended(
    redis_url: str, redis_client: redis.Redis, stand: Stand
) -> None:
    group, told = stand(redis_url, "k")
    term = told.wait_elected("k").term
    redis_client.set(Lease(redis_client).epoch_key, LARGEST_EPOCH)
    with pytest.raises(StaleEpochError):
        Fence(redis_client, group).set(term, f"{PREFIX}:data", "x")
    assert group["k"].epoch == term.epoch
    redis_client.delete(Lease(redis_client).epoch_key)
    write(redis_client, term)
    group["k"].resign()
    told.wait_demoted("k")
    group["k"].campaign()
    write(redis_client, told.wait_elected("k", above=term.epoch).term)


@pytest.mark.parametrize("newest", [0, -1, LARGEST_EPOCH + 1, 1.5, "7", None, True])
def test_what_is_no_epoch_is_refused(redis_url: str, stand: Stand, newest: object) -> None:
    group, told = stand(redis_url, "k")
    told.wait_elected("k")
    with pytest.raises(ConfigError, match="must be a whole number from 1 to 9007199254740991"):
        group["k"].learn_epoch(newest)  # type: ignore[arg-type]
    assert group["k"].is_leader


def test_a_group_that_stopped_learns_nothing(redis_url: str, stand: Stand) -> None:
    group, told = stand(redis_url, "k")
    term = told.wait_elected("k").term
    group.stop()
    assert not term.learn_epoch(term.epoch + 1)
    assert told.told("k") == [None, DemotionReason.STOPPED]
