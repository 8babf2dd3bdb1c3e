"""The model of Redis answers as real servers do.

Both are given the same calls, at random, over keys of every kind that can stand there. Times are
left out of the comparison, and epochs minted from the time; nothing else is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from multielect._clock import ManualClock
from multielect._scripts import WITH_FLAGS, Script

from .redis_model import LARGEST_COUNTER, ONE_DAY_MS, RedisModel
from .resp import Push, Refusal, Reply

ELECTIONS = 6
HOLDERS = [b"a/1", b"b/2", b"bare"]
TTL_MS = 60_000
CHANNEL = b"channel"
ROLL_KEYS = [b"m:{fleet}:members", b"m:{fleet}:plan"]
PLANS = [b"", b"1 a", b"2 \r\n", b"10 ", b"9" * 15 + b" x", b"9" * 16 + b" x", b"no plan", b"0 a"]
ODD_VALUES: list[bytes | list[bytes]] = [
    b"someone",
    b"7",
    b"-5",
    b"no number",
    b"%d" % LARGEST_COUNTER,
    [b"a", b"list"],
]
CALLS = 250
MARGIN_MS = 30_000  # what a real clock may move while the model's stands still


def leader_key(election: int) -> bytes:
    return b"m:{1}:%d:leader" % election


def epoch_key(election: int) -> bytes:
    return b"m:{1}:%d:epoch" % election


def pairs(elections: list[int]) -> list[bytes]:
    return [key for n in elections for key in (leader_key(n), epoch_key(n))]


@dataclass
class Both:
    """The model and a real server, side by side."""

    real: Any  # redis-py types its commands for both of its fronts at once
    model: RedisModel
    by_time: bool
    pushed: list[Push] = field(default_factory=list)
    loaded: set[bytes] = field(default_factory=set)

    def call(
        self, script: Script, keys: list[bytes], real: list[bytes], model: list[bytes]
    ) -> tuple[Reply, Reply]:
        """Run a script on both, with the arguments that each needs."""
        command = b"EVALSHA" if script.sha in self.loaded else b"EVAL"
        self.loaded.add(script.sha)
        words = [command, script.sha if command == b"EVALSHA" else script.body, b"%d" % len(keys)]
        answer = self.real.execute_command(*words, *keys, *real)
        return normal(answer), normal(self.model.call([*words, *keys, *model]))

    def counters(self, elections: list[int]) -> list[int]:
        """Return what the real server's epoch counters stand at; 0 where they are odd."""
        found = []
        for election in elections:
            is_string = self.real.type(epoch_key(election)) == b"string"
            text = self.real.get(epoch_key(election)) if is_string else b""
            found.append(int(text) if text.isdigit() else 0)
        return found

    def put(self, key: bytes, value: bytes | list[bytes], ttl_ms: int | None = None) -> None:
        self.model.put(key, value, ttl_ms)
        self.real.delete(key)
        if isinstance(value, list):
            self.real.rpush(key, *value)
        else:
            self.real.set(key, value, px=ttl_ms)

    def end(self, key: bytes) -> None:
        """A lease ends, or a user deletes it."""
        self.model.delete(key)
        self.real.delete(key)

    def real_dump(self) -> dict[bytes, bytes | list[bytes]]:
        found: dict[bytes, bytes | list[bytes]] = {}
        for key in self.real.scan_iter():
            if key == ROLL_KEYS[0]:
                continue  # compared by its answers
            is_list = self.real.type(key) == b"list"
            found[key] = self.real.lrange(key, 0, -1) if is_list else self.real.get(key)
        return found


def normal(answer: object) -> Reply:
    """Return an answer of either, errors in one form."""
    if isinstance(answer, (redis.ResponseError, Refusal)):
        text = str(answer) if isinstance(answer, redis.ResponseError) else answer.text
        return Refusal(text.removeprefix("ERR ").split(" Op")[0])
    if isinstance(answer, list):
        return [normal(part) for part in answer]
    assert answer is None or isinstance(answer, (int, bytes))
    return answer


def number(reply: Reply) -> int:
    assert isinstance(reply, int)
    return reply


def compare_acquire(both: Both, real: Reply, model: Reply) -> list[tuple[int, int]]:
    """Compare two answers; returns the epochs of either, or 0, for each election."""
    assert isinstance(real, list)
    assert isinstance(model, list)
    assert real[1] == model[1], "the same holders, in the same order"
    assert len(real) == len(model)
    epochs = []
    for here, there in zip(real[2:], model[2:], strict=True):
        if isinstance(there, Refusal) or isinstance(here, Refusal):
            assert here == there
            epochs.append((0, 0))
        elif number(there) > 0:
            assert number(here) > 0
            assert both.by_time or here == there
            epochs.append((number(here), number(there)))
        else:
            assert -number(here) % 256 == -number(there) % 256
            remaining = -number(there) // 256
            assert remaining - MARGIN_MS <= -number(here) // 256 <= remaining
            epochs.append((0, 0))
    return epochs


def called(real: Reply, model: Reply) -> bool:
    """Tell whether two answers to the roll are the same, but for times and the order of members."""
    found = []
    for answer in (real, model):
        assert isinstance(answer, bytes)
        _, was_there, number, plan, *members = netstrings(answer)
        groups = zip(members[::4], members[2::4], members[3::4], strict=True)
        entries = sorted((name, since == b"7", words) for name, since, words in groups)
        found.append((was_there, number, plan, entries))
    return found[0] == found[1]


