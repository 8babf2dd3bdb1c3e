"""The model of Redis answers as real servers do.

Both are given the same calls, at random, over keys of every kind that can stand there, on a server
that is full now and then. Before each call the model's wall clock is set by the server's. So times
are compared within a margin, and epochs minted from the time by what they are greater than;
everything else is compared as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest
import redis

from multielect._protocol.keys import KeyLayout, group_layout
from multielect._protocol.scripts import LARGEST_EPOCH, WITH_FLAGS, WITHOUT_FLAGS, Script, ScriptSet
from multielect.embedded import EmbeddedServer
from multielect.fencing._writes import Write, Writer, packed
from multielect.testing import ManualClock, RedisModel, Refusal
from multielect.testing._resp import Push, Reply
from multielect.testing._scripts_model import ONE_DAY_MS

LAYOUT: KeyLayout = group_layout("m", 2)
ELECTIONS = [b"%d" % number for number in range(6)]
HOLDERS = [b"a/1", b"b/2", b"bare"]
TTL_MS = 60_000
CHANNEL = LAYOUT.channel
MEMBERSHIP_KEYS = [LAYOUT.members_key, LAYOUT.plan_key]
PLANS = [b"", b"1 a", b"2 \r\n", b"10 ", b"9" * 15 + b" x", b"9" * 16 + b" x", b"no plan", b"0 a"]
NAME = b"m:data"
ODD_VALUES: list[bytes | list[bytes]] = [
    b"someone",
    b"7",
    b"-5",
    b"no number",
    b"%d" % LARGEST_EPOCH,
    b"%d" % (LARGEST_EPOCH + 1),
    [b"a", b"list"],
]
RETENTION_MS = 3_600_000
MARGIN_MS = 30_000  # how long a slow machine may take between two calls

WEIGHTS = {
    "acquire": 4,
    "refresh": 2,
    "release": 3,
    "grant": 3,
    "membership": 2,
    "fence": 2,
    "odd": 1,
    "end": 1,
    "full": 1,
    "forget": 1,
}


def pairs(elections: list[bytes]) -> list[bytes]:
    return [key for n in elections for key in (LAYOUT.leader_key(n), LAYOUT.epoch_key(n))]


def triples(elections: list[bytes]) -> list[bytes]:
    names = (LAYOUT.leader_key, LAYOUT.epoch_key, LAYOUT.fence_key)
    return [name(n) for n in elections for name in names]


@dataclass
class Both:
    """The model and another server, side by side."""

    real: Any  # redis-py types its commands for both of its fronts at once
    model: RedisModel
    scripts: ScriptSet
    by_time: bool
    can_be_full: bool
    chance: random.Random
    pushed: list[Push] = field(default_factory=list)
    epochs: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    answers: list[Reply] = field(default_factory=list)

    def call(
        self, script: Script, keys: list[bytes], real: list[bytes], model: list[bytes]
    ) -> tuple[Reply, Reply]:
        """Run a script on both, with the arguments that each needs."""
        self.set_clock()
        words: list[Any] = [b"EVALSHA", script.sha, b"%d" % len(keys)]
        answers = normal(self._ask(*words, *keys, *real)), self._ask_model(words, keys, model)
        if isinstance(answers[0], Refusal) and answers[0].text.startswith("NOSCRIPT"):
            assert isinstance(answers[1], Refusal)
            assert answers[1].text.startswith("NOSCRIPT")
            words = [b"EVAL", script.body, b"%d" % len(keys)]
            answers = normal(self._ask(*words, *keys, *real)), self._ask_model(words, keys, model)
        self.answers.append(answers[1])
        return answers

    def set_clock(self) -> None:
        seconds, micros = self.real.time()
        ahead_ms = seconds * 1000 + micros // 1000 - self.model.now_ms()
        self.model.store.step_clock(ahead_ms * 1_000_000)

    def _ask(self, *words: bytes) -> object:
        try:
            return self.real.execute_command(*words)
        except redis.ResponseError as error:
            # redis-py takes the code off some errors, which then tell it by their class.
            code = "NOSCRIPT " if isinstance(error, redis.exceptions.NoScriptError) else ""
            return Refusal(code + str(error))

    def _ask_model(self, words: list[bytes], keys: list[bytes], arguments: list[bytes]) -> Reply:
        return normal(self.model.call([*words, *keys, *arguments]))

    def counters(self, elections: list[bytes]) -> list[int]:
        """Return what the real server's epoch counters stand at; 0 where they are odd."""
        found = []
        for key in map(LAYOUT.epoch_key, elections):
            text = self.real.get(key) if self.real.type(key) == b"string" else b""
            found.append(int(text) if text.isdigit() else 0)
        return found

    def put(self, key: bytes, value: bytes | list[bytes], ttl_ms: int | None = None) -> None:
        self.set_full(full=False)
        self.set_clock()
        self.model.put(key, value, ttl_ms)
        self.real.delete(key)
        if isinstance(value, list):
            self.real.rpush(key, *value)
            if ttl_ms is not None:
                self.real.pexpire(key, ttl_ms)
        else:
            self.real.set(key, value, px=ttl_ms)

    def set_full(self, *, full: bool) -> None:
        if self.can_be_full:
            self.real.config_set("maxmemory", 1 if full else 0)
            self.model.is_full = full

    def real_dump(self) -> dict[bytes, Any]:
        read = {
            b"list": lambda key: self.real.lrange(key, 0, -1),
            b"hash": self.real.hgetall,
            b"string": self.real.get,
        }
        return {key: read[self.real.type(key)](key) for key in self.real.scan_iter()}


