"""The nodes and slots of a Redis Cluster, as its nodes tell them.

Rules of this file:
    * Pure: nothing here connects.
    * A node that names no host means the host under which it was asked.
    * A range of slots whose primary cannot be named counts as not served: see `read_slots`.

The reply to CLUSTER SLOTS is described at https://redis.io/docs/latest/commands/cluster-slots/.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .._protocol.keys import HASH_SLOTS


class Address(NamedTuple):
    """Where a node of a cluster listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return the address as the cluster writes it in a redirection."""
        return f"{self.host}:{self.port}"


class SlotRange(NamedTuple):
    """Slots that one primary serves, from `first` to `last`, both included."""

    first: int
    last: int
    primary: Address


class Slots(NamedTuple):
    """What a node said about its cluster.

    Attributes:
        ranges: the slots that are served, in order.
        nodes: all nodes that were named, primaries first, each once.
    """

    ranges: tuple[SlotRange, ...]
    nodes: tuple[Address, ...]


def read_slots(reply: object, asked: Address) -> Slots:
    """Return what a reply to CLUSTER SLOTS says.

    Args:
        reply: the reply.
        asked: the address of the node that was asked.

    Raises:
        ValueError: if the reply has another form.
    """
    if not isinstance(reply, list) or len(reply) > HASH_SLOTS:
        raise ValueError(f"it is no list of slots: {reply!r:.100}")
    ranges: list[SlotRange] = []
    primaries: dict[Address, None] = {}
    replicas: dict[Address, None] = {}
    for entry in reply:
        first, last, nodes = _read_range(entry, asked)
        if nodes and nodes[0] is not None:
            ranges.append(SlotRange(first, last, nodes[0]))
            primaries[nodes[0]] = None
        replicas |= {node: None for node in nodes[1:] if node is not None}
    ranges.sort()
    return Slots(tuple(ranges), (*primaries, *(each for each in replicas if each not in primaries)))


def _read_range(entry: object, asked: Address) -> tuple[int, int, list[Address | None]]:
    if not isinstance(entry, list) or len(entry) < 2:
        raise ValueError(f"it is no range of slots: {entry!r:.100}")
    first, last = entry[:2]
    if type(first) is not int or type(last) is not int or not 0 <= first <= last < HASH_SLOTS:
        raise ValueError(f"it is no range of slots: {entry!r:.100}")
    return first, last, [_read_node(node, asked) for node in entry[2:]]


def _read_node(node: Any, asked: Address) -> Address | None:  # noqa: ANN401  # a server's reply
    if not isinstance(node, list) or len(node) < 2 or type(node[1]) is not int:
        raise ValueError(f"it is no node: {node!r:.100}")
    host, port = node[0], node[1]
    if host is not None and not isinstance(host, bytes):
        raise ValueError(f"it is no node: {node!r:.100}")
    # A node that does not know its own address yet has port 0.
    if not 0 < port < 1 << 16 or host == b"?":
        return None
    return Address(host.decode(errors="replace") if host else asked.host, port)
