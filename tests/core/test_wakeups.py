"""An announced release wakes those who wait, at once; an announcement is a hint and no fact."""

from __future__ import annotations

import pytest

from multielect._protocol.keys import elector_layout
from multielect.testing._model import RedisModel
from multielect.testing._resp import Push, encode

from .rig import MS, Node, Rig


def announcement(rig: Rig, *names: bytes, channel: bytes = b"any") -> bytes:
    message = b"".join(b"%d:%s" % (len(name), name) for name in names)
    return encode(Push((b"message", channel, message)))


@pytest.fixture
def waiting(rig: Rig) -> Node:
    """A node that waits for elections a and b, which another leads and does not refresh."""
    rig.leader("a", "b", ttl_ms=60_000)
    node = rig.node("a", "b", ttl_ms=60_000)
    rig.settle()
    rig.server.batches.clear()
    return node


def test_a_release_wakes_the_others_at_once(rig: Rig) -> None:
    leader = rig.leader("a", "b", ttl_ms=60_000)
    others = [rig.node("a", "b", ttl_ms=60_000) for _ in range(2)]
    rig.settle()
    leader.core.elections.stop()
    leader.exchange()
    for node in others:
        node.deliver()
        assert node.counted("wakeups") == 2
        assert node.next_turn_ns() == rig.clock.now_ns()
    rig.settle()

    assert others[0].leads("a")
    assert others[0].leads("b")


def test_only_what_was_released_is_asked_for(rig: Rig) -> None:
    leader = rig.leader("a", "b", ttl_ms=60_000)
    node = rig.node("a", "b", ttl_ms=60_000)
    rig.settle()
    rig.server.batches.clear()
    leader.resign("b")
    rig.settle()

    acquires = [batch for batch in rig.server.batches if batch.request == "acquire"]
    assert [batch.keys for batch in acquires] == [(rig.leader_key("b"), rig.epoch_key("b"))]
    assert node.leads("b")


def test_a_node_does_not_heed_its_own_announcements(waiting: Node, rig: Rig) -> None:
    frame = announcement(rig, waiting.holder, rig.leader_key("a"))
    waiting.driver.receive(frame, rig.clock.now_ns())
    waiting.turn()
    assert not waiting.requests
    assert waiting.counted("wakeups") == 0


def test_another_incarnation_of_the_node_is_another(waiting: Node, rig: Rig) -> None:
    frame = announcement(rig, waiting.holder + b"0", rig.leader_key("a"))
    waiting.driver.receive(frame, rig.clock.now_ns())
    waiting.turn()
    assert len(waiting.requests) == 1


SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$3\r\nany\r\n:1\r\n"


def test_who_listens_late_asks_again_for_what_it_waits_for(waiting: Node, rig: Rig) -> None:
    """On a second connection: what was set free before it listened, nobody will announce."""
    waiting.driver.hear(SUBSCRIBED, 0)
    rig.settle()

    assert [batch.elections for batch in rig.server.batches] == [2]
    waiting.driver.hear(SUBSCRIBED[:20], 0)
    assert not waiting.requests
    waiting.driver.hear(SUBSCRIBED[20:], 0)
    waiting.turn()
    assert len(waiting.requests) == 1


def test_who_listens_late_asks_again_for_what_it_is_asking_for(rig: Rig) -> None:
    leader = rig.leader("a", ttl_ms=60_000)
    node = rig.node("a", ttl_ms=60_000)
    node.turn()
    node.serve()
    leader.core.elections.stop()
    leader.exchange()
    node.replies.pop()  # the announcement: it went out before anybody listened
    node.driver.hear(SUBSCRIBED, 0)
    rig.settle()

    assert node.leads("a"), "without waiting for the end of a lease that is no more"


