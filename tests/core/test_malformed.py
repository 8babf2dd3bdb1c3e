"""A malformed reply costs the connection and nothing else: no memory, no election."""

from __future__ import annotations

import pytest

from multielect._fleet.membership import pack
from multielect._protocol.scripts import WITH_FLAGS
from multielect.errors import ProtocolError
from multielect.testing._resp import Push, encode

from .memory_probe import resident_bytes
from .rig import DUE_MS, MS, Node, Rig

KEYS = ("a", "b", "c")

NO_PROTOCOL = [
    b"\r\n",
    b"\n",
    b"hello\r\n",
    b"HTTP/1.1 400 Bad Request\r\n",
    b"\x00\x00\x00\x00",
    b"\x16\x03\x01\x02\x00",
    b"*x\r\n",
    b"*\r\n",
    b"*-2\r\n",
    b"*1\n",
    b":\r\n",
    b":1x\r\n",
    b":--1\r\n",
    b":1234567890123456789\r\n",
    b"$-2\r\n",
    b"$3\r\nabcde",
    b"$3\r\nabc\r ",
    b"_x\r\n",
    b"%-1\r\n",
    b">-1\r\n",
    b"$16777217\r\n",
    b"*1048577\r\n",
    b"*9999999999999999999\r\n",
    b"%600000\r\n" * 2,
]

NO_ANSWER = [
    b"+OK\r\n",
    b":1\r\n",
    b"_\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"%1\r\n+a\r\n:1\r\n",
    b"*1\r\n+time\r\n",
    b"*1\r\n*1\r\n:1\r\n",
]

NO_ACQUIRE = [
    b"*1\r\n:1\r\n",
    b"*4\r\n:1\r\n*0\r\n:1\r\n:2\r\n",
    b"*6\r\n:1\r\n*0\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
    b"*6\r\n:1\r\n*0\r\n:1\r\n:2\r\n:3\r\n-NOPERM claims\r\n",
    b"*5\r\n:1\r\n:0\r\n:1\r\n:2\r\n:3\r\n",
    b"*5\r\n:1\r\n*-1\r\n:1\r\n:2\r\n:3\r\n",
    b"*5\r\n:1\r\n*1\r\n:1\r\n:1\r\n:2\r\n:3\r\n",
    b"*5\r\n:1\r\n*1\r\n$-1\r\n:1\r\n:2\r\n:3\r\n",
    b"*5\r\n:1\r\n*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n:1\r\n:2\r\n:3\r\n",
    b"*5\r\n:1\r\n*0\r\n:0\r\n:2\r\n:3\r\n",
    b"*5\r\n:1\r\n*0\r\n:1\r\n$1\r\n2\r\n:3\r\n",
    b"*5\r\n:1\r\n*0\r\n:1\r\n:2\r\n*0\r\n",
    b"*5\r\n:1\r\n*0\r\n:1\r\n:2\r\n:-256000\r\n",
    b"*5\r\n:1\r\n*0\r\n:1\r\n:2\r\n:-256001\r\n",
    b"*5\r\n:1\r\n*1\r\n$3\r\nx/1\r\n:1\r\n:2\r\n:-256002\r\n",
    b"*5\r\n:1\r\n*1\r\n$3\r\nx/1\r\n:1\r\n:2\r\n:-%d\r\n" % (86_400_002 * 256 + 1),
    b"*5\r\n:1\r\n*1\r\n$3\r\nx/1\r\n:1\r\n:2\r\n:-999999999999999745\r\n",
    b"*5\r\n:1\r\n*1\r\n$2049\r\n%02049d\r\n:1\r\n:2\r\n:-257\r\n" % 0,
]

