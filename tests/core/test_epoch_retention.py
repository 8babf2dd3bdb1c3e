"""Epochs that are kept for a time after a term, and then go."""

from __future__ import annotations

import pytest

from .rig import LAYOUT, Node, Rig

RETENTION_MS = 3_600_000


def epoch_key(key: str) -> bytes:
    return LAYOUT.epoch_key(key.encode())


def fence_key(key: str) -> bytes:
    return LAYOUT.fence_key(key.encode())


def leader(rig: Rig, *keys: str) -> Node:
    node = rig.node(*keys, retention_ms=RETENTION_MS)
    node.exchange()
    assert all(node.leads(key) for key in keys)
    return node


def test_an_epoch_stays_for_as_long_as_its_election_is_led(rig: Rig) -> None:
    leader(rig, "a")
    rig.run_ms(5000)
    assert rig.server.remaining_ms(epoch_key("a")) == -1


@pytest.mark.parametrize("how", ["resign", "remove", "stop"])
def test_an_epoch_expires_after_a_release(how: str, rig: Rig) -> None:
    node = leader(rig, "a", "b")
    rig.server.put(fence_key("b"), b"%d" % node.candidacy("b").epoch)
    if how == "stop":
        node.core.elections.stop()
    for key in ("a", "b"):
        if how == "resign":
            node.resign(key)
        elif how == "remove":
            node.remove(key)
    rig.settle()
    for name in (epoch_key("a"), epoch_key("b"), fence_key("b")):
        assert rig.server.remaining_ms(name) == RETENTION_MS
    rig.advance_ms(RETENTION_MS)
    assert rig.server.dump() == {}


def test_whoever_is_elected_meanwhile_keeps_the_epoch(rig: Rig) -> None:
    node = leader(rig, "a")
    before = node.candidacy("a").epoch
    node.resign("a")
    rig.settle()
    other = rig.node("a")
    other.exchange()
    assert other.leads("a")
    assert other.candidacy("a").epoch > before
    assert rig.server.remaining_ms(epoch_key("a")) == -1


def test_an_epoch_ahead_of_the_clock_stays_until_the_clock_has_passed_it(rig: Rig) -> None:
    ahead_ms = rig.server.now_ms() + 10 * RETENTION_MS
    rig.server.put(epoch_key("a"), b"%d" % ahead_ms)
    node = leader(rig, "a")
    assert node.candidacy("a").epoch == ahead_ms + 1
    node.remove("a")
    rig.settle()
    assert rig.server.remaining_ms(epoch_key("a")) == 11 * RETENTION_MS + 1
    rig.advance_ms(11 * RETENTION_MS + 1)
    after = leader(rig, "a")
    assert after.candidacy("a").epoch > ahead_ms + 1


def test_so_does_a_fence_ahead_of_the_clock(rig: Rig) -> None:
    node = leader(rig, "a")
    rig.server.put(fence_key("a"), b"%d" % (rig.server.now_ms() + 10 * RETENTION_MS))
    node.remove("a")
    rig.settle()
    assert rig.server.remaining_ms(fence_key("a")) == 11 * RETENTION_MS
    assert rig.server.remaining_ms(epoch_key("a")) == 11 * RETENTION_MS


def test_a_newer_term_keeps_its_epoch_when_an_old_release_comes_late(rig: Rig) -> None:
    node = leader(rig, "a")
    node.resign("a")
    node.turn()
    late = node.requests.pop()
    node.lose()
    rig.advance_ms(2000)
    newer = leader(rig, "a")
    rig.server.call(late)
    assert newer.leads("a")
    assert rig.server.remaining_ms(epoch_key("a")) == -1


@pytest.mark.parametrize("is_successor_gone", [False, True])
def test_an_epoch_expires_after_a_grant_unless_the_successor_takes_it(
    is_successor_gone: bool, rig: Rig
) -> None:
    old = rig.node("a", balanced=True, retention_ms=RETENTION_MS)
    successor = rig.node("a", balanced=True, retention_ms=RETENTION_MS)
    for node in (old, successor):
        node.assign({"a": old})
    rig.settle()
    successor.assign({"a": successor})
    rig.settle()
    old.assign({"a": successor})
    if is_successor_gone:
        successor.lose()
    old.exchange()
    assert rig.server.batches[-1].request == "expiring_grant"
    assert rig.server.remaining_ms(epoch_key("a")) == RETENTION_MS
    if not is_successor_gone:
        rig.settle()
        assert successor.leads("a")
        assert rig.server.remaining_ms(epoch_key("a")) == -1


def test_a_script_is_given_at_most_250_keys_here_too(rig: Rig) -> None:
    node = leader(rig, *(f"k{number}" for number in range(100)))
    rig.server.batches.clear()
    node.core.elections.stop()
    rig.settle()
    assert [batch.request for batch in rig.server.batches] == ["expiring_release"] * 2
    assert [batch.elections for batch in rig.server.batches] == [83, 17]
    assert all(rig.server.remaining_ms(epoch_key(f"k{n}")) == RETENTION_MS for n in range(100))


def test_who_keeps_epochs_for_ever_names_no_fence(rig: Rig) -> None:
    node = rig.leader("a")
    node.core.elections.stop()
    node.exchange()
    batch = rig.server.batches[-1]
    assert batch.request == "release"
    assert len(batch.keys) == 2
    assert rig.server.remaining_ms(epoch_key("a")) == -1
