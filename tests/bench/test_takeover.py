"""Time without a leader: how it is counted, who polls, and who stands."""

from __future__ import annotations

import pytest
import redis

from multielect._runtime.clock import Clock
from multielect.cli.bench.instruments.children import Child
from multielect.cli.bench.subjects.ours import KEY
from multielect.cli.bench.subjects.poller import Poller, names_of, poll, sliced
from multielect.cli.bench.suite import BenchError
from multielect.cli.bench.suites.takeover import Begun, gaps_ns, stand

KEYS = [KEY.format(number) for number in range(40)]
MAX_S = 60
HOUR_S = 3600.0


def test_a_gap_is_from_an_end_to_a_belief_or_a_callback() -> None:
    ends = {"a": 100, "b": 130}
    begun = {"a": Begun(150, 900), "b": Begun(131, 901)}

    assert gaps_ns(ends, begun, lambda term: term.began_ns) == [50, 1]
    assert gaps_ns(ends, begun, lambda term: term.told_ns) == [800, 771]


def test_a_lease_whose_end_was_not_seen_is_left_out() -> None:
    begun = {"a": Begun(150, 900), "b": Begun(131, 901)}

    assert gaps_ns({"b": 130}, begun, lambda term: term.began_ns) == [1]


@pytest.mark.parametrize("ends", [{}, {"a": 100}])
def test_where_most_ends_were_not_seen_nothing_is_told(ends: dict[str, int]) -> None:
    begun = {key: Begun(150, 900) for key in "abc"}

    with pytest.raises(BenchError, match=f"only {len(ends)} of 3 leases were seen to end"):
        gaps_ns(ends, begun, lambda term: term.began_ns)


@pytest.mark.parametrize("size", [1, 31, 32, 1000])
def test_a_poller_tries_for_each_key_once_a_round(size: int) -> None:
    names = names_of("poller", size)
    slices = sliced(names)

    assert sorted(name for some in slices for name in some) == sorted(names)
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_a_poller_has_what_is_free_and_nothing_else(
    redis_url: str, redis_client: redis.Redis
) -> None:
    names = names_of("poller", 40)
    redis_client.mset(dict.fromkeys(names[:10], "leader/0"))
    before_ns = Clock().now_ns()
    with redis.Redis.from_url(redis_url) as client:
        poller = Poller(client, names, ttl_s=HOUR_S, round_s=0.02)
        poller.go_round()
        assert sorted(poller.won_ns) == sorted(names[10:])
        left = len(names) - len(poller.won_ns)
        assert left == 10
        redis_client.delete(*names[:5])
        poller.go_round()
        assert sorted(poller.won_ns) == sorted(names[:5] + names[10:])
        redis_client.delete(*names[5:10])
        poller.go_round()
        # What it once had is not tried for again.
        redis_client.delete(*names)
        poller.go_round()
        assert redis_client.dbsize() == 0

    assert poller.has_all
    assert all(before_ns < won_ns <= Clock().now_ns() for won_ns in poller.won_ns.values())


def test_a_polling_process_follows_its_leader(redis_url: str, redis_client: redis.Redis) -> None:
    names = names_of("poller", 40)
    with Child("the poller", poll, redis_url, 0.3) as child:
        for _ in range(2):
            redis_client.mset(dict.fromkeys(names, "leader/0"))
            child.send(names)
            child.receive(MAX_S)
            ended_ns = Clock().now_ns()
            redis_client.delete(*names)
            child.send("took")
            won_ns = child.receive(MAX_S)

            assert sorted(won_ns) == sorted(names)
            assert min(won_ns.values()) > ended_ns


def test_who_stands_takes_over_and_tells_when(redis_url: str) -> None:
    order = ("takeover", len(KEYS))
    # Nobody waits for a TTL of an hour: it is the release that the other hears of.
    with (
        Child("a", stand, redis_url, "a", HOUR_S) as first,
        Child("b", stand, redis_url, "b", HOUR_S) as second,
    ):
        first.send((*order, "lead"))
        first.receive(MAX_S)
        second.send((*order, "stand by"))
        second.receive(MAX_S)
        told_ns = Clock().now_ns()
        first.send("stop")
        ended_ns = first.receive(MAX_S)
        second.send("took")
        begun = second.receive(MAX_S)

        assert sorted(ended_ns) == sorted(begun) == KEYS
        for key, term in begun.items():
            assert told_ns < ended_ns[key] < term.began_ns < term.told_ns <= Clock().now_ns()
        # It is ready for the next.
        second.send("end")
        assert second.receive(MAX_S) is not None
        second.send(("another", 3, "lead"))
        second.receive(MAX_S)
        second.send("took")
        assert sorted(second.receive(MAX_S)) == KEYS[:3]
