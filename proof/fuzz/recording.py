"""Records what real servers send to a node, and makes the fuzzers' seed inputs of it.

    python -m proof.fuzz.recording          # records again, on the server that the tests bring

Rules of this file:
    * One story runs over RESP3 and over RESP2. It has every script with success and failure, the
      errors that a server answers, and every announcement.
    * A recording has the server's bytes without changes, except for times. So each recording is the
      same, and a test compares it with a real server.
    * The story runs on a core alone, which does the same for the same bytes. So it can be replayed
      without a server, and with the bytes cut into other pieces.
"""

from __future__ import annotations

import json
import re
import socket
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import hiredis
import redis

from multielect._core.core import Core
from multielect._core.driver import Driver
from multielect._fleet.membership import pack
from multielect._protocol.keys import KeyLayout
from multielect._protocol.scripts import WITH_FLAGS, Script
from multielect._runtime.clock import ManualClock
from multielect.embedded import EmbeddedServer

RECORDED = Path(__file__).with_name("recorded.json")
FORMS = ("RESP3", "RESP2")
ME, OTHER, BARE = b"me/1", b"you/1", b"go"
TTL_MS = 1000
MS = 1_000_000
LAYOUT = KeyLayout(
    prefix="fuzz",
    key_prefixes=(b"fuzz:{0}:", b"fuzz:{1}:"),
    separator=b":",
    channel=b"fuzz:released",
    buckets_key=b"",
    members_key=b"fuzz:members",
    plan_key=b"fuzz:plan",
)
"""The layout of exchanges.pyx, so that recorded announcements are about its elections."""

_SERVER_MS = b"1700000000000"
_TIMES = re.compile(rb"1[6-9]\d{11}|2\d{12}")
_LASTING = re.compile(rb"8:86[34]\d{5}")  # the remaining time of an entry that lasts a day

Cut = Callable[[bytes], Iterable[bytes]]
Client: TypeAlias = Any
"""A `redis.Redis`, whose types make no difference between its clients for threads and asyncio."""


class Wire(Protocol):
    """The server's side of a core's connections, and the server's other clients."""

    def exchange(self, sent: bytes) -> bytes:
        """Send the core's bytes. Returns the bytes that arrive on the connection for replies."""

    def announced(self) -> bytes:
        """Return the bytes that arrived on the connection for announcements."""

    def meanwhile(self, what: str) -> None:
        """Let another client do one of `_DEEDS`."""


