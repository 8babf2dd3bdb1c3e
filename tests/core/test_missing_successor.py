"""Terms whose worker is done, and whose successor is late, gone, or was never there.

Nobody works on such a term any more. So each second that it goes on is one that its election
stands still: here is held how many those may be.
"""

from __future__ import annotations

import pytest

from multielect.election import DemotionReason

from .balanced import assign_to, fleet
from .rig import Node, Rig

REBALANCED, DRAINED = DemotionReason.REBALANCED, DemotionReason.DRAINED

LONG_MS = 10_000
PATIENCE_MS = 1000
"""How long a successor is waited for: as long as a grant lasts, a second with these TTLs."""


def waits(rig: Rig, node: Node, span_ms: int) -> None:
    """See that a node leads for so long, and no longer."""
    rig.run_ms(span_ms - 10)
    assert node.leads("a")
    rig.run_ms(20)
    assert not node.leads("a")


@pytest.mark.parametrize("done_first", [True, False])
def test_once_the_last_other_has_left_nobody_is_waited_for(rig: Rig, done_first: bool) -> None:
    """As where all nodes are stopped at once, and none of them knows it of the others yet."""
    old, other = fleet(rig, "a", drain_ms=LONG_MS)
    old.retire(LONG_MS)
    rig.settle()
    other.lose()
    rig.nodes.remove(other)
    if done_first:
        assert old.finish_drain("a")
        rig.settle()
        assert old.leads("a"), "nobody had time to take it"
        old.assign({"a": None})
    else:
        old.assign({"a": None})
        rig.settle()
        assert old.leads("a"), "its worker is not done"
        assert old.finish_drain("a")
    rig.settle()
    assert old.told("a") == [None, DRAINED]
    assert rig.holder_of("a") is None


def test_an_assignment_of_before_it_retired_names_no_successor_and_ends_nothing(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=LONG_MS)
    old.retire(LONG_MS)
    rig.settle()
    old.assign({"a": old})
    assert old.finish_drain("a")
    old.assign({"a": old})
    rig.settle()
    assert old.leads("a")
    assign_to(successor, successor, old)
    rig.settle()
    assert old.told("a") == [None, DRAINED]
    assert successor.leads("a")


@pytest.mark.parametrize("done_first", [True, False])
def test_a_successor_that_never_claims_is_not_waited_for_for_long(
    rig: Rig, done_first: bool
) -> None:
    """As one that does not stand for this election: it does not know of it yet, or not any more."""
    old, successor = fleet(rig, "a", drain_ms=LONG_MS)
    successor.remove("a")
    third = rig.node("a", balanced=True)
    third.assign({"a": successor})
    old.retire(LONG_MS)
    rig.settle()
    if done_first:
        assert old.finish_drain("a")
        rig.run_ms(300)
        old.assign({"a": successor})
    else:
        old.assign({"a": successor})
        rig.run_ms(300)
        assert old.finish_drain("a")
    waits(rig, old, PATIENCE_MS)
    assert old.told("a") == [None, DRAINED]
    # All are told that it is free; whoever may lead it need not wait for the lease to end.
    assert third.leads("a")


def test_a_successor_that_is_named_again_and_again_is_not_waited_for_any_longer(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=LONG_MS)
    old.retire(LONG_MS)
    rig.settle()
    assert old.finish_drain("a")
    old.assign({"a": successor})
    rig.run_ms(600)
    old.assign({"a": successor})
    waits(rig, old, PATIENCE_MS - 600)


def test_the_time_that_a_drain_was_given_is_not_exceeded(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=LONG_MS)
    old.retire(500)
    rig.settle()
    old.assign({"a": successor})
    assert old.finish_drain("a")
    waits(rig, old, 500)


def test_a_late_successor_is_given_what_waits_for_it(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=LONG_MS)
    old.retire(LONG_MS)
    rig.settle()
    old.assign({"a": successor})
    assert old.finish_drain("a")
    rig.run_ms(PATIENCE_MS - 50)
    successor.assign({"a": successor})
    rig.settle()
    assert old.told("a") == [None, DRAINED]
    assert successor.leads("a")


def test_a_node_that_tells_nobody_of_drains_waits_for_no_longer(rig: Rig) -> None:
    old, successor = fleet(rig, "a")
    old.assign({"a": successor})
    old.retire(LONG_MS)
    waits(rig, old, PATIENCE_MS)


# ---- the successor changes while a term drains


def test_a_worker_is_not_cut_short_by_a_successor_that_changes(rig: Rig) -> None:
    old, successor = fleet(rig, "a", drain_ms=LONG_MS)
    third = rig.node("a", balanced=True)
    assign_to(successor, old, successor, third)
    rig.settle()
    assert len(old.drains) == 1
    for owner in (third, None, old, successor):
        old.assign({"a": owner})
        rig.run_ms(PATIENCE_MS + 100)
        assert old.leads("a")
    rig.run_ms(LONG_MS - 4 * (PATIENCE_MS + 100) - 10)
    assert old.leads("a")


def test_a_successor_that_came_meanwhile_and_never_claims_is_not_waited_for_for_long(
    rig: Rig,
) -> None:
    old, successor = fleet(rig, "a", drain_ms=LONG_MS)
    third = rig.node("a", balanced=True)
    third.assign({"a": old})
    assign_to(successor, old, successor)
    rig.settle()
    assign_to(third, old, successor)
    assert old.finish_drain("a")
    waits(rig, old, PATIENCE_MS)
    assert old.told("a") == [None, REBALANCED]
    assert sum(node.leads("a") for node in (successor, third)) == 1


@pytest.mark.parametrize("owner", ["itself", "nobody"])
def test_where_no_other_is_to_lead_it_any_more_it_ends_at_once(rig: Rig, owner: str) -> None:
    """The successor left, and came to nothing, between the worker's last step and its claim."""
    old, successor = fleet(rig, "a", drain_ms=LONG_MS)
    third = rig.node("a", balanced=True)
    third.assign({"a": old})
    assign_to(successor, old, successor)
    rig.settle()
    assign_to(third, old, successor)
    assert old.finish_drain("a")
    rig.settle()
    assert old.leads("a")
    assign_to(old, successor, third)
    old.assign({"a": old if owner == "itself" else None})
    assert not old.leads("a")
    rig.settle()
    assert old.told("a")[:2] == [None, REBALANCED]
    if owner == "itself":
        assert old.leads("a"), "its next term is its own"
