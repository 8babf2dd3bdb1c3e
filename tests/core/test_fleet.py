"""Fleets on the manual clock: what moves, what differing views cost, and what a fleet survives."""

from __future__ import annotations

import math
import random
from itertools import permutations

import hypothesis
import pytest
from hypothesis import strategies as st

from multielect import MultielectError, ProtocolError
from multielect._core.core import Core
from multielect._fleet.plan import MAX_NEW_KEYS
from multielect.balance import Member

from .fleet import LAYOUT, RECONNECT_MS, Fleet, FleetNode, forge_member, members_on, moved
from .rig import MS, Rig

TTL_MS = 1000
PERIOD_MS = TTL_MS // 6
SETTLED_MS = 3 * TTL_MS


def fleet_of(rig: Rig, size: int, keys: int) -> Fleet:
    """A fleet at rest."""
    fleet = Fleet(rig, [f"k{number}" for number in range(keys)], ttl_ms=TTL_MS)
    for _ in range(size):
        fleet.join()
        fleet.settle(SETTLED_MS)
    return fleet


def assignment_of(node: FleetNode) -> dict[str, str]:
    answer = node.balancer.assignment
    assert answer is not None
    return answer.holders()


# ---- what moves


@pytest.mark.parametrize("keys", [1, 10, 40, 150])
def test_joins_and_leaves_of_equal_nodes_move_one_share(rig: Rig, keys: int) -> None:
    fleet = fleet_of(rig, 1, keys)
    chance = random.Random(keys)
    for step in range(24):
        before, size, told = fleet.leaders(), len(fleet.members), fleet.count_ended()
        killed = 0
        if step < 9 or (step < 18 and chance.random() < 0.5):
            fleet.join()
        elif size > 1:
            node = chance.choice(fleet.members)
            if chance.random() < 0.5:
                fleet.leave(node)
            else:
                killed = len(node.leads_now)
                fleet.kill(node)
        fleet.settle(SETTLED_MS)
        largest = max(size, len(fleet.members))
        moves = moved(before, fleet.leaders())
        assert moves <= math.ceil(keys / largest)
        if not killed:
            assert fleet.count_ended() - told == moves, "some moved there and back"
        assert max(fleet.loads()) - min(fleet.loads()) <= 1
    fleet.check_terms()
    assert [error for node in fleet.all for error in node.errors] == []


STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "kill"]), st.sampled_from([0.5, 1.0, 2.0, 7.0])),
    min_size=1,
    max_size=10,
)


