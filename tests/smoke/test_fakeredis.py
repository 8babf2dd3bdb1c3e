"""The whole of it on fakeredis, as users' own tests run it: RESP2 and scripts without flags."""

from __future__ import annotations

import threading

import redis

from multielect import DemotionReason, ElectionGroup, Elector, Term

LONG_S = 20.0
TTL_S = 1.0
KEYS = ["a", "b", "c"]


def test_a_group_leads_its_elections_and_gives_them_up(fake_url: str) -> None:
    with redis.Redis.from_url(fake_url, protocol=2) as client:
        with ElectionGroup(fake_url, prefix="smoke", ttl=TTL_S) as group:
            group.add_many(KEYS)
            assert all(group[key].wait(LONG_S) for key in KEYS)
            assert {election.key for election in group.led} == set(KEYS)
            leases = list(client.scan_iter("*:leader"))
            assert len(leases) == len(KEYS)
            assert {client.get(lease) for lease in leases} == {group.holder.encode()}
        assert not list(client.scan_iter("*:leader"))


def test_a_release_hands_over_under_a_higher_epoch(fake_url: str) -> None:
    ended: list[tuple[str, DemotionReason]] = []
    told = threading.Event()

    def on_demoted(term: Term, reason: DemotionReason) -> None:
        ended.append((term.key, reason))
        told.set()

    with (
        ElectionGroup(fake_url, prefix="smoke", ttl=TTL_S, on_demoted=on_demoted) as first,
        ElectionGroup(fake_url, prefix="smoke", ttl=TTL_S) as second,
    ):
        mine = first.add("a")
        assert mine.wait(LONG_S)
        theirs = second.add("a")
        before = mine.epoch
        assert mine.resign()
        assert theirs.wait(LONG_S)
        assert theirs.epoch > before
        assert not mine.is_leader
        assert told.wait(LONG_S)
    assert ended == [("a", DemotionReason.RESIGNED)]


def test_an_elector_leads(fake_url: str) -> None:
    with (
        redis.Redis.from_url(fake_url, protocol=2) as client,
        Elector(fake_url, prefix="sole", ttl=TTL_S, node_id="me") as elector,
    ):
        assert elector.wait(LONG_S)
        assert elector.leader_id == "me"
        assert client.get("sole:{election}:epoch") == b"%d" % elector.require_leader()
