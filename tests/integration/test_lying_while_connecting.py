"""Malformed replies to a node that connects: an error, another attempt, and no more."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.core.memory_probe import resident_bytes
from tests.diary import until

from multielect import ConnectionLostError, MultielectError, ProtocolError, ServerUnusableError

from .conftest import Stand
from .liar import Command, Liar, always, endless

KEYS = ("a", "b", "c")
MAX_HELD = 32 << 20

HANDSHAKE = {
    "garbage": always(bytes(range(256))),
    "a line's end": always(b"\n"),
    "a huge text": always(b"$2147483647\r\n"),
    "a huge table": always(b"*2147483647\r\n"),
    "a number": always(b":1\r\n"),
    "nothing": always(b"$-1\r\n"),
    "a table of numbers": always(b"*2\r\n:1\r\n:2\r\n"),
    "an empty table": always(b"*0\r\n"),
    "deep": always(b"*1\r\n" * 100_000),
    "an error of garbage": always(b"-\xff\xfe\r\n"),
    "a line without end": endless(b"+", b"x" * 65536),
    "a text without end": endless(b"$500000000\r\n", b"x" * 65536),
    "pushes without end": endless(b"", b">1\r\n+x\r\n" * 4096),
}


@pytest.mark.parametrize("where", ["hello", "role", "get", "subscribe"])
@pytest.mark.parametrize("what", HANDSHAKE)
def test_malformed_input_while_connecting_is_told_and_survived(
    liar: Liar, stand: Stand, what: str, where: str
) -> None:
    before = resident_bytes()
    liar.lies[where] = HANDSHAKE[what]
    group, told = stand(liar.url, *KEYS)
    until(lambda: bool(liar.lied) and (bool(told.errors) or bool(group.led)))
    # Some answers are as good as none, and nobody is harmed: the batches will tell.
    assert told.errors or what in MAY_PASS.get(where, ())
    for error in list(told.errors):
        kinds: set[type[MultielectError]] = {ProtocolError, ConnectionLostError}
        if where == "hello":
            # What does not even begin as Redis does is none.
            kinds.add(ServerUnusableError)
        assert type(error) in kinds or "SUBSCRIBE" in str(error)
    liar.lies.clear()
    until(lambda: len(group.led) == len(KEYS))
    assert liar.held_bytes - before < MAX_HELD


MAY_PASS = {"hello": (), "role": ("an error of garbage",)}


def test_an_answer_to_connecting_that_trickles_has_an_end(liar: Liar, stand: Stand) -> None:
    def trickle(_: Command) -> Iterator[bytes]:
        yield b"*"
        while True:
            time.sleep(0.01)
            yield b"0"

    liar.lies["role"] = trickle
    group, told = stand(liar.url, *KEYS)
    until(lambda: any("did not finish its answers" in str(error) for error in list(told.errors)))
    liar.lies.clear()
    until(lambda: len(group.led) == len(KEYS))
