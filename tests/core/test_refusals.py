"""What the server refuses is told, bounded, and tried again; one bad key fails alone."""

from __future__ import annotations

import pytest

from multielect._protocol.scripts import LARGEST_EPOCH
from multielect.election import DemotionReason
from multielect.testing._resp import Refusal, encode

from .rig import DUE_MS, MS, Node, Rig

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
    assert node.error_reports() == [("refresh", 1, text)]
    assert node.candidacy("a").remaining == pytest.approx(0.9 - DUE_MS / 1000)
    assert not node.is_refused()

    # Between half and three quarters of a third of the TTL later, and one tick of the wheel.
    assert node.next_turn_ns() - rig.clock.now_ns() >= 166 * MS
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
    assert node.error_reports() == [("acquire", 2, text)]
    assert not node.leads("a")
    rig.server.refusal = None
    rig.run_ms(252)
    assert node.leads("a")
    assert node.leads("b")


def test_a_server_that_refuses_everything_is_not_overrun(rig: Rig) -> None:
    rig.server.refusal = Refusal(PASSING[0])
    rig.node("a", ttl_ms=1000)
    rig.run_ms(10_000)
    # After a sixth of the TTL, a third, and from then on two thirds.
    assert 14 <= len(rig.server.batches) <= 17


def test_a_server_that_does_not_know_the_script_it_was_just_brought_is_not_overrun(
    rig: Rig,
) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    rig.server.refusal = Refusal("NOSCRIPT No matching script. Please use EVAL.")
    rig.server.batches.clear()
    node.add("b")
    rig.run_ms(1000)
    assert node.told("a") == [None, DemotionReason.EXPIRED]
    assert {(request, text[:8]) for request, _, text in node.error_reports()} == {
        ("refresh", "NOSCRIPT"),
        ("acquire", "NOSCRIPT"),
    }
    rig.run_ms(9_000)
    assert 14 <= len(rig.server.batches) <= 40
    rig.server.refusal = None
    rig.run_ms(751)
    assert node.leads("a")
    assert node.leads("b")