def netstrings(text: bytes) -> list[bytes]:
    words = []
    while text:
        size, _, text = text.partition(b":")
        words.append(text[: int(size)])
        text = text[int(size) :]
    return words


def act_at_random(both: Both, chance: random.Random, epochs: dict[int, tuple[int, int]]) -> str:
    """Do one thing to both and compare what comes of it. Returns what it was."""
    what = chance.choice(
        ["acquire"] * 4 + ["refresh"] * 2 + ["release"] * 3 + ["grant"] * 2 + ["roll", "odd", "end"]
    )
    elections = chance.sample(range(ELECTIONS), chance.randint(1, ELECTIONS))
    holder = chance.choice(HOLDERS)
    ttl = b"%d" % TTL_MS
    if what == "acquire":
        claims = chance.choice([b"", CHANNEL])
        arguments = [holder, ttl, b"time" if both.by_time else b"counter", claims]
        before = both.counters(elections)
        answers = both.call(WITH_FLAGS.acquire, pairs(elections), arguments, arguments)
        minted = compare_acquire(both, *answers)
        for election, last, epoch in zip(elections, before, minted, strict=True):
            if epoch != (0, 0):
                assert epoch[0] > last, "an epoch did not rise"
                epochs[election] = epoch
    elif what == "refresh":
        keys = [leader_key(n) for n in elections]
        real, model = both.call(WITH_FLAGS.refresh, keys, [holder, ttl], [holder, ttl])
        assert isinstance(real, list)
        assert isinstance(model, list)
        assert real[1:] == model[1:]
    elif what == "release":
        late = chance.random() < 0.2
        terms = [epochs.get(n, (1, 1)) for n in elections]
        head = [holder, CHANNEL]
        real, model = both.call(
            WITH_FLAGS.release,
            pairs(elections),
            head + [b"%d" % (real_epoch - late) for real_epoch, _ in terms],
            head + [b"%d" % (model_epoch - late) for _, model_epoch in terms],
        )
        assert isinstance(real, list)
        assert isinstance(model, list)
        assert real[1:] == model[1:]
    elif what == "grant":
        terms = [epochs.get(n, (1, 1)) for n in elections]
        heirs = [chance.choice([b"", *HOLDERS]) for _ in elections]
        head = [holder, CHANNEL, ttl]
        real, model = both.call(
            WITH_FLAGS.grant,
            pairs(elections),
            head + [w for t, heir in zip(terms, heirs, strict=True) for w in (b"%d" % t[0], heir)],
            head + [w for t, heir in zip(terms, heirs, strict=True) for w in (b"%d" % t[1], heir)],
        )
        assert isinstance(real, list)
        assert isinstance(model, list)
        assert real[1:] == model[1:]
    elif what == "roll":
        words = [holder, chance.choice([b"0", ttl]), chance.choice([b"0", b"7"])]
        words += [chance.choice([b"", b"1:2 {}\n"]), CHANNEL]
        words += [chance.choice([b"0", b"1", b"2"]), chance.choice(PLANS)]
        assert called(*both.call(WITH_FLAGS.roll, ROLL_KEYS, words, words))
    elif what == "odd":
        key = chance.choice([leader_key, epoch_key])(chance.choice(elections))
        key = chance.choice([key, key, key, ROLL_KEYS[1]])
        both.put(key, chance.choice(ODD_VALUES), chance.choice([None, 5_000_000, 3 * ONE_DAY_MS]))
    else:
        both.end(chance.choice([leader_key, leader_key, epoch_key])(chance.choice(elections)))
    return what


@pytest.mark.parametrize("by_time", [True, False], ids=["time", "counter"])
@pytest.mark.parametrize("seed", range(3))
def test_the_model_answers_as_a_real_server_does(
    redis_client: redis.Redis, seed: int, by_time: bool
) -> None:
    chance = random.Random(seed)
    both = Both(redis_client, RedisModel(ManualClock()), by_time)
    both.model.subscribers.append((CHANNEL, both.pushed.append))
    epochs: dict[int, tuple[int, int]] = {}
    with both.real.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(CHANNEL)
        listener.get_message(timeout=5)
        done = [act_at_random(both, chance, epochs) for _ in range(CALLS)]
        assert set(done) == {"acquire", "refresh", "release", "grant", "roll", "odd", "end"}

        real, model = both.real_dump(), both.model.dump()
        assert real.keys() == model.keys()
        assert by_time or real == model

        assert both.pushed, "no release was announced: the test was too tame"
        for push in both.pushed:
            heard = listener.get_message(timeout=5)
            assert heard is not None
            assert (b"message", heard["channel"], heard["data"]) == push.values


def test_the_model_refuses_a_digest_as_a_real_server_does(redis_client: Any) -> None:
    words = [b"EVALSHA", WITH_FLAGS.acquire.sha, b"0", b"a/1", b"1000", b"time", b""]
    model = RedisModel(ManualClock()).call(words)

    with pytest.raises(redis.exceptions.NoScriptError):
        redis_client.execute_command(*words)
    assert isinstance(model, Refusal)
    assert model.text.startswith("NOSCRIPT")


def test_a_lease_of_the_model_ends_with_its_ttl() -> None:
    model = RedisModel(ManualClock())
    model.put(b"key", b"value", 10)
    model.clock.advance_ns(9_999_999)
    assert model.get(b"key") == b"value"
    model.clock.advance_ns(1)
    assert model.get(b"key") is None
