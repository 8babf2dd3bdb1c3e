"""Balanced nodes whose elections are handed over: what the tests of claims and handovers share."""

from __future__ import annotations

from .rig import Node, Rig


def fleet(rig: Rig, *keys: str, drain_ms: int | None = None) -> tuple[Node, Node]:
    """Two balanced nodes, the first of which leads everything."""
    old = rig.node(*keys, balanced=True, drain_ms=drain_ms)
    successor = rig.node(*keys, balanced=True, drain_ms=drain_ms)
    old.assign(dict.fromkeys(keys, old))
    successor.assign(dict.fromkeys(keys, old))
    rig.settle()
    assert all(old.leads(key) for key in keys)
    return old, successor


def assign_to(node: Node, *all_nodes: Node, keys: tuple[str, ...] = ("a",)) -> None:
    for each in all_nodes:
        each.assign(dict.fromkeys(keys, node))


def third(rig: Rig, *keys: str) -> Node:
    node = rig.node(*keys, balanced=True)
    node.assign({})
    return node
