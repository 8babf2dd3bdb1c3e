"""One leader, rising epochs, paired events and a leader for all in the end: whatever happens."""

from __future__ import annotations

import pytest

from multielect.election import DemotionReason

from .rig import Happening, Rig
from .simulation import KEYS, Simulation, check_pairs


@pytest.mark.parametrize("seed", range(100))
def test_the_promises_hold_whatever_happens(seed: int) -> None:
    Simulation(seed).play(1000)


def test_the_stories_are_eventful() -> None:
    reasons: set[DemotionReason | None] = set()
    stale = 0
    for seed in range(10):
        simulation = Simulation(seed)
        simulation.play(600)
        for node in simulation.rig.nodes:
            reasons.update(happening.reason for happening in node.happenings)
            stale += node.counted("stale_replies")
    assert reasons >= {
        None,
        DemotionReason.EXPIRED,
        DemotionReason.RESIGNED,
        DemotionReason.REMOVED,
    }
    assert stale > 0


def test_the_same_seed_and_calls_give_the_same_bytes_and_events() -> None:
    stories = []
    for _ in range(2):
        simulation = Simulation(7)
        simulation.play(1500)
        stories.append(
            (
                b"".join(simulation.sent),
                [node.happenings for node in simulation.rig.nodes],
                [node.core.counters for node in simulation.rig.nodes],
                [node.next_tick_ns() for node in simulation.rig.nodes],
            )
        )
    assert stories[0] == stories[1]
    assert len(stories[0][0]) > 10_000


def test_events_come_in_pairs_and_in_order(rig: Rig) -> None:
    node = rig.node(*KEYS, ttl_ms=1000, margin_ms=100)
    for turn in range(30):
        rig.settle()
        key = KEYS[turn % len(KEYS)]
        if turn % 3 == 0:
            node.resign(key)
            node.campaign(key)
        elif turn % 3 == 1:
            rig.server.delete(rig.leader_key(key))
            rig.run_ms(400)
        else:
            rig.advance_ms(2000)
    node.core.stop(rig.clock.now_ns())
    node.take()
    for key in KEYS:
        told = node.told(key)
        assert told[0::2] == [None] * (len(told) // 2)
        assert None not in told[1::2]
        assert len(told) > 10
    check_pairs(node.happenings)


ELECTED = Happening("a", 1, None, 5)
ENDED = Happening("a", 1, DemotionReason.LOST, 6)


@pytest.mark.parametrize(
    "story",
    [
        [ELECTED, ELECTED],
        [ELECTED, ENDED, ENDED],
        [ENDED],
        [ELECTED, ENDED._replace(epoch=2)],
        [ELECTED, ENDED._replace(at_ns=4)],
    ],
)
def test_the_check_of_pairs_sees_what_is_wrong(story: list[Happening]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check_pairs(story)