class Stage:
    """Runs the story on one core, with a wire.

    Attributes:
        outcome: everything that the core sent and reported, and its state after each turn.
    """

    def __init__(self, wire: Wire, cut: Cut) -> None:
        self.wire = wire
        self.cut = cut
        self.clock = ManualClock()
        self.outcome: list[object] = []
        self.core = Core(
            now_ns=self.clock.now_ns(),
            ttl_ns=TTL_MS * MS,
            margin_ns=100 * MS,
            key_prefixes=LAYOUT.key_prefixes,
            separator=LAYOUT.separator,
            holder=ME,
            channel=LAYOUT.channel,
            epochs=b"counter",
            seed=1,
            balanced=True,
            notifies_drains=True,
            drain_ns=300 * MS,
        )
        self.driver = Driver(self.core)
        for number in range(8):
            self.core.elections.add(b"k%d" % number, LAYOUT.bucket(b"k%d" % number))

    @property
    def deeds(self) -> dict[str, Callable[[], object]]:
        """The acts of the node itself in the story."""
        return {
            "yield k0": lambda: self.yield_to_other(0),
            "poll the membership": self.poll_membership,
            "resign k6": lambda: self.resign(b"k6"),
            "lose": lambda: self.driver.disconnect(self.clock.now_ns()),
            "connect": self.connect,
            "stop": self.core.elections.stop,
        }

    def yield_to_other(self, *others: int) -> None:
        """Assign all elections to this node, except `others`, which the other node leads."""
        keys = [b"k%d" % number for number in range(8)]
        owners = array("i", [int(number in others) for number in range(8)])
        self.core.fleet.assign(keys, owners, [ME, OTHER], 0, bytes(8), self.clock.now_ns())

    def turn(self, wait_ms: int = 0) -> None:
        """Let time pass, send what is due, and receive what has arrived."""
        self.clock.advance_ns(wait_ms * MS)
        self.driver.turn(self.clock.now_ns())
        with memoryview(self.driver.outgoing) as waiting:
            sent = bytes(waiting)
        self.driver.sent(len(sent))
        for piece in self.cut(self.wire.exchange(sent)):
            self.driver.receive(piece, self.clock.now_ns())
        for piece in self.cut(self.wire.announced()):
            self.driver.hear(piece, self.clock.now_ns())
        self.outcome += [sent, self.core.reporter.take(), self.core.elections.counters]
        self.outcome.append(self.driver.is_refused)
        self.outcome += [self.core.elections.leader(number, 0) for number in range(8)]

    def connect(self) -> None:
        """Begin on a new connection."""
        self.driver.connect(WITH_FLAGS)

    def poll_membership(self) -> None:
        """Become a member of the fleet."""
        fleet = (LAYOUT.members_key, LAYOUT.plan_key)
        words = (*fleet, ME, b"666", b"0", b'{"weight":1}', LAYOUT.channel, b"0", b"")
        self.core.fleet.set_membership_poll(pack(*words), len(words), period_ns=166 * MS)

    def resign(self, key: bytes) -> None:
        """End a term."""
        place = self.core.elections.find(key)
        assert place is not None
        self.core.elections.resign(*place, 0, self.clock.now_ns())


_STORY: tuple[str | int, ...] = (
    # An act of another client or of the node, or how many ms pass before the next turn.
    *("spoil", 0, 0, 335),
    *("delete k0", 335, 0),
    *("forbid PEXPIREAT", 335, "allow all", 200),
    *("forget scripts", 335, 0),
    *("release k1", 0, 0),
    *("yield k0", "claim", 0, 310, 0),
    *("grant k5", 0, 0),
    *("poll the membership", 0, "join", 0, 0),
    *("resign k6", 0),
    *("fill", 1100, "empty", 400, 400),
    *("become a replica", 335, "lose", "become a primary", "connect", 0),
    *("stop", 0, 0),
)


def tell(stage: Stage) -> None:
    """Run the whole story."""
    stage.yield_to_other()
    stage.core.elections.start()
    stage.connect()
    for step in _STORY:
        if isinstance(step, int):
            stage.turn(step)
        elif step in stage.deeds:
            stage.deeds[step]()
        else:
            stage.wire.meanwhile(step)
    assert stage.driver.is_quiet


# ---- recording


