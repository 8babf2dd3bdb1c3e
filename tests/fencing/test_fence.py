"""Which writes a fence lets through, on real servers."""

from __future__ import annotations

import pytest
import redis

from multielect import ElectionGroup, Elector, NotLeaderError, StaleEpochError, Term
from multielect.embedded import EmbeddedServer
from multielect.fencing import Fence, FencedScript, Writer

from .elections import (
    LAYOUT,
    PREFIX,
    counter,
    elect,
    lose_counter,
    lose_fence,
    wait_until_after,
)

FENCE_KEY = LAYOUT.fence_key(b"p")
EPOCH_KEY = LAYOUT.epoch_key(b"p")


def by(epoch: int) -> Writer:
    return Writer(key="p", epoch=epoch)


# ---- who may write


def test_the_newest_epoch_writes_as_often_as_it_likes(
    fence: Fence, redis_client: redis.Redis
) -> None:
    epoch = elect(redis_client)
    assert fence.set(by(epoch), "register", "one") is True
    assert fence.set(by(epoch), "register", "two") is True
    assert redis_client.get("register") == b"two"


def test_whoever_was_elected_need_not_have_written_for_the_older_to_be_refused(
    fence: Fence, redis_client: redis.Redis
) -> None:
    old = elect(redis_client)
    fence.set(by(old), "register", "old")
    new = elect(redis_client)
    with pytest.raises(StaleEpochError) as refused:
        fence.set(by(old), "register", "late")
    assert redis_client.get("register") == b"old"
    assert (refused.value.key, refused.value.epoch, refused.value.newest_epoch) == ("p", old, new)
    assert str(new) in str(refused.value)


def test_a_stale_write_of_any_kind_does_nothing(fence: Fence, redis_client: redis.Redis) -> None:
    old = elect(redis_client)
    elect(redis_client)
    script = FencedScript("redis.call('SET', KEYS[1], ARGV[1])")
    for write in (
        lambda: fence.set(by(old), "string", 1),
        lambda: fence.hset(by(old), "hash", {"a": 1}),
        lambda: fence.xadd(by(old), "stream", {"a": 1}),
        lambda: fence.run(by(old), script, ["body"], [1]),
    ):
        with pytest.raises(StaleEpochError):
            write()
    assert redis_client.exists("string", "hash", "stream", "body") == 0


def test_a_fence_that_was_told_so_returns_false(redis_client: redis.Redis) -> None:
    fence = Fence(redis_client, PREFIX, raise_stale=False)
    old = elect(redis_client)
    new = elect(redis_client)
    script = FencedScript("return 'made'")
    assert fence.set(by(old), "string", 1) is False
    assert fence.hset(by(old), "hash", {"a": 1}) is False
    assert fence.xadd(by(old), "stream", {"a": 1}) is False
    assert fence.run(by(old), script) is False
    assert fence.run(by(new), script) == b"made"
    with pytest.raises(redis.ResponseError):
        fence.run(by(new), FencedScript("return redis.error_reply('ERR no')"))


def test_the_elections_of_a_group_have_nothing_to_do_with_each_other(
    fence: Fence, redis_client: redis.Redis
) -> None:
    first, other = elect(redis_client, "p"), elect(redis_client, "q")
    elect(redis_client, "q")
    assert fence.set(by(first), "register", 1)
    with pytest.raises(StaleEpochError):
        fence.set(Writer(key="q", epoch=other), "register", 2)


def test_an_epoch_of_many_digits_is_compared_exactly(
    fence: Fence, redis_client: redis.Redis
) -> None:
    largest = 2**53 - 1
    redis_client.set(EPOCH_KEY, largest)
    with pytest.raises(StaleEpochError) as refused:
        fence.set(by(largest - 1), "register", 1)
    assert refused.value.newest_epoch == largest
    assert fence.set(by(largest), "register", 2)
    assert redis_client.get(FENCE_KEY) == b"9007199254740991"


# ---- what was lost


def test_a_lost_counter_is_put_back_before_the_write(
    fence: Fence, redis_client: redis.Redis
) -> None:
    epoch = elect(redis_client, epochs="time")
    lose_counter(redis_client)
    seen = fence.run(by(epoch), FencedScript("return redis.call('GET', KEYS[1])"), [EPOCH_KEY])
    assert seen == b"%d" % epoch


def test_a_counter_that_lags_is_raised(fence: Fence, redis_client: redis.Redis) -> None:
    epoch = elect(redis_client, epochs="time")
    redis_client.set(EPOCH_KEY, 3)
    fence.set(by(epoch), "register", 1)
    assert counter(redis_client) == b"%d" % epoch
    assert elect(redis_client) == epoch + 1


