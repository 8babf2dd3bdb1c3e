"""ASK and TRYAGAIN: the keys of a slot are at two nodes for a while. Leases go on one by one."""

from __future__ import annotations

from array import array

import pytest

from multielect.testing._resp import Refusal

from .cluster_nodes import TRYAGAIN, ClusterLanes, ClusterNode, of_one_slot, redis_keys
from .lanes import slot_of
from .rig import LAYOUT, MS

KEYS = of_one_slot(6)
KEY = KEYS[0]
SLOT = slot_of(KEY)
PERIOD_MS = 334
"""A third of the TTL: after it, a whole batch is tried again."""


def migrating(*keys: str, **settings: int) -> tuple[ClusterLanes, ClusterNode, ClusterNode]:
    """Return a core that leads the elections, whose slot is about to be migrated."""
    lanes = ClusterLanes(**settings)
    lanes.lead(*(keys or KEYS))
    lanes.clear()
    target, source = lanes.nodes
    lanes.cluster.begin_migration(SLOT, target)
    return lanes, source, target


def move(lanes: ClusterLanes, *keys: str) -> None:
    """Have these elections' keys at the node that imports the slot."""
    for name in redis_keys(*keys):
        lanes.cluster.move_key(name)


def leader_keys(keys: list[str]) -> list[list[bytes]]:
    return sorted([LAYOUT.leader_key(key.encode())] for key in keys)


# ---- refreshes


def test_a_batch_of_which_no_key_is_left_is_asked_about_one_by_one() -> None:
    lanes, source, target = migrating()
    move(lanes, *KEYS)
    lanes.send_refreshes()
    lanes.settle()
    assert [len(call.keys) for call in source.calls] == [len(KEYS)] + [1] * len(KEYS)
    assert {call.error for call in source.calls} == {"ASK"}
    assert sorted(call.keys for call in target.calls) == leader_keys(KEYS)
    assert all(call.is_asking and call.error is None for call in target.calls)
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.9) for key in KEYS)
    assert not lanes.wants_map()


def test_a_lease_counts_from_when_the_importing_node_was_asked() -> None:
    lanes, _, target = migrating(KEY)
    move(lanes, KEY)
    lanes.send_refreshes()
    lanes.clock.advance_ns(40 * MS)
    lanes.lanes[1].serve()
    lanes.turn()
    lanes.clock.advance_ns(30 * MS)
    assert lanes.candidacy(KEY).remaining == pytest.approx(0.495)
    lanes.lanes[0].serve()
    assert [call.is_asking for call in target.calls] == [True]
    assert lanes.candidacy(KEY).remaining == pytest.approx(0.87)


@pytest.mark.parametrize("asks_for_some", [False, True])
def test_only_what_has_left_is_asked_about_at_the_importing_node(*, asks_for_some: bool) -> None:
    lanes, source, target = migrating()
    lanes.cluster.asks_for_some = asks_for_some
    gone = KEYS[::2]
    move(lanes, *gone)
    lanes.run_ms(3000)
    assert all(lanes.leads(key) for key in KEYS)
    lanes.take_report()
    assert lanes.ends == {}
    redirected = {"ASK"} if asks_for_some else {"ASK", "TRYAGAIN"}
    assert {call.error for call in source.calls} - {"NOSCRIPT"} == {None, *redirected}
    assert target.calls
    assert {tuple(call.keys) for call in target.calls} == {
        (LAYOUT.leader_key(key.encode()),) for key in gone
    }
    assert all(call.is_asking for call in target.calls)
    # One whole batch a period finds out whether the migration has ended.
    assert 5 <= sum(len(call.keys) > 1 for call in source.calls) <= 10


def test_no_lease_is_lost_while_keys_leave_one_by_one() -> None:
    lanes, _, _ = migrating()
    for name in redis_keys(*KEYS):
        lanes.run_ms(170)
        lanes.cluster.move_key(name)
    lanes.run_ms(170)
    lanes.cluster.end_migration(SLOT)
    lanes.run_ms(1000)
    assert all(lanes.leads(key) for key in KEYS)
    lanes.take_report()
    assert lanes.ends == {}


