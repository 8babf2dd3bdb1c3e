"""However long nobody takes the events, few wait for one election, and what is told is true."""

from __future__ import annotations

import random

from multielect.election import DemotionReason

from .pairs import check_pairs
from .rig import Node, Rig, TermEvent

KEYS = [f"k{n}" for n in range(50)]


def turn(node: Node, key: str) -> None:
    """Begin a term and end one, and take no events."""
    now_ns = node.clock.now_ns()
    assert node.core.elections.resign(*node.place(key), 0, now_ns)
    node.core.elections.campaign(*node.place(key))
    exchange(node)
    exchange(node)


def exchange(node: Node) -> None:
    """Let the core have answers, and leave its events alone."""
    node.driver.turn(node.clock.now_ns())
    node.send()
    node.serve()
    while node.replies:
        node.driver.receive(node.replies.popleft(), node.clock.now_ns())


def test_no_more_than_three_wait_for_one_election(rig: Rig) -> None:
    node = rig.node("a", "b", epochs="counter")
    exchange(node)
    for _ in range(500):
        turn(node, "a")
    node.take()

    assert [term_event[1:3] for term_event in node.term_events if term_event.key == "a"] == [
        (1, None),
        (1, DemotionReason.RESIGNED),
        (501, None),
    ]
    assert node.told("b") == [None]
    assert node.counted("elected") == 502, "what is not told is counted"


def test_what_is_told_comes_in_pairs_whenever_it_is_taken(rig: Rig) -> None:
    chance = random.Random(5)
    node = rig.node(*KEYS, epochs="counter")
    exchange(node)
    told: dict[str, list[TermEvent]] = {}
    for _ in range(3000):
        turn(node, chance.choice(KEYS))
        if chance.random() < 0.02:
            node.take()
    node.take()
    check_pairs(node.term_events)
    for term_event in node.term_events:
        told.setdefault(term_event.key, []).append(term_event)
    for key in KEYS:
        assert told[key][-1].reason is None
        assert told[key][-1].epoch == node.candidacy(key).epoch
        epochs = [term_event.epoch for term_event in told[key]]
        assert epochs == sorted(epochs)
