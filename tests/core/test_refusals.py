"""What the server refuses is told, bounded, and tried again; one bad key fails alone."""

from __future__ import annotations

import pytest

from multielect._scripts import LARGEST_EPOCH
from multielect.election import DemotionReason
from multielect.testing._resp import Refusal

from .rig import DUE_MS, MS, Rig

PASSING = [
    "LOADING Redis is loading the dataset in memory",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "BUSY Redis is busy running a script.",
    "MISCONF Redis is configured to save RDB snapshots",
    "NOREPLICAS Not enough good replicas to write.",
    "ERR something nobody foresaw",
]
LASTING = [
    "READONLY You can't write against a read only replica.",
    "NOAUTH Authentication required.",
    "MASTERDOWN Link with MASTER is down",
]


@pytest.mark.parametrize("text", PASSING)
def test_a_refused_refresh_keeps_the_old_deadline_and_is_tried_again(rig: Rig, text: str) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    rig.server.refusal = Refusal(text)
    rig.advance_ms(DUE_MS)
    node.exchange()
    assert node.core.take_notes() == [("refresh", 1, text)]
    assert node.seat("a").remaining == pytest.approx(0.9 - DUE_MS / 1000)
    assert not node.is_refused()

    # Between half and three quarters of a third of the TTL later, and one tick of the wheel.
    assert node.next_tick_ns() - rig.clock.now_ns() >= 166 * MS
    rig.run_ms(252)
    assert len(rig.server.batches) == 3
    rig.server.refusal = None
    rig.run_ms(252)
    assert node.told("a") == [None]
    assert node.leads("a")


@pytest.mark.parametrize("text", PASSING)
def test_a_refused_acquire_is_tried_again(rig: Rig, text: str) -> None:
    rig.server.refusal = Refusal(text)
    node = rig.node("a", "b", ttl_ms=1000)
    rig.settle()
    assert node.core.take_notes() == [("acquire", 2, text)]
    assert not node.leads("a")
    rig.server.refusal = None
    rig.run_ms(252)
    assert node.leads("a")
    assert node.leads("b")


def test_a_server_that_refuses_everything_is_not_overrun(rig: Rig) -> None:
    rig.server.refusal = Refusal(PASSING[0])
    rig.node("a", ttl_ms=1000)
    rig.run_ms(10_000)
    assert 35 <= len(rig.server.batches) <= 61


def test_a_server_that_does_not_know_the_script_it_was_just_brought_is_not_overrun(
    rig: Rig,
) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    rig.server.refusal = Refusal("NOSCRIPT No matching script. Please use EVAL.")
    rig.server.batches.clear()
    node.add("b")
    rig.run_ms(1000)
    assert node.told("a") == [None, DemotionReason.EXPIRED]
    assert {(request, text[:8]) for request, _, text in node.core.take_notes()} == {
        ("refresh", "NOSCRIPT"),
        ("acquire", "NOSCRIPT"),
    }
    rig.run_ms(9_000)
    assert 35 <= len(rig.server.batches) <= 122
    rig.server.refusal = None
    rig.run_ms(252)
    assert node.leads("a")
    assert node.leads("b")