def test_a_slot_that_is_whole_again_is_served_by_whole_batches() -> None:
    lanes, source, target = migrating()
    move(lanes, *KEYS[:3])
    lanes.send_refreshes()
    lanes.settle()
    lanes.cluster.end_migration(SLOT)
    lanes.run_ms(PERIOD_MS + 1)
    lanes.clear()
    lanes.run_ms(1000)
    assert not source.calls
    assert {len(call.keys) for call in target.calls} == {len(KEYS)}
    assert all(lanes.leads(key) for key in KEYS)


def test_a_migration_that_is_given_up_leaves_whole_batches_too() -> None:
    lanes, source, target = migrating()
    source.says[SLOT] = TRYAGAIN
    lanes.send_refreshes()
    lanes.lanes[1].serve()
    source.says.clear()
    lanes.cluster.migrating.clear()
    lanes.run_ms(PERIOD_MS + 1)
    lanes.clear()
    lanes.run_ms(1000)
    assert {len(call.keys) for call in source.calls} == {len(KEYS)}
    assert not target.calls
    assert all(lanes.leads(key) for key in KEYS)


def test_the_leases_of_other_buckets_go_on_by_whole_batches() -> None:
    others = of_one_slot(4, but=SLOT)
    lanes, source, _ = migrating(*KEYS, *others)
    move(lanes, *KEYS[:3])
    lanes.run_ms(1500)
    whole = {tuple(sorted(call.keys)) for call in source.calls if slot_of_call(call.keys) != SLOT}
    assert whole == {tuple(sorted(LAYOUT.leader_key(key.encode()) for key in others))}


def slot_of_call(keys: list[bytes]) -> int:
    key = keys[0].split(b"}:")[1].removeprefix(b"key:").removesuffix(b":leader")
    return slot_of(key.decode())


# ---- what the importing node says


def test_a_script_that_the_importing_node_does_not_know_is_brought_behind_a_new_asking() -> None:
    lanes, source, target = migrating(KEY)
    move(lanes, KEY)
    lanes.send_refreshes()
    lanes.settle()
    target.forget_scripts()
    lanes.clear()
    lanes.send_refreshes()
    lanes.settle()
    assert len(source.calls) == 1
    assert [(call.batch.command, call.is_asking, call.error) for call in target.calls] == [
        ("EVALSHA", True, "NOSCRIPT"),
        ("EVAL", True, None),
    ]
    assert lanes.candidacy(KEY).remaining == pytest.approx(0.9)


@pytest.mark.parametrize("text", ["MOVED {slot} {source}", TRYAGAIN, "ASK {slot} {source}"])
def test_an_importing_node_that_sends_away_is_asked_again_later(text: str) -> None:
    lanes, source, target = migrating(KEY)
    move(lanes, KEY)
    target.says[SLOT] = text.format(slot=SLOT, source=source.address)
    lanes.send_refreshes()
    lanes.settle()
    assert (len(source.calls), len(target.calls)) == (1, 1)
    lanes.run_ms(160)
    assert len(source.calls) == 1
    target.says.clear()
    lanes.run_ms(100)
    assert (len(source.calls), len(target.calls)) == (2, 2)
    assert lanes.leads(KEY)
    assert lanes.lane_of(KEY) == 1
    assert not any(call.error == "MOVED" for call in source.calls)


def test_two_nodes_that_ask_for_each_other_do_not_keep_the_core_busy() -> None:
    lanes, source, target = migrating(KEY)
    source.says[SLOT] = f"ASK {SLOT} {target.address}"
    target.says[SLOT] = f"ASK {SLOT} {source.address}"
    lanes.run_ms(2000)
    assert 2 <= len(source.calls) <= 16
    assert len(source.calls) == len(target.calls)


def test_a_node_that_asks_for_itself_does_not_keep_the_core_busy() -> None:
    lanes, source, _ = migrating(KEY)
    source.says[SLOT] = f"ASK {SLOT} {source.address}"
    lanes.run_ms(2000)
    assert 2 <= len(source.calls) <= 32