class Recorder:
    """A wire to a real server that records what arrives."""

    def __init__(self, server: EmbeddedServer, form: str) -> None:
        assert server.socket_path is not None
        self.heard: list[list[str]] = []
        self._client: Client = redis.Redis(unix_socket_path=server.socket_path)
        self._client.flushall()
        self._client.script_flush()
        self._sockets: list[socket.socket] = []
        self._path = server.socket_path
        self._batches = self._open()
        self._listener = None
        if form == "RESP3":
            self._ask(self._batches, b"HELLO 3\r\n", b"\r\n+PONG\r\n")
            self._ask(self._batches, b"SUBSCRIBE %s\r\n" % LAYOUT.channel, b"\r\n+PONG\r\n")
        else:
            self._listener = self._open()
            self._listener.sendall(b"SUBSCRIBE %s\r\n" % LAYOUT.channel)

    def exchange(self, sent: bytes) -> bytes:
        """Return the server's replies to a turn of the core."""
        heard = self._ask(self._batches, sent, b"+PONG\r\n")
        self.heard.append([heard.decode("latin-1"), ""])
        return heard

    def announced(self) -> bytes:
        """Return the server's announcements during the turn."""
        if self._listener is None:
            return b""
        heard = self._ask(self._listener, b"", b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        self.heard[-1][1] = heard.decode("latin-1")
        return heard

    def meanwhile(self, what: str) -> None:
        """Do an act of another client."""
        _DEEDS[what](self._client)

    def close(self) -> None:
        """Close all sockets."""
        self._client.close()
        for end in self._sockets:
            end.close()

    def _open(self) -> socket.socket:
        end = socket.socket(socket.AF_UNIX)
        end.settimeout(10.0)
        end.connect(self._path)
        self._sockets.append(end)
        return end

    def _ask(self, end: socket.socket, sent: bytes, last: bytes) -> bytes:
        # Redis answers in order, so all replies come before the reply to PING.
        end.sendall(sent + b"PING\r\n")
        heard = b""
        while not heard.endswith(last):
            heard += end.recv(65536)
        return _without_time(heard.removesuffix(last))


def _without_time(heard: bytes) -> bytes:
    return _LASTING.sub(b"8:86400000", _TIMES.sub(_SERVER_MS, heard))


def _run(client: Client, script: Script, keys: list[bytes], *arguments: bytes) -> None:
    client.execute_command("EVAL", script.body, len(keys), *keys, *arguments)


def _pair(key: bytes) -> list[bytes]:
    return [LAYOUT.leader_key(key), LAYOUT.epoch_key(key)]


def _spoil(client: Client) -> None:
    client.set(LAYOUT.leader_key(b"k1"), OTHER)
    client.set(LAYOUT.epoch_key(b"k1"), 7)
    client.set(LAYOUT.leader_key(b"k2"), BARE)
    client.rpush(LAYOUT.leader_key(b"k3"), b"an element")
    client.set(LAYOUT.epoch_key(b"k4"), b"no number")
    client.set(LAYOUT.leader_key(b"k5"), OTHER)
    client.set(LAYOUT.epoch_key(b"k5"), 7)
    client.set(LAYOUT.epoch_key(b"k7"), 2**53)


_DEEDS: dict[str, Callable[[Client], object]] = {
    "spoil": _spoil,
    "delete k0": lambda client: client.delete(LAYOUT.leader_key(b"k0")),
    "forbid PEXPIREAT": lambda client: client.execute_command(
        "ACL", "SETUSER", "default", "-pexpireat"
    ),
    "allow all": lambda client: client.execute_command("ACL", "SETUSER", "default", "+@all"),
    "forget scripts": lambda client: client.script_flush(),
    "release k1": lambda client: _run(
        client, WITH_FLAGS.release, _pair(b"k1"), OTHER, LAYOUT.channel, b"7"
    ),
    "claim": lambda client: _run(
        client,
        WITH_FLAGS.acquire,
        [*_pair(b"k0"), *_pair(b"k6")],
        *(OTHER, b"1000", b"counter", LAYOUT.channel),
    ),
    "grant k5": lambda client: _run(
        client, WITH_FLAGS.grant, _pair(b"k5"), OTHER, LAYOUT.channel, b"1000", b"7", ME
    ),
    "join": lambda client: _run(
        client,
        WITH_FLAGS.membership,
        [LAYOUT.members_key, LAYOUT.plan_key],
        *(OTHER, b"86400000", b"0", b'{"weight":2.5,"labels":["a b"]}', LAYOUT.channel),
        *(b"0", b"1 {}"),
    ),
    "fill": lambda client: client.config_set("maxmemory", 1),
    "empty": lambda client: client.config_set("maxmemory", 0),
    "become a replica": lambda client: client.replicaof("127.0.0.1", 1),
    "become a primary": lambda client: client.replicaof("NO", "ONE"),
}


def record() -> dict[str, list[list[str]]]:
    """Run the story on a real server, over RESP3 and RESP2. Returns the server's bytes."""
    recorded = {}
    for form in FORMS:
        with EmbeddedServer() as server:
            recorder = Recorder(server, form)
            try:
                tell(Stage(recorder, lambda heard: [heard]))
            finally:
                recorder.close()
            recorded[form] = recorder.heard
    return recorded


# ---- replaying


class Replay:
    """A wire without a server that returns what was recorded."""

    def __init__(self, heard: list[tuple[bytes, bytes]]) -> None:
        self._heard = heard
        self._place = -1

    def exchange(self, sent: bytes) -> bytes:  # noqa: ARG002  # a recording does not look
        """Return the recorded replies to this turn."""
        self._place += 1
        return self._heard[self._place][0]

    def announced(self) -> bytes:
        """Return the recorded announcements of this turn."""
        return self._heard[self._place][1]

    def meanwhile(self, what: str) -> None:
        """Do nothing, as the consequences were recorded."""


def recorded(form: str) -> list[tuple[bytes, bytes]]:
    """Return the recorded replies and announcements of each turn of the story."""
    told = json.loads(RECORDED.read_text("utf-8"))[form]
    return [(answers.encode("latin-1"), heard.encode("latin-1")) for answers, heard in told]


def told_again(form: str, cut: Cut) -> list[object]:
    """Replay the story from the recording, with the bytes cut by `cut`. Returns the outcome."""
    stage = Stage(Replay(recorded(form)), cut)
    tell(stage)
    return stage.outcome


# ---- seeds

_CHOICES = b"\x09\x07"  # balanced, batches of any size, eight elections: see exchanges.pyx


def _step(what: int, how: int = 0) -> bytes:
    return bytes((how << 4 | what,))


_TURN, _ANSWER, _SAY, _ANNOUNCE = (_step(what) for what in (0, 2, 3, 4))
_LED = _TURN + _ANSWER
_335_MS = _step(1, 9)
_ASKED = {
    "acquire": _TURN,
    "refresh": _LED + _335_MS + _TURN,
    "release": _LED + _step(7) + _TURN,
    "grant": _LED + _step(10, 5) + _step(6, 6) + _335_MS + _ANSWER + _TURN,
    "membership": _step(13) + _TURN,
}
"""Steps after which a script is in flight."""


def _said(data: bytes, how: bytes = _SAY) -> bytes:
    # The last step takes all the rest, also bytes that the fuzzer inserts.
    return b"".join(how + b"\xff" + data[at : at + 255] for at in range(0, len(data), 255))


def _frames(data: bytes) -> Iterator[bytes]:
    """Return each reply by itself. In a short seed, a change more likely hits what matters."""
    reader, begun = hiredis.Reader(), 0
    for end in range(1, len(data) + 1):
        reader.feed(data[end - 1 : end])
        if reader.gets() is not False:
            yield data[begun:end]
            begun = end


def seeds() -> dict[str, list[bytes]]:
    """Return the seed inputs of each fuzzer: see replies.pyx and exchanges.pyx."""
    turns = [turn for form in FORMS for turn in recorded(form)]
    answers = sorted({frame for answer, _ in turns for frame in _frames(answer)})
    heard = sorted({frame for _, data in turns for frame in _frames(data)})
    streams = [b"".join(data) for data in zip(*turns, strict=True)]
    asked = [_CHOICES + steps + _said(answer) for steps in _ASKED.values() for answer in answers]
    told = [_CHOICES + _LED + _said(data, _ANNOUNCE) for data in heard]
    every_step = [
        bytes((number, number, *(number * step % 256 for step in range(1, 48))))
        for number in range(1, 128, 2)
    ]
    return {
        "replies": [b"\x00\x07" + data for data in [*answers, *heard, *streams]],
        "exchanges": [*asked, *told, *every_step],
    }


def main() -> None:
    """Record the story again."""
    RECORDED.write_text(json.dumps(record(), indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