def normal(answer: object) -> Reply:
    """Return an answer of either, errors in one form."""
    if isinstance(answer, (redis.ResponseError, Refusal)):
        text = str(answer) if isinstance(answer, redis.ResponseError) else answer.text
        text = text.removeprefix("ERR ").split(" Op")[0]
        for code in ("OOM", "WRONGTYPE", "NOSCRIPT"):
            if code in text or (code == "OOM" and "maxmemory" in text):
                return Refusal(code)
        return Refusal(text)
    if isinstance(answer, list):
        return [normal(part) for part in answer]
    if isinstance(answer, str):
        return answer.encode()
    if answer is True:
        return b"OK"
    assert answer is None or isinstance(answer, (int, bytes))
    return answer


def is_about(here: object, there: object) -> bool:
    """Tell whether two times are as far apart as a slow machine makes them, at the most."""
    assert isinstance(here, int)
    assert isinstance(there, int)
    return abs(here - there) <= MARGIN_MS


def lists(real: Reply, model: Reply) -> tuple[list[Reply], list[Reply]] | None:
    """Return two answers if they are lists; None if they are the same refusal."""
    if isinstance(real, Refusal) or isinstance(model, Refusal):
        assert real == model
        return None
    assert isinstance(real, list)
    assert isinstance(model, list)
    assert is_about(real[0], model[0])
    assert len(real) == len(model)
    return real, model


