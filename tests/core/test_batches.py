"""Batches are bounded, few and fair: 250 keys a script, 32 in flight, refreshes first."""

from __future__ import annotations

from multielect._protocol.scripts import WITH_FLAGS

from .rig import DUE_MS, MS, Rig

MAX_IN_FLIGHT = 32


def keys(count: int) -> list[str]:
    return [f"k{n}" for n in range(count)]


def test_a_script_is_given_at_most_250_keys(rig: Rig) -> None:
    node = rig.node(*keys(1000))
    rig.run_ms(DUE_MS)
    node.core.elections.stop()
    rig.settle()

    requests = {batch.request for batch in rig.server.batches}
    assert requests == {"acquire", "refresh", "release"}
    assert max(len(batch.keys) for batch in rig.server.batches) == 250
    for request in requests:
        served = [batch.elections for batch in rig.server.batches if batch.request == request]
        assert sum(served) == 1000, request


def test_a_smaller_bound_is_kept_too(rig: Rig) -> None:
    node = rig.node(*keys(100), batch_keys=7)
    rig.run_ms(DUE_MS)
    node.core.elections.stop()
    rig.settle()
    assert max(batch.elections for batch in rig.server.batches) == 7


def test_refreshes_of_many_leases_fill_their_batches(rig: Rig) -> None:
    rig.node(*keys(2000), ttl_ms=3000)
    rig.settle()
    rig.run_ms(1000)
    rig.server.batches.clear()
    rig.run_ms(3000)
    refreshes = [batch.elections for batch in rig.server.batches]
    assert sum(refreshes) == 3 * 2000
    # Two trains in each cycle, and what is left over in each.
    assert len(refreshes) <= 3 * (8 + 2)


def test_at_most_32_batches_are_in_flight(rig: Rig) -> None:
    node = rig.node(*keys(10_000))
    for _ in range(3):
        node.turn()
        assert len(node.requests) == MAX_IN_FLIGHT
    node.serve(most=1)
    node.deliver()
    node.turn()
    assert len(node.requests) == MAX_IN_FLIGHT
    rig.settle()
    assert node.core.elections.leading == 10_000


def test_a_full_pipeline_asks_for_no_turn(rig: Rig) -> None:
    node = rig.node(*keys(10_000))
    node.turn()
    assert node.next_turn_ns() > rig.clock.now_ns()
    node.serve(most=1)
    node.deliver()
    assert node.next_turn_ns() == rig.clock.now_ns()


def test_refreshes_are_not_starved_by_acquires(rig: Rig) -> None:
    node = rig.leader(*keys(100))
    node.add(*(f"late{n}" for n in range(20_000)))
    served: list[str] = []
    for _ in range(20):
        rig.advance_ms(20)
        node.turn()
        # A slow server: one batch every 20 ms, and thousands that wait.
        node.serve(most=1)
        node.deliver()
        served.append(rig.server.batches[-1].request)
    assert served.count("acquire") > 10
    node.turn()
    waiting = [words[1] for words in node.requests]
    assert waiting.count(WITH_FLAGS.refresh.body) == 1, "it goes out as soon as it is due"


def test_what_is_due_goes_out_refreshes_first_and_acquires_last(rig: Rig) -> None:
    node = rig.leader("led", "left")
    rig.advance_ms(DUE_MS)
    node.resign("left")
    node.add("new")
    rig.server.batches.clear()
    node.exchange()
    assert [batch.request for batch in rig.server.batches] == ["refresh", "release", "acquire"]


def test_scripts_are_named_by_digest_once_their_text_was_sent(rig: Rig) -> None:
    node = rig.node(*keys(300))
    node.turn()
    assert [words[0] for words in node.requests] == [b"EVAL", b"EVALSHA", b"EVALSHA"]
    assert node.requests[1][1] == WITH_FLAGS.acquire.sha
    node.serve()
    node.lose()
    node.connect()
    node.turn()
    assert node.requests[0][0] == b"EVAL", "another connection may be another server"


