"""A server that sends malformed replies to a whole node: an error, a connection anew, and no more.

What a core says of each kind of malformed input is in `tests/core/test_malformed.py`; here it comes
over a socket, at any point of a connection's life, and for as long as somebody takes it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pytest
from tests.core.memory_probe import resident_bytes
from tests.diary import until

from multielect import ConnectionLostError, DemotionReason, MultielectError, ProtocolError
from multielect.embedded import EmbeddedServer

from .conftest import Stand
from .liar import Command, Liar, Lie, always, endless, won
from .record import Record

KEYS = ("a", "b", "c")
MAX_HELD = 96 << 20
"""What a node may keep of malformed input: a frame twice over, and what Python makes of it."""

NO_RESP3 = always(b"-NOPROTO unsupported protocol version\r\n")


class Kind(NamedTuple):
    """Malformed input, and the words that it is refused with."""

    lie: Lie
    words: str


NO_PROTOCOL = "not the Redis protocol"
CUT_OFF = f"{NO_PROTOCOL}|did not answer"
"""By its size, or on a busy machine because an answer does not take as long."""

KINDS = {
    "garbage": Kind(always(bytes(range(256)) * 16), NO_PROTOCOL),
    "another protocol": Kind(always(b"HTTP/1.1 400 Bad Request\r\n\r\n"), NO_PROTOCOL),
    "a line's end": Kind(always(b"\n"), NO_PROTOCOL),
    "a huge text": Kind(always(b"$2147483647\r\n"), NO_PROTOCOL),
    "a huge table": Kind(always(b"*2147483647\r\n"), NO_PROTOCOL),
    "a huge number": Kind(always(b":99999999999999999999\r\n"), NO_PROTOCOL),
    "deep": Kind(always(b"*1\r\n" * 300_000 + b":1\r\n"), "the server's time is missing"),
    "wide": Kind(always(b"*1000000\r\n", b"*1000000\r\n"), NO_PROTOCOL),
    "a line without end": Kind(endless(b"+", b"x" * 65536), CUT_OFF),
    "a table without end": Kind(endless(b"*1000000\r\n", b"$99\r\n%099d\r\n" % 0 * 600), CUT_OFF),
    "a text without end": Kind(endless(b"$16777216\r\n", b"x" * 65536), CUT_OFF),
    "attributes without end": Kind(endless(b"", b"|1\r\n:1\r\n:1\r\n" * 4096), CUT_OFF),
    "no table": Kind(always(b"+OK\r\n"), "no array|wrong number of elements"),
    "nothing": Kind(always(b"_\r\n"), "no array"),
    "an empty table": Kind(always(b"*0\r\n"), "no array"),
    "a map": Kind(always(b"%1\r\n+a\r\n:1\r\n"), "no array"),
    "too few": Kind(always(b"*1\r\n:1\r\n"), "wrong number"),
    "too many": Kind(always(b"*9\r\n:1\r\n" + b"*0\r\n" * 8), "wrong number"),
    "an answer too many": Kind(
        lambda command: [truth(command), truth(command)], "no batch is in flight"
    ),
}


def truth(command: Command) -> bytes:
    """Answer an acquire or a refresh well."""
    asks = len(command) > 3 and command[-1] in {b"", b"liar:released"}
    return won(command)[0] if asks else b"*3\r\n:1\r\n*0\r\n*0\r\n"


@pytest.mark.parametrize("where", ["acquire", "refresh"])
@pytest.mark.parametrize("kind", KINDS)
def test_malformed_input_costs_a_connection_and_nothing_else(
    liar: Liar, stand: Stand, kind: str, where: str
) -> None:
    lie, words = KINDS[kind]
    before = resident_bytes()
    if where == "acquire":
        liar.lies["acquire"] = lie
    group, told = stand(liar.url, *KEYS)
    if where == "refresh":
        until(lambda: len(group.led) == len(KEYS))
        liar.lies["refresh"] = lie
    error = wait_error(told, words)
    assert ("malformed" in str(error)) == isinstance(error, ProtocolError)
    links = len(liar.links)
    liar.lies.clear()
    until(lambda: len(group.led) == len(KEYS))
    until(lambda: len(liar.links) >= links)
    assert group.counters.reconnects >= 1
    assert liar.held_bytes - before < MAX_HELD
    group.stop()
    told.terms()


def test_half_an_answer_is_waited_for_as_long_as_a_whole_one(liar: Liar, stand: Stand) -> None:
    for half in (b"*5\r\n:1\r\n*0\r\n:", b"$100\r\nabc", b"*"):
        liar.lies["acquire"] = always(half)
        group, told = stand(liar.url, *KEYS)
        assert isinstance(wait_error(told, "did not answer"), ConnectionLostError)
        liar.lies.clear()
        until(lambda group=group: len(group.led) == len(KEYS))  # type: ignore[misc]
        group.stop()
        told.terms()


def test_answers_that_trickle_are_not_waited_for(liar: Liar, stand: Stand) -> None:
    def trickle(_: Command) -> Iterator[bytes]:
        yield b"*5\r\n:"
        while True:
            time.sleep(0.001)
            yield b"1"

    liar.lies["acquire"] = trickle
    group, told = stand(liar.url, *KEYS)
    wait_error(told, "did not answer")
    liar.lies.clear()
    until(lambda: len(group.led) == len(KEYS))


@pytest.mark.parametrize("script", ["release", "grant", "membership"])
@pytest.mark.parametrize("answer", [b"*x\r\n", b"+OK\r\n", b"$-1\r\n", b"*0\r\n", b":1\r\n"])
def test_malformed_input_in_answer_to_the_other_scripts(
    liar: Liar, stand: Stand, script: str, answer: bytes
) -> None:
    liar.lies[script] = always(answer)
    balanced = script != "release"
    group, told = stand(liar.url, *KEYS, balance=balanced)
    if script == "membership":
        wait_error(told, "no string|not the Redis protocol|malformed")
        liar.lies.clear()
        until(lambda: len(group.led) == len(KEYS))
        return
    until(lambda: len(group.led) == len(KEYS))
    if script == "release":
        assert group["a"].resign()
    else:
        other, _ = stand(liar.url, *KEYS, balance=True)
        until(lambda: len(other.led) > 0 or "grant" in liar.lied)
    wait_error(told, "malformed")
    liar.lies.clear()
    until(lambda: len(group.led) > 0)
    group.stop()
    told.terms()


def test_a_server_that_never_makes_sense_is_asked_ever_more_seldom(
    liar: Liar, stand: Stand
) -> None:
    liar.lies["acquire"] = always(b"nonsense\r\n")
    group, told = stand(liar.url, *KEYS, ttl=10.0)
    until(lambda: len(liar.links) >= 6)
    # 25 ms at the least, and twice as long each time.
    assert liar.links[5] - liar.links[0] >= 0.025 * (2**5 - 1)
    assert not group.led
    assert len(told.errors) < 50
    liar.lies.clear()
    until(lambda: len(group.led) == len(KEYS))


def test_a_connection_that_was_good_for_long_is_made_anew_at_once(liar: Liar, stand: Stand) -> None:
    liar.lies["acquire"] = always(b"nonsense\r\n")
    group, _ = stand(liar.url, *KEYS)
    until(lambda: len(liar.links) >= 5)
    liar.lies.clear()
    until(lambda: len(group.led) == len(KEYS))
    made = len(liar.links)
    refreshes = group.counters.refreshes
    # Longer than the longest pause.
    until(lambda: group.counters.refreshes >= refreshes + 10 * len(KEYS))
    lost = time.monotonic()

    def once(_: Command) -> list[bytes]:
        del liar.lies["refresh"]
        return [b"nonsense\r\n"]

    liar.lies["refresh"] = once
    until(lambda: len(liar.links) > made)
    assert liar.lied[-1] == "refresh"
    until(lambda: len(group.led) == len(KEYS))
    assert liar.links[made] > lost


def test_a_node_whose_server_lies_gives_way_to_one_whose_server_does_not(
    liar: Liar, backing: EmbeddedServer, stand: Stand
) -> None:
    group, told = stand(liar.url, *KEYS)
    until(lambda: len(group.led) == len(KEYS))
    liar.lies["refresh"] = always(b"*3\r\n:1\r\n+fine\r\n*0\r\n")
    liar.lies["acquire"] = always(b"+yours\r\n")
    other, told_other = stand(backing.url, *KEYS)
    until(lambda: len(other.led) == len(KEYS))
    assert not group.led
    for key in KEYS:
        ended = told.wait_demoted(key)
        assert ended.reason is DemotionReason.EXPIRED
        assert ended.at_ns <= told_other.wait_elected(key).at_ns, "two leaders at once"


def flood(_: Command) -> Iterable[bytes]:
    """Push what nobody asked for, faster than it can be read."""
    return itertools.repeat(b">0\r\n" * 65536)


@pytest.mark.parametrize("form", ["RESP3", "RESP2"])
def test_a_flood_of_pushes_costs_no_lease(liar: Liar, stand: Stand, form: str) -> None:
    before = resident_bytes()
    if form == "RESP2":
        liar.lies["hello"] = NO_RESP3
    # Long enough for a machine that is busy with the flood.
    group, told = stand(liar.url, *KEYS, ttl=3.0)
    until(lambda: len(group.led) == len(KEYS))
    # From here on the answers are made up, and whole between the pushes.
    answers = {"acquire": won, "refresh": always(b"*3\r\n:1\r\n*0\r\n*0\r\n")}
    began = threading.Event()

    def refresh(command: Command) -> Iterable[bytes]:
        if began.is_set():
            return answers["refresh"](command) or ()
        began.set()
        return itertools.chain(answers["refresh"](command) or (), flood(command))

    liar.lies |= {"acquire": won, "refresh": refresh}
    assert began.wait(10.0)
    said = liar.said
    refreshes = group.counters.refreshes
    until(lambda: group.counters.refreshes >= refreshes + 2 * len(KEYS))
    assert liar.said > said + (1 << 22), "there was no flood"
    assert told.demotions() == []
    assert liar.held_bytes - before < MAX_HELD
    liar.lies["release"] = always(b"*1\r\n:1\r\n")
    begun = time.monotonic()
    group.stop(timeout=5.0)
    assert time.monotonic() - begun < 10.0
    told.terms()


def test_malformed_input_where_announcements_come_costs_a_connection(
    liar: Liar, stand: Stand
) -> None:
    asked = 0

    def third(_: Command) -> Iterable[bytes] | None:
        # The first subscription is an attempt, answered to redis-py.
        nonlocal asked
        asked += 1
        return [b"*3\r\n$9\r\nsubscribe\r\n*x\r\n"] if asked == 2 else None

    liar.lies |= {"hello": NO_RESP3, "subscribe": third}
    group, told = stand(liar.url, *KEYS)
    wait_error(told, "an announcement is not the Redis protocol")
    until(lambda: len(group.led) == len(KEYS))
    group.stop()
    told.terms()


def wait_error(told: Record, words: str) -> MultielectError:
    """Return the first error that has one of these words."""
    some = words.split("|")

    def fitting() -> list[MultielectError]:
        return [error for error in list(told.errors) if any(word in str(error) for word in some)]

    until(lambda: bool(fitting()))
    assert type(fitting()[0]) in {ProtocolError, ConnectionLostError}
    return fitting()[0]
