"""A lease that stands in a node's name while the node has no term: nobody else can take it."""

from __future__ import annotations

from multielect.election import DemotionReason

from .rig import Node, Rig

TTL_MS = 30_000
CLAIMED_MS = 5_000  # how often who is to lead says so
SOON_MS = 100
REBALANCED, SUPERSEDED = DemotionReason.REBALANCED, DemotionReason.SUPERSEDED


def fleet(rig: Rig, *, drain_ms: int | None = None) -> tuple[Node, Node]:
    """Two balanced nodes, the first of which leads the election."""
    old = rig.node("a", ttl_ms=TTL_MS, balanced=True, drain_ms=drain_ms)
    successor = rig.node("a", ttl_ms=TTL_MS, balanced=True, drain_ms=drain_ms)
    assign_to(old, old, successor)
    rig.settle()
    assert old.leads("a")
    return old, successor


def assign_to(node: Node, *all_nodes: Node) -> None:
    for each in all_nodes:
        each.assign({"a": node})


def test_what_is_assigned_to_another_as_a_newer_epoch_is_learned_is_handed_over(rig: Rig) -> None:
    old, successor = fleet(rig)
    assert old.learn("a", old.candidacy("a").epoch + 10)
    assign_to(successor, old, successor)
    rig.run_ms(CLAIMED_MS + SOON_MS)
    assert old.told("a") == [None, SUPERSEDED, None, REBALANCED]
    assert successor.leads("a")


def test_what_was_assigned_back_for_a_moment_as_its_drain_ended_is_handed_over(rig: Rig) -> None:
    old, successor = fleet(rig, drain_ms=TTL_MS)
    assign_to(successor, old, successor)
    rig.settle()
    assign_to(old, old, successor)
    assert old.finish_drain("a")
    assign_to(successor, old, successor)
    rig.run_ms(CLAIMED_MS + SOON_MS)
    assert old.drains[-1].epoch == old.candidacy("a").epoch
    assert old.finish_drain("a")
    rig.settle()
    assert old.told("a") == [None, REBALANCED, None, REBALANCED]
    assert successor.leads("a")


def test_a_node_that_retires_then_releases_it(rig: Rig) -> None:
    old, successor = fleet(rig)
    assign_to(successor, successor)
    assert old.learn("a", old.candidacy("a").epoch + 10)
    old.retire(TTL_MS)
    rig.run_ms(SOON_MS)
    assert old.told("a") == [None, SUPERSEDED]
    assert successor.leads("a")