def test_a_digest_that_the_server_has_forgotten_is_sent_again_as_text(rig: Rig) -> None:
    node = rig.leader("a")
    rig.run_ms(700)
    rig.server.batches.clear()
    rig.server.forget_scripts()
    rig.run_ms(DUE_MS)

    assert [batch.command for batch in rig.server.batches] == ["EVALSHA", "EVAL"]
    assert node.leads("a")
    rig.run_ms(5000)
    assert node.told("a") == [None]
    assert node.error_reports() == [], "it is no error that anyone must know"


def test_many_batches_that_meet_a_forgetful_server_all_come_through(rig: Rig) -> None:
    node = rig.node("first")
    rig.settle()
    rig.server.forget_scripts()
    node.add(*keys(1000))
    rig.settle()
    assert node.core.elections.leading == 1001


def test_a_release_that_meets_a_forgetful_server_is_sent_again(rig: Rig) -> None:
    node = rig.leader("a", "b")
    node.resign("a")
    rig.settle()
    rig.server.forget_scripts()
    node.core.elections.stop()
    rig.settle()
    assert rig.holder_of("b") is None
    assert node.is_quiet()


def test_a_batch_waits_for_its_answer_since_it_was_sent(rig: Rig) -> None:
    node = rig.node(*keys(300))
    assert node.owed_since_ns() is None
    sent_ns = rig.clock.now_ns()
    node.turn()
    rig.clock.advance_ns(5 * MS)
    assert node.owed_since_ns() == sent_ns
    node.add("later")
    node.turn()
    node.serve()
    node.deliver(most=3)
    assert node.owed_since_ns() == sent_ns + 5 * MS
    node.deliver()
    assert node.owed_since_ns() is None


def test_a_server_that_is_slow_is_not_silent(rig: Rig) -> None:
    node = rig.node(*keys(300))
    node.turn()
    rig.clock.advance_ns(5 * MS)
    node.serve()
    node.deliver(most=1)
    assert node.owed_since_ns() == rig.clock.now_ns(), "one of three is answered"


def test_a_lease_is_not_refreshed_again_while_it_is_being_refreshed(rig: Rig) -> None:
    node = rig.leader("a")
    refreshes = node.counted("refreshes")
    rig.clock.advance_ns(DUE_MS * MS)
    node.turn()
    assert node.counted("refreshes") == refreshes + 1
    # It is slow to be answered, while others are: that does not cost the connection.
    rig.clock.advance_ns(DUE_MS * MS)
    node.turn()
    assert node.counted("refreshes") == refreshes + 1
    assert node.leads("a")
    rig.clock.advance_ns(DUE_MS * MS)
    node.turn()
    assert not node.leads("a")


def test_leader_and_epoch_keys_lie_where_the_layout_says(rig: Rig) -> None:
    node = rig.node("a", "\x00{}\r\n", "x" * 512)
    node.turn()
    words = node.requests[0]
    assert words[2] == b"6"
    assert words[3:9] == [
        key
        for raw in (b"a", b"\x00{}\r\n", b"x" * 512)
        for key in (node.layout.leader_key(raw), node.layout.epoch_key(raw))
    ]
    assert words[9:] == [node.holder, b"1000", b"time", b""]


def test_keys_of_every_length_are_sent_as_they_are(rig: Rig) -> None:
    # They are copied in words of 8 bytes, and their lengths are written by two ways.
    raws = ["".join(chr(97 + (n + i) % 26) for i in range(n)) for n in [*range(1, 101), 511, 512]]
    node = rig.node(*raws, ttl_ms=1000)
    leader_keys = [node.layout.leader_key(raw.encode()) for raw in raws]
    epoch_keys = [node.layout.epoch_key(raw.encode()) for raw in raws]
    node.turn()
    (acquire,) = node.requests
    sent = zip(acquire[3 : 3 + 2 * len(raws) : 2], acquire[4 : 4 + 2 * len(raws) : 2], strict=True)
    assert sorted(sent) == sorted(zip(leader_keys, epoch_keys, strict=True))
    rig.settle()
    node.core.refresh_all()
    node.turn()
    (refresh,) = node.requests
    assert sorted(refresh[3 : 3 + len(raws)]) == sorted(leader_keys)