NO_REFRESH = [
    b"*1\r\n:1\r\n",
    b"*2\r\n:1\r\n*0\r\n",
    b"*4\r\n:1\r\n*0\r\n*0\r\n*0\r\n",
    b"*3\r\n:1\r\n:0\r\n*0\r\n",
    b"*3\r\n:1\r\n*-1\r\n*0\r\n",
    b"*3\r\n:1\r\n*0\r\n*-1\r\n",
    b"*3\r\n:1\r\n_\r\n_\r\n",
    b"*3\r\n:1\r\n*0\r\n:0\r\n",
    b"*3\r\n:1\r\n*1\r\n:0\r\n*0\r\n",
    b"*3\r\n:1\r\n*1\r\n:4\r\n*0\r\n",
    b"*3\r\n:1\r\n*1\r\n:-1\r\n*0\r\n",
    b"*3\r\n:1\r\n*1\r\n$1\r\n1\r\n*0\r\n",
    b"*3\r\n:1\r\n*1\r\n*0\r\n*0\r\n",
    b"*3\r\n:1\r\n*0\r\n*1\r\n:1\r\n",
    b"*3\r\n:1\r\n*0\r\n*2\r\n:1\r\n:2\r\n",
    b"*3\r\n:1\r\n*0\r\n*2\r\n:9\r\n-ERR\r\n",
]

NO_RELEASE = [
    b"*1\r\n:1\r\n",
    b"*2\r\n:1\r\n:1\r\n",
    b"*3\r\n:1\r\n:0\r\n*0\r\n",
    b"*3\r\n:1\r\n*0\r\n_\r\n",
    b"*3\r\n:1\r\n*1\r\n:1\r\n*0\r\n",
    b"*3\r\n:1\r\n*2\r\n:0\r\n:9\r\n*0\r\n",
    b"*3\r\n:1\r\n*2\r\n:4\r\n:9\r\n*0\r\n",
    b"*3\r\n:1\r\n*2\r\n:1\r\n-ERR\r\n*0\r\n",
    b"*3\r\n:1\r\n*0\r\n*1\r\n:1\r\n",
    b"*3\r\n:1\r\n*0\r\n*2\r\n:-1\r\n-ERR\r\n",
    b"*3\r\n:1\r\n*0\r\n*2\r\n:4\r\n-ERR\r\n",
    b"*3\r\n:1\r\n*0\r\n*2\r\n:0\r\n:1\r\n",
]

NO_MEMBERSHIP = [
    b"+OK\r\n",
    b":1\r\n",
    b"_\r\n",
    b"$-1\r\n",
    b"*0\r\n",
    b"*1\r\n$1\r\nx\r\n",
]


def recovers(node: Node, rig: Rig) -> None:
    """See that the node leads everything on its next connection, once."""
    node.lose()
    node.connect()
    rig.settle()
    assert [key for key in KEYS if node.leads(key)] == list(KEYS)
    rig.run_ms(3000)
    assert all(map(node.leads, KEYS))
    node.core.elections.stop()
    rig.settle()
    assert node.is_quiet()


@pytest.mark.parametrize("reply", NO_PROTOCOL + NO_ANSWER + NO_ACQUIRE)
def test_no_answer_to_an_acquire(rig: Rig, reply: bytes) -> None:
    node = rig.node(*KEYS)
    node.turn()
    with pytest.raises(ProtocolError, match="malformed"):
        node.driver.receive(reply, rig.clock.now_ns())
    recovers(node, rig)


@pytest.mark.parametrize("reply", NO_PROTOCOL + NO_ANSWER + NO_REFRESH)
def test_no_answer_to_a_refresh(rig: Rig, reply: bytes) -> None:
    node = rig.leader(*KEYS)
    rig.advance_ms(DUE_MS)
    node.turn()
    with pytest.raises(ProtocolError, match="malformed"):
        node.driver.receive(reply, rig.clock.now_ns())
    assert all(map(node.leads, KEYS)), "unknown outcome: the old deadline stands"
    recovers(node, rig)
    assert node.told("a")[:1] == [None]


@pytest.mark.parametrize("reply", NO_PROTOCOL + NO_ANSWER + NO_RELEASE)
def test_no_answer_to_a_release(rig: Rig, reply: bytes) -> None:
    node = rig.leader(*KEYS)
    node.core.elections.stop()
    node.turn()
    with pytest.raises(ProtocolError, match="malformed"):
        node.driver.receive(reply, rig.clock.now_ns())
    node.lose()
    node.connect()
    rig.settle()
    assert node.is_quiet()
    assert rig.holder_of("a") is None