def test_an_older_epoch_is_refused_also_when_the_counter_was_lost(
    fence: Fence, redis_client: redis.Redis
) -> None:
    old, new = elect(redis_client), elect(redis_client)
    fence.set(by(new), "register", "new")
    lose_counter(redis_client)
    with pytest.raises(StaleEpochError):
        fence.set(by(old), "register", "old")
    assert redis_client.get("register") == b"new"
    # The refusal has put the counter back, for the next election.
    assert counter(redis_client) == b"%d" % new
    assert elect(redis_client) == new + 1


def test_an_older_epoch_is_refused_also_when_the_fence_was_lost(
    fence: Fence, redis_client: redis.Redis
) -> None:
    old, new = elect(redis_client), elect(redis_client)
    fence.set(by(new), "register", "new")
    lose_fence(redis_client)
    with pytest.raises(StaleEpochError):
        fence.set(by(old), "register", "old")


def test_a_counter_that_began_again_is_told_of_those_who_wrote(
    fence: Fence, redis_client: redis.Redis
) -> None:
    newest = [elect(redis_client) for _ in range(5)][-1]
    fence.set(by(newest), "register", "newest")
    lose_counter(redis_client)
    began_again = elect(redis_client)
    assert began_again == 1
    with pytest.raises(StaleEpochError):
        fence.set(by(began_again), "register", "lower")
    after = elect(redis_client)
    assert after > newest
    assert fence.set(by(after), "register", "higher")


def test_after_flushall_the_next_election_shuts_the_older_out(
    fence: Fence, redis_client: redis.Redis
) -> None:
    old = elect(redis_client, epochs="time")
    fence.set(by(old), "register", "old")
    redis_client.flushall()
    # Nothing is known and nothing is there: the register begins anew.
    assert fence.set(by(old), "register", "again")
    redis_client.flushall()
    wait_until_after(redis_client, old)
    new = elect(redis_client, epochs="time")
    assert new > old
    with pytest.raises(StaleEpochError):
        fence.set(by(old), "register", "late")
    assert redis_client.get("register") is None


# ---- what is written


def test_set_writes_what_it_is_given(fence: Fence, redis_client: redis.Redis) -> None:
    writer = by(elect(redis_client))
    given: dict[str | bytes | int | float, bytes] = {
        "ä": "ä".encode(),
        b"\x00\xff": b"\x00\xff",
        7: b"7",
        0.5: b"0.5",
    }
    for value, kept in given.items():
        fence.set(writer, "register", value)
        assert redis_client.get("register") == kept
    assert redis_client.ttl("register") == -1
    fence.set(writer, b"register", "", ttl=60)
    assert redis_client.get("register") == b""
    assert 0 < redis_client.pttl("register") <= 60_000


def test_hset_says_true_whether_or_not_a_field_is_new(
    fence: Fence, redis_client: redis.Redis
) -> None:
    writer = by(elect(redis_client))
    assert fence.hset(writer, "hash", {"a": 1, b"b": "two"}) is True
    assert fence.hset(writer, "hash", {"a": 3}) is True
    assert redis_client.hgetall("hash") == {b"a": b"3", b"b": b"two"}


def test_hset_takes_as_many_fields_as_it_says(fence: Fence, redis_client: redis.Redis) -> None:
    writer = by(elect(redis_client))
    assert fence.hset(writer, "hash", {f"field {i}": i for i in range(3_500)})
    assert redis_client.hlen("hash") == 3_500


def test_xadd_returns_the_id_and_trims(fence: Fence, redis_client: redis.Redis) -> None:
    writer = by(elect(redis_client))
    assert fence.xadd(writer, "stream", {"a": 1}, id="5-1") == b"5-1"
    made = fence.xadd(writer, "stream", {"a": 2})
    assert [entry for entry, _ in redis_client.xrange("stream") or []] == [b"5-1", made]
    for i in range(500):
        fence.xadd(writer, "long", {"i": i}, maxlen=10)
    assert redis_client.xlen("long") < 250


def test_a_body_sees_its_own_keys_and_arguments_and_its_reply_comes_back(
    fence: Fence, redis_client: redis.Redis
) -> None:
    writer = by(elect(redis_client))
    script = FencedScript("return {#KEYS, #ARGV, KEYS[2], ARGV[3]} -- no more")
    assert fence.run(writer, script, ["a", "b"], ["x", 1, b"]] end\x00"]) == [
        2,
        3,
        b"b",
        b"]] end\x00",
    ]
    assert fence.run(writer, FencedScript("local nothing = 1")) is None
    assert fence.run(writer, FencedScript("return {}")) == []
    assert fence.run(writer, FencedScript("return {ok = 'FINE'}")) == b"FINE"
    assert fence.run(writer, FencedScript("return 0")) == 0


