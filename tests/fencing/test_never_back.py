"""I3: a fenced register never accepts a lower epoch after a higher one.

First one thing after another, against a model; then from threads at once.
"""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multielect import StaleEpochError
from multielect.fencing import Fence, FencedScript, Write, Writer

from .elections import PREFIX, elect, lose_counter, lose_fence

APPEND = FencedScript("redis.call('RPUSH', KEYS[1], ARGV[1])")

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("elect"), st.sampled_from(["counter", "time"])),
        st.tuples(st.just("write"), st.integers(0, 5)),
        st.tuples(st.sampled_from(["lose counter", "lose fence"]), st.none()),
    ),
    min_size=5,
    max_size=30,
)


class Model:
    """What is known of one election, in its two places, and who may write."""

    def __init__(self) -> None:
        self.counter = 0
        self.fence = 0
        self.written: list[int] = []

    @property
    def newest_written(self) -> int:
        return max(self.written, default=0)

    def write(self, epoch: int) -> bool:
        newest = max(self.counter, self.fence)
        self.counter = max(newest, epoch)
        if epoch < newest:
            return False
        self.fence = epoch
        self.written.append(epoch)
        return True


@settings(
    derandomize=True,
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_step_by_step_it_does_what_the_model_does(
    redis_client: redis.Redis, steps: list[tuple[str, Any]]
) -> None:
    redis_client.flushall()
    fence = Fence(redis_client, PREFIX, raise_stale=False)
    model, epochs = Model(), [elect(redis_client)]
    model.counter = epochs[0]
    for what, how in steps:
        if what == "elect":
            epochs.append(elect(redis_client, epochs=how))
            model.counter = epochs[-1]
        elif what == "write":
            # Of those elected last, by age: 0 is the newest.
            epoch = epochs[max(0, len(epochs) - 1 - how)]
            made = fence.run(Writer(key="p", epoch=epoch), APPEND, ["log"], [epoch])
            assert (made is not False) == model.write(epoch)
        # Of the two places one may be lost at a time: whichever is, the other still knows.
        elif what == "lose counter" and model.fence >= model.newest_written:
            lose_counter(redis_client)
            model.counter = 0
        elif what == "lose fence" and model.counter >= model.newest_written:
            lose_fence(redis_client)
            model.fence = 0
    log = [int(entry) for entry in redis_client.lrange("log", 0, -1)]
    assert log == model.written
    assert log == sorted(log)


WRITERS = 4
WRITES = 120


class Candidate:
    """A thread that is elected now and then, and goes on writing when it no longer leads."""

    def __init__(self, url: str, seed: int) -> None:
        self.choose = random.Random(seed)
        self.client = redis.Redis.from_url(url)
        self.fence = Fence(self.client, PREFIX)
        self.refused: list[StaleEpochError] = []

    def run(self, begin: threading.Barrier) -> None:
        with self.client:
            begin.wait(timeout=10)
            epoch = elect(self.client, epochs="time")
            for _ in range(WRITES):
                chance = self.choose.random()
                if chance < 0.08:
                    epoch = elect(self.client, epochs="time")
                elif chance < 0.14:
                    lose_counter(self.client)
                self.refused += self.write(epoch, many=self.choose.random() < 0.5)

    def write(self, epoch: int, *, many: bool) -> list[StaleEpochError]:
        """Log in the script that writes which epoch it was; returns what was refused."""
        writer = Writer(key="p", epoch=epoch)
        if many:
            several = [Write.run(writer, APPEND, ["log"], [epoch])] * 2
            errors = [outcome.error for outcome in self.fence.write_many(several)]
            assert all(error is None or isinstance(error, StaleEpochError) for error in errors)
            return [error for error in errors if isinstance(error, StaleEpochError)]
        try:
            self.fence.run(writer, APPEND, ["log"], [epoch])
        except StaleEpochError as error:
            return [error]
        return []


@pytest.mark.parametrize("seed", range(4))
def test_from_many_threads_at_once_it_never_goes_back(
    redis_client: redis.Redis, redis_url: str, seed: int
) -> None:
    begin = threading.Barrier(WRITERS)
    candidates = [Candidate(redis_url, 1000 * seed + number) for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(candidate.run, begin) for candidate in candidates]:
            done.result(timeout=60)

    # The log is the order in which Redis accepted the writes.
    log = [int(entry) for entry in redis_client.lrange("log", 0, -1)]
    assert log == sorted(log)
    refused = [error for candidate in candidates for error in candidate.refused]
    assert all(error.newest_epoch > error.epoch for error in refused)
    # The race was one: many epochs wrote, and many writes came too late.
    assert len(set(log)) > 5
    assert len(refused) > 10