def test_a_term_that_nobody_refreshes_ends_at_its_deadline(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    rig.server.refusal = Refusal(PASSING[0])
    began_ns = rig.clock.now_ns()
    rig.run_ms(2000)
    assert node.told("a") == [None, DemotionReason.EXPIRED]
    assert node.term_events[-1].at_ns == began_ns + 900 * MS


def test_a_refused_release_ends_by_itself(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    rig.server.refusal = Refusal(PASSING[2])
    node.core.elections.stop()
    rig.settle()
    assert node.error_reports() == [("release", 1, PASSING[2])]
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
    node.turn()
    assert not node.requests, "nothing more is sent there"
    assert node.next_turn_ns() > rig.clock.now_ns()
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
    node.core.elections.stop()
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
    [(request, elections, text)] = node.error_reports()
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
    node.turn()
    node.driver.receive(
        b"*3\r\n:%d\r\n*0\r\n*2\r\n:2\r\n-READONLY not extended\r\n" % rig.server.now_ms(),
        rig.clock.now_ns(),
    )
    assert node.candidacy("a").remaining == pytest.approx(0.9)
    assert node.candidacy("b").remaining == pytest.approx(0.9 - DUE_MS / 1000)
    assert node.error_reports() == [("refresh", 1, "READONLY not extended")]


def test_refusals_of_one_text_are_told_once(rig: Rig) -> None:
    keys = [f"k{n}" for n in range(1000)]
    for key in keys:
        rig.server.put(rig.leader_key(key), [b"a", b"list"])
    node = rig.node(*keys)
    rig.settle()
    [(request, elections, _)] = node.error_reports()
    assert (request, elections) == ("acquire", 1000)
    assert node.error_reports() == []


def test_refusals_that_nobody_takes_are_bounded(rig: Rig) -> None:
    node = rig.node("a", ttl_ms=1000)
    for n in range(100):
        rig.server.refusal = Refusal(f"ERR reason {n} " + "x" * 5000)
        rig.run_ms(252)
    error_reports = node.error_reports()
    assert len(error_reports) == 16
    assert max(len(text) for _, _, text in error_reports) == 200


def test_a_refusal_that_is_no_text_is_told_all_the_same(rig: Rig) -> None:
    node = rig.node("a")
    node.turn()
    node.driver.receive(b"-ERR \xff\xfe\r\n", rig.clock.now_ns())
    [(_, _, text)] = node.error_reports()
    assert text.startswith("ERR ")


# ---- what is tried again


def test_what_is_refused_one_by_one_is_tried_again_together(rig: Rig) -> None:
    keys = [f"k{n}" for n in range(1000)]
    node = rig.node(*keys, ttl_ms=1000)
    for at, key in enumerate(keys):
        rig.server.put(rig.leader_key(key), [b"a", b"list"])
        if at % 100 == 99:
            node.exchange()
            rig.advance_ms(7)
    rig.run_ms(1000)
    rig.server.batches.clear()
    rig.run_ms(10_000)
    asked = sum(batch.elections for batch in rig.server.batches)
    # Each after two thirds of the TTL, in batches of 125.
    assert 13_000 <= asked <= 16_000
    assert len(rig.server.batches) <= asked / 125 + 10 * 24


def test_a_key_that_is_good_again_is_led_within_a_ttl(rig: Rig) -> None:
    rig.server.put(rig.leader_key("a"), [b"a", b"list"])
    node = rig.node("a", ttl_ms=1000)
    rig.run_ms(5_000)
    rig.server.delete(rig.leader_key("a"))
    rig.run_ms(751)
    assert node.leads("a")
    node.error_reports()


def test_a_refusal_that_has_passed_does_not_slow_the_next_down(rig: Rig) -> None:
    node = rig.node("a", ttl_ms=1000)
    rig.server.refusal = Refusal(PASSING[0])
    rig.run_ms(3_000)
    rig.server.refusal = None
    rig.run_ms(751)
    assert node.leads("a")
    rig.server.delete(rig.leader_key("a"))
    rig.server.put(rig.leader_key("a"), [b"a", b"list"])
    rig.run_ms(DUE_MS)
    assert not node.leads("a")
    rig.server.delete(rig.leader_key("a"))
    rig.run_ms(252)
    assert node.leads("a")


def test_a_lease_is_tried_once_more_before_its_deadline(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    rig.server.refusal = Refusal(PASSING[0])
    # Until the next try would come after the deadline.
    while node.candidacy("a").remaining > 0.125:
        rig.run_ms(10)
    rig.server.refusal = None
    rig.run_ms(100)
    assert node.told("a") == [None]
    assert node.leads("a")


# ---- a script whose text was refused


@pytest.mark.parametrize("elections", [1, 125, 2000])
def test_a_script_that_was_refused_with_its_text_is_brought_again(rig: Rig, elections: int) -> None:
    rig.server.is_full = True
    keys = [f"k{n}" for n in range(elections)]
    node = rig.node(*keys, ttl_ms=1000)
    rig.run_ms(5_000)
    asked = len(rig.server.batches)
    assert {text for _, _, text in node.error_reports()} == {PASSING[1]}, "no NOSCRIPT is told"
    # Each try of a batch costs one script, as without the fault: 5 s are 9 tries at the most.
    assert asked <= 9 * ((elections + 124) // 125) + 24
    rig.server.is_full = False
    rig.run_ms(751)
    assert all(map(node.leads, keys))


def test_all_that_were_refused_behind_it_are_counted(rig: Rig) -> None:
    rig.server.is_full = True
    node = rig.node(*(f"k{n}" for n in range(1000)), ttl_ms=1000)
    node.exchange()
    assert node.error_reports() == [("acquire", 1000, PASSING[1])]


def test_batches_do_not_wait_for_the_script_to_be_there(rig: Rig) -> None:
    node = rig.node(*(f"k{n}" for n in range(1000)))
    node.turn()
    assert [words[0] for words in node.requests] == [b"EVAL"] + [b"EVALSHA"] * 7


def test_a_script_that_is_forgotten_after_it_was_known_is_brought_at_once(rig: Rig) -> None:
    rig.server.is_full = True
    node = rig.node("a", ttl_ms=1000)
    node.exchange()
    rig.server.is_full = False
    rig.run_ms(252)
    assert node.leads("a")
    node.resign("a")
    node.campaign("a")
    rig.server.forget_scripts()
    rig.settle()
    assert node.leads("a"), "NOSCRIPT is no refusal here"


# ---- leases that are not to be had, or cannot be given up


def test_a_release_whose_counter_was_raised_is_sent_again_under_that_epoch(rig: Rig) -> None:
    node, other = rig.leader("a"), rig.node("a")
    rig.settle()
    rig.server.put(rig.epoch_key("a"), b"%d" % (node.candidacy("a").epoch + 9_000))
    node.resign("a")
    rig.settle()
    assert other.leads("a"), "nobody waits for a TTL needlessly"
    assert node.counted("released") == 1


def test_a_grant_whose_counter_was_raised_is_sent_again_under_that_epoch(rig: Rig) -> None:
    node, successor = rig.node("a", balanced=True), rig.node("a", balanced=True)
    for one in (node, successor):
        one.assign({"a": node})
    rig.settle()
    rig.server.put(rig.epoch_key("a"), b"%d" % (node.candidacy("a").epoch + 9_000))
    for one in (node, successor):
        one.assign({"a": successor})
    rig.settle()
    assert successor.leads("a")
    assert node.told("a") == [None, DemotionReason.REBALANCED]


def test_a_release_whose_counter_is_odd_ends_with_the_lease(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000)
    for odd in (b"no number", b"%d" % (LARGEST_EPOCH + 1), b"-5", b"7"):
        rig.server.put(rig.epoch_key("a"), odd)
        node.resign("a")
        rig.settle()
        assert rig.holder_of("a") == node.holder
        rig.server.delete(rig.epoch_key("a"))
        rig.run_ms(1100)
        assert node.leads("a")


def test_an_election_removed_and_added_again_keeps_its_lease(rig: Rig) -> None:
    # The release of the removed one finds the counter at the new one's epoch.
    node = rig.node("a")
    node.turn()
    node.remove("a")
    node.add("a")
    rig.settle()
    assert node.leads("a")
    assert rig.holder_of("a") == node.holder


def answer(node: Node, rig: Rig, reply: bytes) -> None:
    """Have the server answer the one request that was sent as nothing of the model's does."""
    [_] = node.requests
    node.requests.clear()
    node.driver.receive(reply % rig.server.now_ms(), rig.clock.now_ns())
    node.take()


def test_a_lease_that_cannot_be_deleted_is_told_and_left_to_its_end(rig: Rig) -> None:
    node = rig.leader("a", "b", ttl_ms=1000)
    node.core.elections.stop()
    node.turn()
    answer(node, rig, b"*3\r\n:%d\r\n*0\r\n*2\r\n:2\r\n-ERR ACL failure\r\n")
    assert node.refusals() == [("unended", 1, "ERR ACL failure", b"b")]
    assert node.is_quiet()
    assert node.counted("released") == 1


def test_what_cannot_be_published_is_told_once(rig: Rig) -> None:
    node = rig.leader("a", "b", "c", ttl_ms=1000)
    refused = b"*3\r\n:%d\r\n*0\r\n*2\r\n:0\r\n-NOPERM publish\r\n"
    fine = b"*3\r\n:%d\r\n*0\r\n*0\r\n"
    told = []
    for key, reply in (("a", refused), ("b", refused), ("c", fine)):
        node.resign(key)
        node.turn()
        answer(node, rig, reply)
        told += node.error_reports()
    assert told == [("wake-up", 1, "NOPERM publish")]
    node.campaign("a")
    rig.settle()
    node.resign("a")
    node.turn()
    answer(node, rig, refused)
    assert node.error_reports() == [("wake-up", 1, "NOPERM publish")], "it had been well meanwhile"


def test_a_claim_that_cannot_be_published_is_told_once(rig: Rig) -> None:
    leader = rig.leader("a", "b")
    node = rig.node("a", "b", balanced=True, ttl_ms=1000)
    node.assign({"a": node, "b": node})
    wait_ms = 256 * 1000
    body = b"$%d\r\n%b\r\n:-%d\r\n:-%d\r\n" % (
        len(leader.holder),
        leader.holder,
        wait_ms + 1,
        wait_ms + 1,
    )
    for well, error_reports in ((False, 1), (False, 0), (True, 0), (False, 1)):
        error = b"" if well else b"-NOPERM publish\r\n"
        node.turn()
        answer(node, rig, b"*%d\r\n:%%d\r\n*1\r\n%b%b" % (5 - well, body, error))
        assert node.error_reports() == [("claim", 1, "NOPERM publish")] * error_reports
        rig.advance_ms(400)


# ---- leases without an end


def test_a_lease_without_an_end_is_told_once_for_each_holder(rig: Rig) -> None:
    keys = [f"k{n}" for n in range(300)]
    for key in keys:
        rig.server.put(rig.leader_key(key), b"somebody")
    rig.server.put(rig.leader_key("other"), b"somebody else/1")
    rig.server.put(rig.leader_key("good"), b"good/1", 5_000)
    node = rig.node(*keys, "other", "good", ttl_ms=1000)
    rig.settle()
    assert node.refusals() == [
        ("endless", 300, "somebody", b"k0"),
        ("endless", 1, "somebody else/1", b"other"),
    ]
    rig.run_ms(5_000)
    assert node.refusals() == []
    assert node.seen_leader("k7") == b"somebody"

    rig.server.put(rig.leader_key("k7"), b"a third")
    rig.run_ms(1_100)
    assert node.refusals() == [("endless", 1, "a third", b"k7")]


def test_a_lease_without_an_end_is_told_again_once_it_was_gone(rig: Rig) -> None:
    rig.server.put(rig.leader_key("a"), b"somebody")
    node = rig.node("a", ttl_ms=1000)
    rig.settle()
    assert len(node.error_reports()) == 1
    rig.server.delete(rig.leader_key("a"))
    rig.run_ms(1_100)
    assert node.leads("a")
    rig.server.put(rig.leader_key("a"), b"somebody")
    rig.run_ms(DUE_MS)
    assert node.error_reports() == [("endless", 1, "somebody")]

    rig.server.put(rig.leader_key("a"), b"somebody", 500)
    rig.run_ms(1_100)
    assert node.leads("a")
    assert node.error_reports() == []


def test_a_lease_that_got_an_end_is_told_again_when_it_lost_it(rig: Rig) -> None:
    rig.server.put(rig.leader_key("a"), b"somebody")
    node = rig.node("a", ttl_ms=1000)
    rig.settle()
    rig.server.put(rig.leader_key("a"), b"somebody", 90_000)
    rig.run_ms(1_100)
    assert len(node.error_reports()) == 1
    rig.server.put(rig.leader_key("a"), b"somebody")
    rig.run_ms(1_100)
    assert node.error_reports() == [("endless", 1, "somebody")]


def test_an_error_about_an_election_that_is_gone_names_no_key(rig: Rig) -> None:
    node = rig.leader("a", ttl_ms=1000, margin_ms=100)
    rig.advance_ms(DUE_MS)
    node.turn()
    node.remove("a")
    # The server is slow: the lease ends, and the slot is freed, while the refresh is in flight.
    for _ in range(2):
        rig.advance_ms(1000)
        node.turn()
    node.driver.receive(encode(Refusal("ERR no")), rig.clock.now_ns())
    assert node.refusals() == [("refresh", 1, "ERR no", None)]