def test_a_client_that_decodes_gets_text(server: EmbeddedServer, redis_client: redis.Redis) -> None:
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        fence = Fence(client, PREFIX)
        client.set(f"{PREFIX}:buckets", 256)
        writer = by(elect(redis_client))
        assert fence.xadd(writer, "stream", {"a": 1}, id="5-1") == "5-1"
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            fence.hset(writer, "stream", {"a": 1})


# ---- what fails


def test_a_command_on_a_key_of_another_type_is_reported(
    fence: Fence, redis_client: redis.Redis
) -> None:
    writer = by(elect(redis_client))
    redis_client.rpush("list", "x")
    with pytest.raises(redis.ResponseError, match=r"^WRONGTYPE"):
        fence.hset(writer, "list", {"a": 1})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("redis.call('SET', KEYS[1], 'half') error('told so')", "^ERR .*told so"),
        ("redis.call('SET', KEYS[1], 'half') error({err = 'MINE so'})", "^MINE so"),
        ("redis.call('SET', KEYS[1], 'half') return redis.error_reply('MINE so')", "^MINE so"),
        ("redis.call('SET', KEYS[1], 'half') redis.call('INCR', KEYS[1])", "not an integer"),
        ("redis.call('SET', KEYS[1], 'half') return nil + 1", "arithmetic"),
    ],
)
def test_a_body_that_fails_is_reported_and_keeps_what_it_did(
    fence: Fence, redis_client: redis.Redis, body: str, said: str
) -> None:
    writer = by(elect(redis_client))
    with pytest.raises(redis.ResponseError, match=said):
        fence.run(writer, FencedScript(body), ["register"])
    assert redis_client.get("register") == b"half"


def test_a_body_that_failed_has_raised_the_fence_before(
    fence: Fence, redis_client: redis.Redis
) -> None:
    old, new = elect(redis_client), elect(redis_client)
    body = "redis.call('SET', KEYS[1], 'half') error('told so')"
    with pytest.raises(redis.ResponseError):
        fence.run(by(new), FencedScript(body), ["register"])
    lose_counter(redis_client)
    with pytest.raises(StaleEpochError):
        fence.set(by(old), "register", "old")


def test_a_body_that_is_no_lua_is_reported(fence: Fence, redis_client: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError, match="compiling"):
        fence.run(by(elect(redis_client)), FencedScript("this is no Lua"))


@pytest.mark.parametrize("key", [EPOCH_KEY, FENCE_KEY])
@pytest.mark.parametrize(
    "spoilt", ["list", "abc", "nan", "1e3", "0x10", "", "9007199254740992", "9" * 40]
)
def test_an_epoch_that_cannot_be_read_lets_nobody_write(
    fence: Fence, redis_client: redis.Redis, key: bytes, spoilt: str
) -> None:
    epoch = elect(redis_client, epochs="time")
    redis_client.delete(key)
    if spoilt == "list":
        redis_client.rpush(key, "x")
    else:
        redis_client.set(key, spoilt)
    with pytest.raises(redis.ResponseError):
        fence.set(by(epoch), "register", 1)
    assert redis_client.get("register") is None


def test_a_full_server_refuses_a_write_whole(binary: str) -> None:
    with EmbeddedServer(binary=binary) as server, redis.Redis.from_url(server.url) as client:
        fence = Fence(client, PREFIX)
        old, new = elect(client), elect(client)
        script = FencedScript("redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[2], 'x')")
        client.set("there", "x")
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            fence.run(by(new), script, ["there", "other"])
        client.config_set("maxmemory", 0)
        assert client.get("there") == b"x"
        assert client.get(FENCE_KEY) is None
        with pytest.raises(StaleEpochError):
            fence.run(by(old), script, ["there", "other"])


def test_a_replica_refuses_to_write(binary: str) -> None:
    with EmbeddedServer(binary=binary) as server, redis.Redis.from_url(server.url) as client:
        epoch = elect(client)
        fence = Fence(client, PREFIX)
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(redis.exceptions.ReadOnlyError):
            fence.run(by(epoch), FencedScript("return 1"))


# ---- scripts on the server


def test_a_server_that_forgot_the_scripts_is_given_them_again(
    fence: Fence, redis_client: redis.Redis
) -> None:
    writer = by(elect(redis_client))
    assert fence.set(writer, "register", 1)
    redis_client.script_flush()
    assert fence.set(writer, "register", 2)
    assert redis_client.get("register") == b"2"