@pytest.mark.parametrize("reply", NO_PROTOCOL + NO_ANSWER + NO_RELEASE)
def test_no_answer_to_a_grant(rig: Rig, reply: bytes) -> None:
    node = rig.node("a", balanced=True)
    successor = rig.node("a", balanced=True)
    node.assign({"a": node})
    rig.settle()
    for each in (node, successor):
        each.assign({"a": successor})
    successor.exchange()
    node.deliver()
    node.turn()
    assert [words[1] for words in node.requests] == [WITH_FLAGS.grant.body]
    with pytest.raises(ProtocolError, match="malformed"):
        node.driver.receive(reply, rig.clock.now_ns())
    assert not node.leads("a")
    node.lose()
    node.connect()
    rig.run_ms(2000)
    assert successor.leads("a")


@pytest.mark.parametrize("reply", NO_PROTOCOL + NO_MEMBERSHIP)
def test_no_answer_to_a_membership_poll(rig: Rig, reply: bytes) -> None:
    node = rig.leader(*KEYS)
    words = (b"members", b"plan", node.holder, b"600", b"0", b"{}", b"c", b"0", b"")
    node.core.fleet.set_membership_poll(pack(*words), len(words), period_ns=MS)
    node.turn()
    assert [words[1] for words in node.requests] == [WITH_FLAGS.membership.body]
    with pytest.raises(ProtocolError, match="malformed"):
        node.driver.receive(reply, rig.clock.now_ns())
    assert node.take_report().membership is None
    node.lose()
    node.connect()
    node.exchange()
    assert node.take_report().membership is not None
    assert all(map(node.leads, KEYS))


@pytest.mark.resident
def test_claims_in_endless_names_do_not_add_up(rig: Rig) -> None:
    keys = [f"k{number}" for number in range(20)]
    name_bytes = 3_000_000
    node = rig.node(*keys, balanced=True)
    node.assign(dict.fromkeys(keys, node))
    rig.settle()
    before = resident_bytes()
    for number, key in enumerate(keys):
        name = b"%d/%s" % (number, b"x" * name_bytes)
        words = (b"/" + node.holder, b"claim", name, rig.leader_key(key))
        claim = b"".join(b"%d:%s" % (len(word), word) for word in words)
        node.driver.hear(encode(Push((b"message", b"c", claim))), 0)
    assert all(map(node.leads, keys))
    # What is announced is received as a whole; it must not stay.
    assert resident_bytes() - before < 8 * name_bytes


@pytest.mark.parametrize("reply", [b"+OK\r\n", b"*3\r\n:1\r\n*0\r\n*0\r\n", b"-ERR no\r\n"])
def test_an_answer_to_nothing(rig: Rig, reply: bytes) -> None:
    node = rig.leader(*KEYS)
    with pytest.raises(ProtocolError, match="no batch is in flight"):
        node.driver.receive(reply, rig.clock.now_ns())
    recovers(node, rig)


@pytest.mark.parametrize("data", NO_PROTOCOL)
def test_announcements_that_are_no_protocol(rig: Rig, data: bytes) -> None:
    node = rig.leader(*KEYS)
    with pytest.raises(ProtocolError, match="malformed"):
        node.driver.hear(data, 0)
    recovers(node, rig)


MAX_LINE_BYTES, MAX_FRAME = 65_536, 1 << 24

ENDLESS = {
    "line": (b"+", b"x" * 4096, MAX_LINE_BYTES),
    "numbers": (b"*1000000\r\n", b":1\r\n" * 1000, MAX_FRAME),
    "strings": (b"*1000000\r\n", b"$1000\r\n%s\r\n" % (b"x" * 1000), MAX_FRAME),
    "nested": (b"", b"*1000\r\n" * 1000, MAX_FRAME),
    "attributes": (b"", b"|1\r\n", MAX_FRAME),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_frame_without_an_end_is_cut_off(rig: Rig, what: str) -> None:
    node = rig.leader(*KEYS)
    head, more, most = ENDLESS[what]
    fed = len(head)
    if head:
        node.driver.receive(head, rig.clock.now_ns())
    with pytest.raises(ProtocolError):  # noqa: PT012
        while fed < 40_000_000:
            piece = more * max(1, 65_536 // len(more))
            node.driver.receive(piece, rig.clock.now_ns())
            fed += len(piece)
    assert fed <= most + 2 * 65_536
    recovers(node, rig)
