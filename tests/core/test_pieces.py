"""However the bytes are cut into pieces, the outcome is the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from multielect._protocol.scripts import LARGEST_EPOCH
from multielect.testing._resp import Push, encode, parse_commands

from .rig import DUE_MS, Node, Rig, TermEvent

Cut = Callable[[bytes], list[bytes]]


def scene(cut: Cut) -> tuple[list[TermEvent], list[tuple[str, int, str]], bytes, dict[str, int]]:
    """Play replies of every kind, each cut into pieces; returns all that came of it."""
    rig = Rig()
    other = rig.leader("theirs", "free", ttl_ms=60_000)
    rig.server.put(rig.leader_key("bad"), [b"a", b"list"])
    rig.server.put(rig.epoch_key("full"), b"%d" % LARGEST_EPOCH)
    node = rig.node("mine", "theirs", "lost", "free", "bad", "full")
    sent = b""

    def turn() -> None:
        nonlocal sent
        for _ in range(3):
            node.driver.turn(rig.clock.now_ns())
            data = node.take_outgoing()
            sent += data
            node.requests.extend(parse_commands(data))
            node.serve()
            while node.replies:
                for piece in cut(node.replies.popleft()):
                    node.driver.receive(piece, rig.clock.now_ns())
            node.take()

    turn()
    other.resign("free")
    other.exchange()
    turn()
    rig.server.delete(rig.leader_key("lost"))
    rig.advance_ms(DUE_MS)
    turn()
    node.resign("mine")
    turn()
    return node.term_events, node.error_reports(), sent, node.core.elections.counters


def whole(data: bytes) -> list[bytes]:
    return [data]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def test_the_scene_shows_what_it_should() -> None:
    term_events, error_reports, _, _ = scene(whole)
    assert {term_event.key for term_event in term_events} == {"mine", "lost", "free"}
    assert len(error_reports) >= 2


def test_byte_by_byte() -> None:
    assert scene(one_by_one) == scene(whole)


@pytest.mark.parametrize("at", range(1, 200))
def test_cut_in_two_at_every_place(at: int) -> None:
    assert scene(lambda data: [data[:at], data[at:]]) == scene(whole)


@pytest.mark.parametrize("size", [2, 3, 7, 64])
def test_in_pieces_of_one_size(size: int) -> None:
    expected = scene(whole)
    assert expected == scene(
        lambda data: [data[at : at + size] for at in range(0, len(data), size)]
    )


def test_many_replies_in_one_piece(rig: Rig) -> None:
    node: Node = rig.node(*(f"k{n}" for n in range(1000)))
    node.turn()
    node.serve()
    push = encode(Push((b"message", b"c", b"3:x/1")))
    node.driver.receive(push + push.join(node.replies) + push, rig.clock.now_ns())
    assert node.core.elections.leading == 1000


def test_nothing_is_a_piece_too(rig: Rig) -> None:
    node = rig.node("a")
    node.driver.receive(b"", rig.clock.now_ns())
    node.driver.hear(b"", 0)


def test_any_buffer_will_do(rig: Rig) -> None:
    node = rig.node("a")
    node.turn()
    node.serve()
    buffer = bytearray(node.replies.popleft())
    node.driver.receive(memoryview(buffer), rig.clock.now_ns())
    assert node.leads("a")


def test_what_is_sent_may_leave_in_pieces(rig: Rig) -> None:
    node = rig.node("a", "b")
    node.driver.turn(rig.clock.now_ns())
    with memoryview(node.driver.outgoing) as waiting:
        expected = bytes(waiting)
    sent = b""
    while node.driver.outgoing_bytes:
        with memoryview(node.driver.outgoing) as waiting:
            sent += bytes(waiting[:3])
        node.driver.sent(min(3, node.driver.outgoing_bytes))
    assert sent == expected


def test_more_cannot_have_been_sent_than_there_was(rig: Rig) -> None:
    node = rig.node("a")
    with pytest.raises(ValueError, match="cannot have been sent"):
        node.driver.sent(1)
