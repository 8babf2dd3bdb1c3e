"""What a benchmark asks for: every lease refreshed now, and when the last answer was dealt with."""

from __future__ import annotations

from .rig import Node, Rig

KEYS = [f"k{number}" for number in range(600)]


def test_all_are_refreshed_at_once_though_none_is_due(rig: Rig) -> None:
    node = rig.leader(*KEYS, ttl_ms=60_000)
    rig.advance_ms(30)
    node.exchange()
    before = node.counted("refreshes")
    assert before < len(KEYS) / 10, "hardly any is due"

    node.core.refresh_all()
    node.exchange()

    assert node.counted("refreshes") == before + len(KEYS)
    assert {rig.server.remaining_ms(rig.leader_key(key)) for key in KEYS} == {60_000}


def test_it_is_quiet_from_the_turn_that_found_all_answered(rig: Rig) -> None:
    node = rig.leader(*KEYS, ttl_ms=60_000)
    node.turn()
    began_ns = rig.clock.now_ns()
    assert quiet_since_ns(node) == began_ns

    node.core.refresh_all()
    assert quiet_since_ns(node) is None, "what was said of the time before does not count"
    node.turn()
    node.serve()
    rig.advance_ms(3)
    assert node.deliver(2) == 2
    node.turn()
    assert quiet_since_ns(node) is None, "one batch is still on its way"

    assert node.deliver() == 1
    rig.advance_ms(4)
    node.turn()
    ended_ns = rig.clock.now_ns()
    rig.advance_ms(50)
    node.turn()
    assert quiet_since_ns(node) == ended_ns == began_ns + 7_000_000


def test_it_is_not_quiet_while_it_cannot_send(rig: Rig) -> None:
    node = rig.leader(*KEYS, ttl_ms=60_000)
    node.turn()
    node.lose()

    node.core.refresh_all()
    node.turn()

    assert quiet_since_ns(node) is None


def quiet_since_ns(node: Node) -> int | None:
    return node.core.quiet_since_ns
