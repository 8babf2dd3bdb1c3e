"""Terms begin and end in pairs and in order, whatever ends them."""

from __future__ import annotations

import pytest

from multielect.election import DemotionReason

from .pairs import check_pairs
from .rig import Rig, TermEvent

KEYS = ("a", "b", "c", "d")


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
    node.core.elections.stop()
    node.turn()
    node.take()
    for key in KEYS:
        told = node.told(key)
        assert told[0::2] == [None] * (len(told) // 2)
        assert None not in told[1::2]
        assert len(told) > 10
    check_pairs(node.term_events)


ELECTED = TermEvent("a", 1, None, 5)
ENDED = TermEvent("a", 1, DemotionReason.LOST, 6)


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
def test_the_check_of_pairs_sees_what_is_wrong(story: list[TermEvent]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check_pairs(story)