@hypothesis.settings(max_examples=25)
@hypothesis.given(st.integers(1, 60), STEPS, st.randoms(use_true_random=False))
def test_weighted_nodes_move_a_share_and_little_more(
    keys: int, steps: list[tuple[str, float]], chance: random.Random
) -> None:
    fleet = Fleet(Rig(), [f"k{number}" for number in range(keys)], ttl_ms=TTL_MS)
    weights = {fleet.join(weight=2.0): 2.0}
    fleet.settle(SETTLED_MS)
    for what, weight in steps:
        before, total = fleet.leaders(), sum(weights[node] for node in fleet.members)
        if what == "join" or len(fleet.members) == 1:
            weights[fleet.join(weight=weight)] = weight
            share = keys * weight / (total + weight)
        else:
            node = chance.choice(fleet.members)
            (fleet.leave if what == "leave" else fleet.kill)(node)
            share = keys * weights[node] / total
        fleet.settle(SETTLED_MS)
        assert moved(before, fleet.leaders()) <= math.ceil(share) + max(1, keys // 20)
    fleet.check_terms()


def test_a_fleet_with_many_elections_keeps_no_plan(rig: Rig) -> None:
    fleet = Fleet(rig, [f"k{number}" for number in range(MAX_NEW_KEYS + 1)], ttl_ms=TTL_MS)
    fleet.join()
    fleet.join()
    rig.run_ms(PERIOD_MS)
    assert rig.server.get(LAYOUT.plan_key) is None


# ---- who writes the plan down


def plan_number(rig: Rig) -> int:
    text = rig.server.get(LAYOUT.plan_key)
    return 0 if text is None else int(text.partition(b" ")[0])


def test_one_change_makes_one_plan(rig: Rig) -> None:
    fleet = fleet_of(rig, 4, 20)
    assert plan_number(rig) == 4
    rig.run_ms(10 * TTL_MS)
    assert plan_number(rig) == 4
    calls = [
        batch.arguments for batch in rig.server.batches[-100:] if batch.request == "membership"
    ]
    assert {arguments[0] for arguments in calls} == {node.holder for node in fleet.members}
    assert {arguments[-1] for arguments in calls} == {b""}


def test_who_came_before_the_first_plan_was_kept_is_told_of_it(rig: Rig) -> None:
    ttl_ms = 30_000
    fleet = Fleet(rig, [f"k{number}" for number in range(60)], ttl_ms=ttl_ms)
    eldest = fleet.join()
    eldest.exchange()
    # The eldest has given all to itself, and its plan is still to be sent.
    newcomer = fleet.join()
    newcomer.exchange()
    # The newcomer hears that somebody joined, which is itself.
    rig.advance_ms(25)
    newcomer.exchange()
    assert plan_number(rig) == 0
    rig.run_ms(200)
    assert assignment_of(newcomer) == assignment_of(eldest)
    assert plan_number(rig) == 2


def test_if_the_eldest_does_not_another_writes_it_down(rig: Rig) -> None:
    fleet = fleet_of(rig, 3, 20)
    number = plan_number(rig)
    # Its pump goes on, but Python does not run: it stays a member.
    fleet.members[0].is_hung = True
    fleet.join()
    rig.run_ms(PERIOD_MS // 2)
    assert plan_number(rig) == number
    rig.run_ms(2 * PERIOD_MS)
    assert plan_number(rig) == number + 1


def test_a_node_that_drains_writes_nothing_down(rig: Rig) -> None:
    fleet = fleet_of(rig, 2, 20)
    number = plan_number(rig)
    eldest = fleet.members[0]
    eldest.balancer.retire()
    rig.settle()
    other = fleet.members[1]
    other.is_hung = True
    rig.run_ms(2 * TTL_MS)
    assert plan_number(rig) == number
    other.is_hung = False
    rig.run_ms(TTL_MS)
    assert plan_number(rig) > number
    assert set(assignment_of(other).values()) == {other.holder.decode()}


def test_nodes_with_other_keys_do_not_outbid_each_other(rig: Rig) -> None:
    fleet = Fleet(rig, [f"k{number}" for number in range(20)], ttl_ms=TTL_MS)
    fleet.join()
    fleet.join(keys=fleet.keys[:10])
    rig.run_ms(3 * TTL_MS)
    number = plan_number(rig)
    rig.run_ms(10 * TTL_MS)
    assert plan_number(rig) == number
    assert len(fleet.leaders()) == 20
    fleet.check_terms()


def test_keys_that_are_added_move_no_others(rig: Rig) -> None:
    fleet = fleet_of(rig, 4, 20)
    before = fleet.leaders()
    new = [f"new-{number}" for number in range(8)]
    for node in fleet.members:
        node.add(*new)
        node.balancer.on_keys_changed()
        node.balancer.balance()
    fleet.keys += tuple(new)
    fleet.settle(SETTLED_MS)
    assert moved(before, fleet.leaders()) == 0


# ---- members that see different fleets


@hypothesis.settings(max_examples=30)
@hypothesis.given(st.integers(3, 5), st.integers(4, 24), st.randoms(use_true_random=False))
def test_members_that_see_different_fleets_share_nothing(
    size: int, keys: int, chance: random.Random
) -> None:
    fleet = fleet_of(Rig(), size, keys)
    holders = [node.holder for node in fleet.members]
    unled_ms = dict.fromkeys(fleet.keys, 0)
    max_ms = 0

    def play(span_ms: int) -> None:
        nonlocal max_ms
        for _ in range(0, span_ms, 10):
            fleet.rig.run_ms(10)
            leaders = fleet.leaders()
            for key in fleet.keys:
                unled_ms[key] = 0 if key in leaders else unled_ms[key] + 10
            max_ms = max(max_ms, *unled_ms.values())

    for _ in range(12):
        for node in fleet.members:
            hidden = chance.sample(holders, chance.randint(0, size - 1))
            # Now and then a node does not even see itself.
            node.hidden = set(hidden) - ({node.holder} if chance.random() < 0.8 else set())
        play(chance.choice([30, 170, 400]))
    for node in fleet.members:
        node.hidden = set()
    began_ms = fleet.rig.server.now_ms()
    while not fleet.is_settled():
        play(20)
        assert fleet.rig.server.now_ms() - began_ms < SETTLED_MS, "they do not come to agree"
    # A lease that was granted to a node which did not want it ends, and is found by who looks.
    assert max_ms <= 2 * TTL_MS
    fleet.check_terms()


@pytest.mark.parametrize(("deaf_one", "dead_one"), [*permutations(range(4), 2)])
def test_a_node_that_hears_nothing_new_costs_a_ttl(rig: Rig, deaf_one: int, dead_one: int) -> None:
    fleet = fleet_of(rig, 4, 24)
    deaf, dead = fleet.members[deaf_one], fleet.members[dead_one]
    deaf.is_hung = True
    fleet.kill(dead)
    fleet.join()
    # It stays a member, and is given what it has not heard of. That is free when the leases of the
    # dead end, and found by whoever's turn it is: within one TTL, and one more for the deaf node.
    rig.run_ms(3 * TTL_MS)
    for _ in range(300):
        rig.run_ms(10)
        assert len(fleet.leaders()) == len(fleet.keys)
    deaf.is_hung = False
    fleet.settle(SETTLED_MS)
    fleet.check_terms()


# ---- a server that forgets


def test_a_server_that_forgot_all_is_told_again(rig: Rig) -> None:
    fleet = fleet_of(rig, 4, 30)
    fleet.leave(fleet.members[1])
    fleet.join()
    fleet.settle(SETTLED_MS)
    before, number = assignment_of(fleet.members[0]), plan_number(rig)
    began_ns = [entry.since_ms for entry in fleet.members[0].balancer.entries()]
    rig.server.store.clear()
    # All leases are gone: found by the next refresh, and each is taken by whose it was.
    rig.run_ms(2 * TTL_MS)
    assert fleet.is_settled()
    assert assignment_of(fleet.members[0]) == before
    assert plan_number(rig) == number
    assert [entry.since_ms for entry in fleet.members[0].balancer.entries()] == began_ns
    # Who finds a lease gone may take it while its leader has not noticed: see the README.
    fleet.check_terms(apart=False)


@pytest.mark.parametrize("first", range(3))
def test_a_server_that_comes_back_empty_is_found_by_one_after_another(rig: Rig, first: int) -> None:
    fleet = fleet_of(rig, 3, 30)
    before, number = assignment_of(fleet.members[0]), plan_number(rig)
    for node in fleet.members:
        node.lose()
    rig.server.store.clear()
    rig.server.forget_scripts()
    rig.run_ms(2 * TTL_MS)
    assert fleet.leaders() == {}
    for node in fleet.members[first:] + fleet.members[:first]:
        # The last comes as late as it may.
        node.connect()
        rig.run_ms(RECONNECT_MS / 2)
    rig.run_ms(2 * TTL_MS)
    assert fleet.is_settled()
    assert assignment_of(fleet.members[0]) == before
    assert plan_number(rig) == number
    fleet.check_terms()


def test_who_died_as_the_server_forgot_is_not_waited_for_for_long(rig: Rig) -> None:
    fleet = fleet_of(rig, 3, 30)
    fleet.kill(fleet.members[1])
    rig.server.store.clear()
    # What is taken for the share of the dead is found free, by whose turn it is.
    rig.run_ms(2 * TTL_MS)
    for _ in range(20):
        rig.run_ms(10)
        assert len(fleet.leaders()) == 30
    rig.run_ms(RECONNECT_MS)
    fleet.settle(SETTLED_MS)


def test_who_left_after_the_server_forgot_is_gone(rig: Rig) -> None:
    fleet = fleet_of(rig, 3, 30)
    rig.server.store.clear()
    rig.run_ms(TTL_MS)
    fleet.leave(fleet.members[1])
    rig.run_ms(PERIOD_MS // 2)
    holders = {node.holder.decode() for node in fleet.members}
    assert set(assignment_of(fleet.members[0]).values()) == holders


def test_who_joins_a_server_that_forgot_takes_the_fleets_plan(rig: Rig) -> None:
    fleet = fleet_of(rig, 4, 30)
    before = assignment_of(fleet.members[0])
    rig.server.store.clear()
    fleet.join()
    rig.run_ms(SETTLED_MS)
    assert fleet.is_settled()
    after = assignment_of(fleet.members[0])
    assert sum(before[key] != after[key] for key in before) <= math.ceil(30 / 5)


# ---- garbage


def forge(rig: Rig, holder: bytes, words: bytes, *, lasts_ms: int = 3_600_000) -> None:
    forge_member(rig.server, holder, words, lasts_ms)


def test_an_entry_that_makes_no_sense_is_told_once_and_costs_nothing(rig: Rig) -> None:
    fleet = fleet_of(rig, 2, 10)
    before = fleet.leaders()
    forge(rig, b"thief/1", b"no json")
    rig.run_ms(10 * TTL_MS)
    assert fleet.leaders() == before
    for node in fleet.members:
        (error,) = node.errors
        assert isinstance(error, ProtocolError)
        assert "thief/1" in str(error)


@pytest.mark.parametrize("text", [b"99 nonsense", b"99 3:abc", b"99 2:ab1:x3:abc", b"99 "])
def test_a_plan_that_makes_no_sense_is_told_once_and_replaced(rig: Rig, text: bytes) -> None:
    fleet = fleet_of(rig, 3, 12)
    rig.server.put(LAYOUT.plan_key, text)
    rig.run_ms(2 * TTL_MS)
    assert plan_number(rig) == 100
    fleet.settle(SETTLED_MS)
    assert all(len(node.errors) <= 1 for node in fleet.members)
    fleet.join()
    fleet.settle(SETTLED_MS)
    fleet.check_terms()


@pytest.mark.parametrize("value", [b"nonsense", b"9" * 40 + b" x", [b"a", b"list"]])
def test_what_is_no_plan_is_written_over(rig: Rig, value: bytes | list[bytes]) -> None:
    fleet = fleet_of(rig, 3, 12)
    before, number = fleet.leaders(), plan_number(rig)
    rig.server.put(LAYOUT.plan_key, value)
    rig.run_ms(2 * TTL_MS)
    assert plan_number(rig) == number
    assert fleet.leaders() == before
    assert [error for node in fleet.members for error in node.errors] == []


def test_false_news_of_the_fleet_does_not_keep_it_busy(rig: Rig) -> None:
    fleet = fleet_of(rig, 2, 10)
    rig.run_ms(TTL_MS)
    before = len(rig.server.batches)
    for _ in range(1000):
        rig.server.publish(LAYOUT.channel, b"1:/")
        rig.run_ms(1)
    calls = sum(batch.request == "membership" for batch in rig.server.batches[before:])
    assert calls <= 2 * (1000 // 20 + 6)
    assert len(fleet.leaders()) == 10


def test_a_refused_membership_poll_is_reported_once(rig: Rig) -> None:
    fleet = fleet_of(rig, 1, 4)
    (node,) = fleet.members
    rig.server.put(LAYOUT.members_key, b"no hash")
    error_reports = []
    for _ in range(5):
        rig.run_ms(TTL_MS)
        error_reports += [report for report in node.error_reports() if report[0] == "membership"]
    assert len(error_reports) == 1
    assert "WRONGTYPE" in error_reports[0][2]
    assert len(fleet.leaders()) == 4
    rig.server.delete(LAYOUT.members_key)
    fleet.join()
    fleet.settle(SETTLED_MS)


# ---- a function of the user's


def test_a_function_that_raises_is_told_once_and_costs_nothing(rig: Rig) -> None:
    broken = False

    def may_lead(key: str, _member: Member) -> bool:
        if broken:
            raise LookupError(key)
        return True

    fleet = Fleet(rig, [f"k{number}" for number in range(12)], ttl_ms=TTL_MS)
    fleet.join(only=may_lead)
    fleet.join(only=may_lead)
    fleet.settle(SETTLED_MS)
    before = fleet.leaders()
    broken = True
    late = fleet.join(only=may_lead)
    rig.run_ms(5 * TTL_MS)
    assert fleet.leaders() == before
    for node in fleet.members:
        (error,) = node.errors
        assert isinstance(error, MultielectError)
        assert isinstance(error.__cause__, LookupError)
    # Also one that never knew who may lead what leaves as it should.
    late.leave()
    rig.settle()
    assert late.is_quiet()
    fleet.members.remove(late)
    broken = False
    fleet.join(only=may_lead)
    fleet.settle(SETTLED_MS)


# ---- the last call


def test_a_node_is_quiet_when_its_last_call_was_answered(rig: Rig) -> None:
    fleet = fleet_of(rig, 1, 0)
    (node,) = fleet.members
    node.leave()
    node.turn()
    assert not node.is_quiet()
    node.serve()
    assert not node.is_quiet()
    node.deliver()
    assert node.is_quiet()
    assert members_on(rig.server) == []


def test_a_last_call_that_is_refused_is_not_made_again(rig: Rig) -> None:
    fleet = fleet_of(rig, 1, 0)
    (node,) = fleet.members
    rig.server.put(LAYOUT.members_key, b"no hash")
    node.leave()
    rig.settle()
    assert node.is_quiet()


def test_a_last_call_that_was_lost_is_made_again(rig: Rig) -> None:
    fleet = fleet_of(rig, 1, 0)
    (node,) = fleet.members
    node.leave()
    node.turn()
    node.lose()
    assert not node.is_quiet()
    node.connect()
    rig.settle()
    assert node.is_quiet()
    assert members_on(rig.server) == []


def test_nobody_waits_for_a_last_call_when_the_entry_has_ended(rig: Rig) -> None:
    fleet = fleet_of(rig, 1, 0)
    (node,) = fleet.members
    node.lose()
    node.leave()
    rig.run_ms(PERIOD_MS)
    assert not node.is_quiet()
    # It sleeps meanwhile.
    assert node.next_turn_ns() > rig.clock.now_ns() + 50 * MS
    rig.run_ms(4 * PERIOD_MS)
    assert node.is_quiet()


def test_who_never_called_has_nothing_to_leave(rig: Rig) -> None:
    fleet = Fleet(rig, [], ttl_ms=TTL_MS)
    node = fleet.join()
    node.lose()
    node.leave()
    assert node.is_quiet()
    assert isinstance(node.core, Core)