def test_a_term_that_nobody_refreshes_ends_at_its_deadline(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    rig.server.refusal = Refusal(PASSING[0])
    began_ns = rig.clock.now_ns()
    rig.run_ms(2000)
    assert node.told("a") == [None, DemotionReason.EXPIRED]
    assert node.happenings[-1].at_ns == began_ns + 900 * MS


def test_a_refused_release_ends_by_itself(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    rig.server.refusal = Refusal(PASSING[2])
    node.core.stop()
    rig.settle()
    assert node.core.take_notes() == [("release", 1, PASSING[2])]
    assert node.is_quiet()


@pytest.mark.parametrize("text", LASTING)
def test_a_server_that_cannot_serve_any_more_is_given_up(rig: Rig, text: str) -> None:
    node = rig.leader("a")
    rig.server.refusal = Refusal(text)
    rig.advance_ms(DUE_MS)
    node.exchange()
    assert node.is_refused()
    assert node.leads("a"), "what was refused is no proof that the lease is lost"

    node.add("b")
    node.tick()
    assert not node.requests, "nothing more is sent there"
    assert node.next_tick_ns() > rig.clock.now_ns()
    rig.server.refusal = None
    node.lose()
    node.connect()
    rig.settle()
    assert not node.is_refused()
    assert node.leads("a")
    assert node.leads("b")
    assert node.told("a") == [None]


def test_a_release_refused_by_a_replica_is_sent_to_the_next_primary(rig: Rig) -> None:
    node = rig.leader("a")
    rig.server.refusal = Refusal(LASTING[0])
    node.core.stop()
    rig.settle()
    rig.server.refusal = None
    node.lose()
    node.connect()
    rig.settle()
    assert rig.holder_of("a") is None


@pytest.mark.parametrize("bad", ["leader", "epoch", "counter", "overflow"])
def test_one_bad_key_fails_alone(rig: Rig, bad: str) -> None:
    if bad == "leader":
        rig.server.put(rig.leader_key("bad"), [b"a", b"list"])
    elif bad == "epoch":
        rig.server.put(rig.epoch_key("bad"), [b"a", b"list"])
    elif bad == "counter":
        rig.server.put(rig.epoch_key("bad"), b"no number")
    else:
        rig.server.put(rig.epoch_key("bad"), b"%d" % LARGEST_EPOCH)
    node = rig.node("before", "bad", "after")
    rig.settle()

    assert node.leads("before")
    assert node.leads("after")
    assert not node.leads("bad")
    [(request, elections, text)] = node.core.take_notes()
    assert (request, elections) == ("acquire", 1)
    assert text.split()[0] in {"WRONGTYPE", "ERR"}

    rig.server.delete(rig.leader_key("bad"))
    rig.server.delete(rig.epoch_key("bad"))
    rig.run_ms(252)
    assert node.leads("bad")
    rig.run_ms(3000)
    assert node.told("before") == [None]


def test_one_lease_that_could_not_be_extended_keeps_its_deadline(rig: Rig) -> None:
    node = rig.leader("a", "b", ttl_ms=1000, margin_ms=100)
    rig.advance_ms(DUE_MS)
    node.tick()
    node.core.receive(
        b"*3\r\n:%d\r\n*0\r\n*2\r\n:2\r\n-READONLY not extended\r\n" % rig.server.now_ms(),
        rig.clock.now_ns(),
    )
    assert node.seat("a").remaining == pytest.approx(0.9)
    assert node.seat("b").remaining == pytest.approx(0.9 - DUE_MS / 1000)
    assert node.core.take_notes() == [("refresh", 1, "READONLY not extended")]


def test_refusals_of_one_text_are_told_once(rig: Rig) -> None:
    keys = [f"k{n}" for n in range(1000)]
    for key in keys:
        rig.server.put(rig.leader_key(key), [b"a", b"list"])
    node = rig.node(*keys)
    rig.settle()
    [(request, elections, _)] = node.core.take_notes()
    assert (request, elections) == ("acquire", 1000)
    assert node.core.take_notes() == []


def test_refusals_that_nobody_takes_are_bounded(rig: Rig) -> None:
    node = rig.node("a", ttl_ms=1000)
    for n in range(100):
        rig.server.refusal = Refusal(f"ERR reason {n} " + "x" * 5000)
        rig.run_ms(252)
    notes = node.core.take_notes()
    assert len(notes) == 16
    assert max(len(text) for _, _, text in notes) == 200


def test_a_refusal_that_is_no_text_is_told_all_the_same(rig: Rig) -> None:
    node = rig.node("a")
    node.tick()
    node.core.receive(b"-ERR \xff\xfe\r\n", rig.clock.now_ns())
    [(_, _, text)] = node.core.take_notes()
    assert text.startswith("ERR ")