def test_a_script_is_sent_once(fence: Fence, redis_client: redis.Redis) -> None:
    writer = by(elect(redis_client))
    fence.set(writer, "register", 1)
    redis_client.config_resetstat()
    for value in range(10):
        fence.set(writer, "register", value)
    calls = redis_client.info("commandstats")
    assert calls["cmdstat_evalsha"]["calls"] == 10
    # The counter and the fence are written once a term, and not with each write.
    assert calls["cmdstat_set"]["calls"] == 10
    assert "cmdstat_eval" not in calls


class OldServer(redis.Redis):
    """Answers the question for flags as a server before 7.0 does, or in another way."""

    answer = "Error compiling script (new function): user_script:1: unexpected symbol near '#'"

    def eval(self, script: str, numkeys: int, *keys_and_args: object) -> object:
        if script.startswith("#!lua"):
            raise redis.ResponseError(self.answer)
        return super().eval(script, numkeys, *keys_and_args)  # type: ignore[arg-type]


def test_a_server_that_knows_no_flags_gets_none(
    server: EmbeddedServer, redis_client: redis.Redis
) -> None:
    with OldServer.from_url(server.url) as client:
        fence = Fence(client, PREFIX)
        assert fence.set(by(elect(redis_client)), "register", 1)
        assert fence._knows_flags is False


def test_a_server_that_forbids_scripts_says_so(
    server: EmbeddedServer, redis_client: redis.Redis
) -> None:
    with OldServer.from_url(server.url) as client:
        client.answer = "NOPERM this user has no permissions to run the 'eval' command"
        fence = Fence(client, PREFIX)
        with pytest.raises(redis.ResponseError, match="NOPERM"):
            fence.set(by(elect(redis_client)), "register", 1)
        assert fence._knows_flags is None


# ---- terms and elections as writers


def test_a_term_is_refused_once_another_node_was_elected(
    redis_url: str, redis_client: redis.Redis
) -> None:
    terms: list[Term] = []
    with (
        ElectionGroup(redis_url, prefix=PREFIX, ttl=2.0, on_elected=terms.append) as one,
        ElectionGroup(redis_url, prefix=PREFIX, ttl=2.0) as two,
    ):
        fence = Fence(redis_client, one)
        mine = one.add("p")
        assert mine.wait(timeout=10)
        assert fence.set(mine, "register", "one")
        theirs = two.add("p")
        assert mine.resign()
        assert theirs.wait(timeout=10)

        # Nothing was written under the newer epoch: that it was elected is enough.
        with pytest.raises(StaleEpochError) as refused:
            fence.set(mine, "register", "late")
        assert refused.value.newest_epoch == theirs.epoch
        assert Fence(redis_client, two).set(theirs, "register", "two")
    # Callbacks are done when a group has stopped.
    (term,) = terms
    with pytest.raises(StaleEpochError):
        fence.set(term, "register", "later still")
    assert redis_client.get("register") == b"two"


def test_a_term_keeps_its_epoch_where_the_same_node_was_elected_again(
    redis_url: str, redis_client: redis.Redis
) -> None:
    terms: list[Term] = []
    with ElectionGroup(redis_url, prefix=PREFIX, ttl=2.0, on_elected=terms.append) as group:
        election = group.add("p")
        assert election.wait(timeout=10)
        first_epoch = election.epoch
        election.resign()
        election.campaign()
        assert election.wait(timeout=10)
        assert election.epoch > first_epoch
        fence = Fence(redis_client, group)
        assert fence.set(election, "register", "second term")
    with pytest.raises(StaleEpochError):
        fence.set(terms[0], "register", "first term")


def test_an_elector_has_a_fence_too(redis_url: str, redis_client: redis.Redis) -> None:
    terms: list[Term] = []
    with Elector(redis_url, prefix="billing", ttl=2.0, on_elected=terms.append) as elector:
        assert elector.wait(timeout=10)
        epoch = elector.require_leader()
    fence = Fence(redis_client, elector)
    assert fence.data_key("", "report") == b"billing:{election}:report"
    assert fence.set(Writer(epoch=epoch), fence.data_key("", "report"), "made")
    assert fence.set(terms[0], fence.data_key("", "report"), "made")
    redis_client.incr("billing:{election}:epoch")
    with pytest.raises(StaleEpochError):
        fence.set(terms[0], fence.data_key("", "report"), "late")


def test_whoever_never_led_has_no_epoch_to_write_under(
    redis_url: str, redis_client: redis.Redis
) -> None:
    group = ElectionGroup(redis_url, prefix=PREFIX)
    with pytest.raises(NotLeaderError):
        Fence(redis_client, group).set(group.add("p"), "register", 1)