def test_an_importing_node_that_does_not_serve_yet_is_asked_again_when_it_does() -> None:
    lanes, _, target = migrating(KEY)
    move(lanes, KEY)
    target.is_loading = True
    lanes.send_refreshes()
    lanes.settle()
    assert [call.error for call in target.calls] == ["LOADING"]
    lanes.run_ms(300)
    assert 5 <= len(target.calls) <= 7
    target.is_loading = False
    lanes.run_ms(60)
    assert lanes.candidacy(KEY).remaining > 0.8


# ---- the lane of the importing node


@pytest.mark.parametrize(
    ("text", "importing"),
    [
        ("ASK {slot} 10.9.9.9:7009", "10.9.9.9:7009"),
        ("ASK {slot} :7009", "{host}:7009"),
        ("ASK {slot} ?:7000", "?:7000"),
        ("ASK ", ""),
        ("ASK {slot} " + "h" * 300 + ":1", ""),
    ],
)
def test_an_importing_node_without_a_lane_is_told_and_waited_for(text: str, importing: str) -> None:
    lanes, source, target = migrating(KEY)
    source.says[SLOT] = text.format(slot=SLOT)
    lanes.send_refreshes()
    lanes.settle()
    report = lanes.take_report()
    assert report.wants_slots
    host = source.address.rpartition(":")[0]
    assert report.importing == importing.format(host=host)
    assert lanes.take_report().importing == ""
    lanes.run_ms(160)
    assert len(source.calls) == 1
    assert not target.calls
    source.says.clear()
    lanes.run_ms(100)
    assert lanes.leads(KEY)
    assert source.calls[-1].error is None


def test_an_importing_node_without_a_connection_is_asked_when_it_has_one() -> None:
    lanes, source, target = migrating(KEY)
    move(lanes, KEY)
    lanes.lanes[0].lose()
    lanes.send_refreshes()
    lanes.settle()
    lanes.run_ms(160)
    assert len(source.calls) == 1
    lanes.lanes[0].connect()
    lanes.run_ms(100)
    assert len(source.calls) == 2
    assert [call.error for call in target.calls] == [None]
    assert lanes.leads(KEY)


def test_what_was_to_be_asked_by_a_lane_that_is_lost_is_sent_to_the_source_again() -> None:
    lanes, source, _ = migrating(*KEYS, batch_keys=1)
    move(lanes, *KEYS)
    lanes.send_refreshes()
    lanes.lanes[1].serve()
    # Nothing is sent to the importing node before the next turn.
    lanes.lanes[0].lose()
    lanes.clear()
    lanes.turn()
    assert len(lanes.lanes[1].requests) == len(KEYS)
    lanes.lanes[0].connect()
    lanes.settle()
    assert len(source.calls) == len(KEYS)
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.9) for key in KEYS)


def test_what_was_asked_by_a_lane_that_is_lost_is_sent_to_the_source_again() -> None:
    lanes, source, target = migrating(*KEYS, batch_keys=1)
    move(lanes, *KEYS)
    lanes.send_refreshes()
    lanes.lanes[1].serve()
    lanes.turn()
    assert len(lanes.lanes[0].requests) == 2 * len(KEYS)
    lanes.lanes[0].lose()
    lanes.clear()
    lanes.lanes[0].connect()
    lanes.settle()
    assert len(source.calls) == len(KEYS)
    assert len(target.calls) == len(KEYS)
    assert all(lanes.candidacy(key).remaining == pytest.approx(0.9) for key in KEYS)


def test_more_than_can_wait_is_asked_about_later() -> None:
    keys = of_one_slot(300)
    slot = slot_of(keys[0])
    lanes = ClusterLanes()
    lanes.lead(*keys)
    lanes.cluster.begin_migration(slot, lanes.nodes[0])
    for name in redis_keys(*keys):
        lanes.cluster.move_key(name)
    lanes.clock.advance_ns(335 * MS)
    # The importing node is slow: it answers when the source has answered for all.
    for _ in range(20):
        lanes.turn()
        lanes.lanes[1].serve()
    lanes.run_ms(2000)
    assert all(lanes.leads(key) for key in keys)
    lanes.take_report()
    assert lanes.ends == {}