def test_a_wake_up_that_was_no_release_costs_one_question(waiting: Node, rig: Rig) -> None:
    frame = announcement(rig, b"forged/1", rig.leader_key("a"))
    for _ in range(3):
        waiting.driver.receive(frame, rig.clock.now_ns())
    rig.settle()

    assert [batch.elections for batch in rig.server.batches] == [1]
    assert not waiting.leads("a")
    assert waiting.next_turn_ns() > rig.clock.now_ns() + 1000 * MS, "it waits as it did"


def test_a_leader_is_not_moved_by_a_wake_up(rig: Rig) -> None:
    leader = rig.leader("a")
    rig.server.batches.clear()
    leader.driver.receive(announcement(rig, b"forged/1", rig.leader_key("a")), rig.clock.now_ns())
    rig.settle()
    assert rig.server.batches == []
    assert leader.leads("a")


def test_wake_ups_may_come_on_a_second_connection(waiting: Node, rig: Rig) -> None:
    push = announcement(rig, b"other/1", rig.leader_key("a"))
    resp2 = b"*" + push[1:]
    for at in range(len(resp2)):
        waiting.driver.hear(resp2[at : at + 1], 0)
    waiting.turn()
    assert len(waiting.requests) == 1


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"7:other/1",
        b"7:other/1999:",
        b"7:other/1,",
        b"7:other/1-1:",
        b"7:other/199999999999999999999:x",
        b"99999999:x",
        b"other/1",
        b"7:other/1" + b"3:abc",
        b"7:other/1" + b"7::leader",
        b"7:other/1" + b"8:}:leader",
        b"7:other/1" + b"7:}leader",
        b"7:other/1" + b"25:elsewhere:{1}:none:leader",
        b"7:other/1" + b"0:" * 1000,
    ],
)
def test_an_announcement_of_another_form_is_let_be(waiting: Node, rig: Rig, message: bytes) -> None:
    waiting.driver.receive(encode(Push((b"message", b"any", message))), rig.clock.now_ns())
    waiting.driver.receive(announcement(rig, b"other/1", rig.leader_key("b")), rig.clock.now_ns())
    waiting.turn()
    assert [words[3] for words in waiting.requests] == [rig.leader_key("b")]


@pytest.mark.parametrize(
    "push",
    [
        Push((b"subscribe", b"channel", 1)),
        Push((b"message", b"channel", 7)),
        Push((b"message",)),
        Push((b"invalidate", b"x", b"x")),
        Push(()),
    ],
)
def test_a_push_of_another_kind_is_let_be(waiting: Node, rig: Rig, push: Push) -> None:
    waiting.driver.receive(encode(push), rig.clock.now_ns())
    waiting.turn()
    assert not waiting.requests


def test_the_single_election_is_woken_too() -> None:
    rig = Rig()
    layout = elector_layout("sole")
    nodes = []
    for holder in ("first/1", "second/1"):
        node = Node(rig.server, holder=holder, ttl_ms=60_000, margin_ms=100, layout=layout)
        rig.nodes.append(node)
        node.add("")
        node.core.elections.start()
        node.connect()
        nodes.append(node)
    rig.settle()
    assert nodes[0].leads("")
    nodes[0].resign("")
    rig.settle()
    assert nodes[1].leads("")


def test_a_release_is_announced_once_a_batch(rig: Rig) -> None:
    keys = [f"k{n}" for n in range(125)]
    leader = rig.leader(*keys)
    heard: list[Push] = []
    model: RedisModel = rig.server
    model.subscribers.append((leader.layout.channel, heard.append))
    leader.core.elections.stop()
    rig.settle()
    assert len(heard) == 1


def test_a_wake_up_that_overtakes_the_answer_is_not_lost(rig: Rig) -> None:
    # On a second connection it may: where a server speaks only RESP2.
    leader = rig.leader("a", ttl_ms=60_000)
    node = rig.node("a", ttl_ms=60_000)
    node.turn()
    node.serve()
    leader.resign("a")
    leader.exchange()
    answer, push = node.replies
    node.replies.clear()
    node.driver.hear(push, 0)
    node.driver.receive(answer, rig.clock.now_ns())
    rig.settle()
    assert node.leads("a")
