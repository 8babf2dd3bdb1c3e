"""What a reply to CLUSTER SLOTS means."""

from __future__ import annotations

from typing import Any

import pytest

from multielect._connection.cluster import Address, read_slots

ASKED = Address("asked", 7000)


def node(host: bytes | None, port: int, *more: object) -> list[object]:
    return [host, port, b"id", *more]


def test_primaries_and_nodes() -> None:
    # Redis 6.2 has three parts for each node, later versions have a fourth.
    reply = [
        [5461, 10922, node(b"10.0.0.2", 7001, []), node(b"10.0.0.5", 7004, [])],
        [0, 5460, node(b"10.0.0.1", 7000), node(b"10.0.0.4", 7003)],
        [16000, 16000, node(b"10.0.0.1", 7000)],
    ]
    slots = read_slots(reply, ASKED)
    assert slots.ranges == (
        (0, 5460, ("10.0.0.1", 7000)),
        (5461, 10922, ("10.0.0.2", 7001)),
        (16000, 16000, ("10.0.0.1", 7000)),
    )
    assert list(map(str, slots.nodes)) == [
        "10.0.0.2:7001",
        "10.0.0.1:7000",
        "10.0.0.5:7004",
        "10.0.0.4:7003",
    ]


@pytest.mark.parametrize("host", [None, b""])
def test_a_node_without_a_host_is_where_it_was_asked(host: bytes | None) -> None:
    # `cluster-preferred-endpoint-type unknown-endpoint`
    slots = read_slots([[0, 1, node(host, 7001)]], ASKED)
    assert slots.ranges == ((0, 1, ("asked", 7001)),)


@pytest.mark.parametrize("unknown", [node(b"?", 7001), node(b"h", 0)])
def test_slots_of_a_primary_that_cannot_be_named_are_not_served(unknown: list[object]) -> None:
    # `cluster-preferred-endpoint-type hostname` without a host name, and a node that is new.
    reply = [[0, 1, unknown, node(b"replica", 7002)], [2, 3], [4, 4, node(b"h", 1)]]
    slots = read_slots(reply, ASKED)
    assert slots.ranges == ((4, 4, ("h", 1)),)
    assert slots.nodes == (("h", 1), ("replica", 7002))


MALFORMED: list[Any] = [
    None,
    b"x",
    {},
    [0],
    [[0]],
    [[b"0", 1]],
    [[1, 0]],
    [[-1, 0]],
    [[0, 16_384]],
    [[0, 1, b"h"]],
    [[0, 1, [b"h"]]],
    [[0, 1, [b"h", b"7000"]]],
    [[0, 1, [7, 7000]]],
    [[0, 1]] * 16_385,
]


@pytest.mark.parametrize("reply", MALFORMED)
def test_another_form_is_refused(reply: Any) -> None:
    with pytest.raises(ValueError, match="it is no "):
        read_slots(reply, ASKED)