def test_an_election_that_went_on_while_it_waited_is_not_asked_about() -> None:
    lanes, source, target = migrating(KEY)
    move(lanes, KEY)
    lanes.core.elections.remove(KEY.encode(), lanes.clock.now_ns())
    lanes.turn()
    lanes.lanes[1].serve()
    assert [(call.request, call.error) for call in source.calls] == [("release", "ASK")]
    # The release waits. Meanwhile the lease ends, and the slot is another election's.
    assert lanes.lanes[0].driver.outgoing_bytes == 0
    lanes.clock.advance_ns(1100 * MS)
    lanes.core.elections.add(KEYS[1].encode(), LAYOUT.bucket(KEYS[1].encode()))
    lanes.turn()
    lanes.take_report()
    lanes.lanes[0].serve()
    assert not target.calls


# ---- acquires and releases, of two keys each


def test_an_acquire_of_free_elections_waits_for_the_end_of_the_migration() -> None:
    lanes = ClusterLanes()
    target, source = lanes.nodes
    lanes.cluster.begin_migration(SLOT, target)
    for key in KEYS:
        lanes.core.elections.add(key.encode(), LAYOUT.bucket(key.encode()))
    lanes.core.elections.start()
    lanes.run_ms(3000)
    singles = [call for call in source.calls if len(call.keys) == 2]
    assert {call.error for call in source.calls} == {"ASK"}
    # Each is repeated ever later.
    assert 3 * len(KEYS) <= len(singles) <= 8 * len(KEYS)
    assert {call.error for call in target.calls} == {"TRYAGAIN"}
    assert all(call.is_asking for call in target.calls)
    lanes.cluster.end_migration(SLOT)
    lanes.run_ms(750)
    assert all(lanes.leads(key) for key in KEYS)


def test_an_acquire_whose_keys_are_at_two_nodes_is_repeated_ever_later() -> None:
    lanes = ClusterLanes()
    target, source = lanes.nodes
    lanes.cluster.begin_migration(SLOT, target)
    source.put(LAYOUT.epoch_key(KEY.encode()), b"7")
    lanes.core.elections.add(KEY.encode(), LAYOUT.bucket(KEY.encode()))
    lanes.core.elections.start()
    lanes.run_ms(3000)
    assert {call.error for call in source.calls} == {"TRYAGAIN"}
    assert 4 <= len(source.calls) <= 8
    assert not target.calls


def test_an_acquire_whose_keys_have_both_left_is_answered_there() -> None:
    lanes, _, target = migrating(KEY)
    move(lanes, KEY)
    lanes.lanes[1].lose()
    lanes.run_ms(950)
    assert not lanes.leads(KEY)
    lanes.lanes[1].connect()
    lanes.settle()
    assert [(call.request, call.is_asking) for call in target.calls] == [("acquire", True)]
    assert lanes.leads(KEY)


@pytest.mark.parametrize("asks_for_some", [False, True])
def test_a_release_whose_keys_are_at_two_nodes_is_left_to_the_lease(*, asks_for_some: bool) -> None:
    lanes, source, target = migrating(KEY)
    lanes.cluster.asks_for_some = asks_for_some
    lanes.cluster.move_key(LAYOUT.leader_key(KEY.encode()))
    lanes.core.elections.stop()
    lanes.run_ms(100)
    (refused,) = target.calls if asks_for_some else source.calls
    assert (refused.request, refused.error) == ("release", "TRYAGAIN")
    assert lanes.core.elections.counters["released"] == 0
    assert lanes.lanes[0].driver.is_quiet, "a stop does not wait for it"
    assert target.get(LAYOUT.leader_key(KEY.encode())) is not None
    lanes.clock.advance_ns(1000 * MS)
    assert target.get(LAYOUT.leader_key(KEY.encode())) is None