def acquire(both: Both, elections: list[bytes], holder: bytes) -> None:
    epochs = b"time" if both.by_time else b"counter"
    words = [holder, b"%d" % TTL_MS, epochs, both.chance.choice([b"", CHANNEL])]
    before = both.counters(elections)
    floors = {}
    for place, last in enumerate(before, 1):
        if both.chance.random() < 0.2:
            floors[place] = both.chance.choice([last + 90_000_000, 3, LARGEST_EPOCH, last])
    words += [b"%d" % word for floor in floors.items() for word in floor]
    found = lists(*both.call(both.scripts.acquire, pairs(elections), words, words))
    if found is None:
        return
    real, model = found
    assert real[1] == model[1], "the same holders, in the same order"
    for place, election in enumerate(elections):
        last, here, there = before[place], real[2 + place], model[2 + place]
        if isinstance(there, Refusal) or isinstance(here, Refusal):
            assert here == there
            continue
        assert isinstance(here, int)
        assert isinstance(there, int)
        if there > 0:
            assert here > last, "an epoch did not rise"
            assert here > floors.get(place + 1, 0), "an epoch is not above its floor"
            assert is_about(here, there) if both.by_time else here == there
            both.epochs[election] = here, there
        else:
            assert -here % 256 == -there % 256
            assert is_about(-here // 256, -there // 256)


def refresh(both: Both, elections: list[bytes], holder: bytes) -> None:
    keys, words = list(map(LAYOUT.leader_key, elections)), [holder, b"%d" % TTL_MS]
    found = lists(*both.call(both.scripts.refresh, keys, words, words))
    assert found is not None
    assert found[0][1:] == found[1][1:]


def same_ends(both: Both, real: list[Reply], model: list[Reply]) -> None:
    """See that both say the same of which counters moved on, and of what failed."""
    assert real[2] == model[2]
    assert isinstance(real[1], list)
    assert isinstance(model[1], list)
    assert real[1][::2] == model[1][::2]
    for here, there in zip(real[1][1::2], model[1][1::2], strict=True):
        assert is_about(here, there) if both.by_time else here == there


def release(both: Both, elections: list[bytes], holder: bytes) -> None:
    late = both.chance.random() < 0.2
    terms = [both.epochs.get(n, (1, 1)) for n in elections]
    head = [holder, CHANNEL]
    script, keys, tail = both.scripts.release, pairs(elections), []
    if both.chance.random() < 0.5:
        script, keys = both.scripts.expiring_release, triples(elections)
        tail = [b"%d" % RETENTION_MS]
    found = lists(
        *both.call(
            script,
            keys,
            head + [b"%d" % (real_epoch - late) for real_epoch, _ in terms] + tail,
            head + [b"%d" % (model_epoch - late) for _, model_epoch in terms] + tail,
        )
    )
    assert found is not None
    same_ends(both, *found)


def grant(both: Both, elections: list[bytes], holder: bytes) -> None:
    terms = [both.epochs.get(n, (1, 1)) for n in elections]
    successors = [both.chance.choice([b"", *HOLDERS]) for _ in elections]
    head = [holder, CHANNEL, b"%d" % TTL_MS]
    script, keys, tail = both.scripts.grant, pairs(elections), []
    if both.chance.random() < 0.5:
        script, keys = both.scripts.expiring_grant, triples(elections)
        tail = [b"%d" % RETENTION_MS]
    here, there = (
        [w for t, to in zip(terms, successors, strict=True) for w in (b"%d" % t[side], to)]
        for side in (0, 1)
    )
    found = lists(*both.call(script, keys, head + here + tail, head + there + tail))
    assert found is not None
    same_ends(both, *found)


def membership(both: Both, _: list[bytes], holder: bytes) -> None:
    chance = both.chance
    words = [holder, chance.choice([b"0", b"%d" % TTL_MS]), chance.choice([b"0", b"7"])]
    words += [chance.choice([b"", b"1:2 {}\n"]), CHANNEL]
    words += [chance.choice([b"0", b"1", b"2"]), chance.choice(PLANS)]
    real, model = both.call(both.scripts.membership, MEMBERSHIP_KEYS, words, words)
    if isinstance(real, Refusal) or isinstance(model, Refusal):
        assert real == model
        return
    here, there = read_membership(real), read_membership(model)
    assert here[0] == there[0]
    assert here[1].keys() == there[1].keys()
    for name, (left, since, text) in here[1].items():
        assert text == there[1][name][2]
        assert is_about(left, there[1][name][0])
        assert is_about(since, there[1][name][1])


def read_membership(answer: Reply) -> tuple[list[bytes], dict[bytes, tuple[int, int, bytes]]]:
    """Return whether the caller was there, the plan, and what is said of each member."""
    assert isinstance(answer, bytes)
    words, text = [], answer
    while text:
        size, _, text = text.partition(b":")
        words.append(text[: int(size)])
        text = text[int(size) :]
    members = zip(words[4::4], words[5::4], words[6::4], words[7::4], strict=True)
    return words[1:4], {name: (int(left), int(since), text) for name, left, since, text in members}


def fence(both: Both, elections: list[bytes], _: bytes) -> None:
    newer = both.chance.choice([-1, 0, 0, 1])
    batches = []
    for side in (0, 1):
        writes = []
        for n in elections:
            writer = Writer(key=n, epoch=max(1, both.epochs.get(n, (5, 5))[side] + newer))
            writes.append(Write.set(writer, NAME + n, "value"))
            writes.append(Write.hset(writer, NAME, {n: "field", b"same": "field"}))
        (batch,) = packed(writes, LAYOUT, spans_buckets=True)
        batches.append(batch)
    with_flags = both.scripts is WITH_FLAGS
    script = batches[0].script.with_flags if with_flags else batches[0].script.without_flags
    real, model = both.call(script, batches[0].keys, batches[0].arguments, batches[1].arguments)
    if isinstance(real, Refusal) or isinstance(model, Refusal):
        assert real == model
        return
    assert isinstance(real, list)
    assert isinstance(model, list)
    for here, there in zip(real, model, strict=True):
        assert isinstance(here, list)
        assert isinstance(there, list)
        assert here[0] == there[0]
        if here[0] == 0 and both.by_time and here[1] != there[1]:
            assert is_about(here[1], there[1])
        elif here[0] == -1:
            assert isinstance(here[1], bytes)
            assert isinstance(there[1], bytes)
            assert here[1].split()[0] == there[1].split()[0]
        elif here[0] == 1:
            assert here[1] == there[1]


def odd(both: Both, elections: list[bytes], _: bytes) -> None:
    name = both.chance.choice([LAYOUT.leader_key, LAYOUT.epoch_key, LAYOUT.fence_key])
    key = both.chance.choice([name(elections[0]), name(elections[0]), *MEMBERSHIP_KEYS])
    ttl_ms = both.chance.choice([None, 5_000_000, 3 * ONE_DAY_MS])
    both.put(key, both.chance.choice(ODD_VALUES), ttl_ms)


def end(both: Both, elections: list[bytes], _: bytes) -> None:
    """A lease ends, or a user deletes it."""
    name = both.chance.choice([LAYOUT.leader_key, LAYOUT.leader_key, LAYOUT.epoch_key])
    key = both.chance.choice([*[name(elections[0])] * 3, *MEMBERSHIP_KEYS])
    assert both.model.delete(key) == bool(both.real.delete(key))


def full(both: Both, _: list[bytes], __: bytes) -> None:
    both.set_full(full=not both.model.is_full)


def forget(both: Both, _: list[bytes], __: bytes) -> None:
    both.real.script_flush()
    both.model.forget_scripts()


ACTS: dict[str, Callable[[Both, list[bytes], bytes], None]] = {
    "acquire": acquire,
    "refresh": refresh,
    "release": release,
    "grant": grant,
    "membership": membership,
    "fence": fence,
    "odd": odd,
    "end": end,
    "full": full,
    "forget": forget,
}


def act_at_random(both: Both) -> str:
    """Do one thing to both and compare what comes of it. Returns what it was."""
    (what,) = both.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
    elections = both.chance.sample(ELECTIONS, both.chance.randint(1, len(ELECTIONS)))
    ACTS[what](both, elections, both.chance.choice(HOLDERS))
    return what


def compare(both: Both, calls: int) -> None:
    """Play random calls, then compare all that is stored and was published."""
    both.model.subscribers.append((CHANNEL, both.pushed.append))
    with both.real.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(CHANNEL)
        listener.get_message(timeout=5)
        done = [act_at_random(both) for _ in range(calls)]
        assert set(done) == set(WEIGHTS)
        both.set_full(full=False)

        both.set_clock()
        real, model = both.real_dump(), both.model.dump()
        assert real.keys() == model.keys()
        for key, value in model.items():
            if isinstance(value, dict):
                assert real[key].keys() == value.keys()
            elif not (both.by_time and key.endswith((b":epoch", b":fence"))):
                assert real[key] == value, key
            left, lasts = both.real.pttl(key), both.model.remaining_ms(key)
            assert (left == lasts) if min(left, lasts) < 0 else is_about(left, lasts), key

        assert both.pushed, "no release was announced: the test was too tame"
        for push in both.pushed:
            heard = listener.get_message(timeout=5)
            assert heard is not None
            assert (b"message", heard["channel"], heard["data"]) == push.values
        assert listener.get_message(timeout=0.01) is None


@pytest.fixture(scope="module")
def own_client(binary: str) -> Iterator[redis.Redis]:
    """A client of a real server that may be filled up."""
    with EmbeddedServer(binary=binary) as server, redis.Redis.from_url(server.url) as client:
        yield client
        client.config_set("maxmemory", 0)


@pytest.mark.parametrize("by_time", [True, False], ids=["time", "counter"])
@pytest.mark.parametrize("scripts", [WITH_FLAGS, WITHOUT_FLAGS], ids=["flags", "bare"])
@pytest.mark.parametrize("seed", range(3))
def test_the_model_answers_as_a_real_server_does(
    own_client: redis.Redis, seed: int, scripts: ScriptSet, by_time: bool
) -> None:
    if scripts is WITH_FLAGS and int(own_client.info("server")["redis_version"].split(".")[0]) < 7:
        pytest.skip("servers before 7.0 know no flags")
    own_client.config_set("maxmemory", 0)
    own_client.flushall()
    own_client.script_flush()
    chance = random.Random(seed)
    both = Both(own_client, RedisModel(ManualClock()), scripts, by_time, True, chance)
    compare(both, 300)
    refusals = [answer.text for answer in both.answers if isinstance(answer, Refusal)]
    assert "WRONGTYPE" in refusals
    assert "OOM" in refusals or scripts is WITHOUT_FLAGS


@pytest.mark.parametrize("by_time", [True, False], ids=["time", "counter"])
@pytest.mark.parametrize("seed", range(3))
def test_the_model_answers_as_fakeredis_does_as_far_as_that_goes(seed: int, by_time: bool) -> None:
    # It knows no '#!lua', and is never full.
    fake = fakeredis.FakeRedis()
    chance = random.Random(seed)
    compare(Both(fake, RedisModel(ManualClock()), WITHOUT_FLAGS, by_time, False, chance), 200)


def test_a_lease_of_the_model_ends_with_its_ttl() -> None:
    clock = ManualClock()
    model = RedisModel(clock)
    model.put(b"key", b"value", 10)
    clock.advance_ns(9_999_999)
    assert model.get(b"key") == b"value"
    clock.advance_ns(1)
    assert model.get(b"key") is None


def test_a_failover_takes_back_the_last_writes_and_no_more() -> None:
    clock = ManualClock()
    model = RedisModel(clock)
    model.store.remembers = True
    model.put(b"old", b"1")
    clock.advance_ns(50_000_000)
    model.put(b"old", b"2")
    model.put(b"new", b"1")
    model.delete(b"old")
    clock.advance_ns(10_000_000)
    assert model.store.forget(20_000_000) == 3
    assert model.dump() == {b"old": b"1"}
    assert model.store.forget(20_000_000) == 0


def test_a_clock_that_is_set_moves_the_ends_of_leases() -> None:
    clock = ManualClock()
    model = RedisModel(clock)
    model.put(b"key", b"value", 1000)
    model.store.step_clock(-500_000_000)
    assert model.remaining_ms(b"key") == 1500
    model.store.step_clock(2_000_000_000)
    assert model.get(b"key") is None