def test_releases_whose_keys_have_left_are_asked_about_one_by_one() -> None:
    lanes, source, target = migrating()
    move(lanes, *KEYS)
    lanes.core.elections.stop()
    lanes.settle()
    assert len(source.calls) == 1 + len(KEYS)
    assert {(call.request, call.is_asking, call.error) for call in target.calls} == {
        ("release", True, None)
    }
    assert lanes.core.elections.counters["released"] == len(KEYS)


def assign(lanes: ClusterLanes, keys: list[str], node: bytes) -> None:
    """Tell the core that this node is to lead the elections."""
    nodes = [b"node/1", b"you/1"]
    raw, places = [key.encode() for key in keys], array("i", [nodes.index(node)] * len(keys))
    lanes.core.fleet.assign(raw, places, nodes, 0, bytes(len(keys)), lanes.clock.now_ns())


def granting() -> tuple[ClusterLanes, ClusterNode, ClusterNode]:
    """Return a core that leads elections which another node is to lead after it."""
    lanes = ClusterLanes(balanced=True)
    for key in KEYS:
        lanes.core.elections.add(key.encode(), LAYOUT.bucket(key.encode()))
    lanes.core.elections.start()
    assign(lanes, KEYS, b"node/1")
    lanes.settle()
    assign(lanes, KEYS, b"you/1")
    assert all(lanes.leads(key) for key in KEYS)
    lanes.clear()
    target, source = lanes.nodes
    lanes.cluster.begin_migration(SLOT, target)
    return lanes, source, target


def test_grants_whose_keys_have_left_are_asked_about_one_by_one() -> None:
    lanes, source, target = granting()
    move(lanes, *KEYS)
    lanes.core.elections.stop()
    lanes.settle()
    assert len(source.calls) == 1 + len(KEYS)
    assert {(call.request, call.is_asking, call.error) for call in target.calls} == {
        ("grant", True, None)
    }
    assert {target.get(LAYOUT.leader_key(key.encode())) for key in KEYS} == {b"you/1"}
    assert lanes.lanes[0].driver.is_quiet


def test_a_grant_whose_keys_are_at_two_nodes_is_left_to_the_lease() -> None:
    lanes, source, target = granting()
    for key in KEYS:
        lanes.cluster.move_key(LAYOUT.leader_key(key.encode()))
    lanes.core.elections.stop()
    lanes.settle()
    assert {(call.request, call.error) for call in source.calls} == {("grant", "TRYAGAIN")}
    assert len(source.calls) == 1 + len(KEYS)
    assert lanes.lanes[0].driver.is_quiet, "a stop does not wait for it"
    lanes.clock.advance_ns(1000 * MS)
    assert not [name for name in target.dump() if name.endswith(b":leader")]


def test_an_acquire_that_is_asked_elsewhere_keeps_its_claim_and_its_floor() -> None:
    lanes = ClusterLanes(balanced=True)
    target, source = lanes.nodes
    lanes.core.elections.add(KEY.encode(), LAYOUT.bucket(KEY.encode()))
    place = lanes.core.elections.find(KEY.encode())
    assert place is not None
    floor = 2_000_000_000_000_000
    lanes.core.elections.learn_epoch(*place, 0, floor, lanes.clock.now_ns())
    for name in redis_keys(KEY):
        source.put(name, b"you/1" if name.endswith(b":leader") else b"7", 900)
    lanes.cluster.begin_migration(SLOT, target)
    move(lanes, KEY)
    lanes.core.elections.start()
    assign(lanes, [KEY], b"node/1")
    lanes.settle()
    (asked,) = target.calls
    assert asked.batch.arguments[3:] == (LAYOUT.channel, b"1", b"%d" % floor)


def test_an_error_that_is_no_redirection_is_reported_of_the_importing_node() -> None:
    lanes, _, target = migrating(KEY)
    move(lanes, KEY)
    lanes.take_report()
    target.refusal = Refusal("ERR no")
    lanes.send_refreshes()
    lanes.settle()
    assert lanes.errors() == [(0, "ERR no")]
