"""The Redis protocol as the model of Redis needs it: commands in, replies out.

Rules of this file:
    * It is written apart from the core's own parser, so that one checks the other.
    * Bytes that are no command fail the test at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Refusal:
    """An error reply, such as ``OOM command not allowed``."""

    text: str


@dataclass(frozen=True)
class Push:
    """A message that the server sends unasked."""

    values: tuple[bytes | int, ...]


Reply: TypeAlias = "int | bytes | Refusal | Push | list[Reply] | None"


def encode(reply: Reply) -> bytes:
    """Return a reply's bytes, as RESP3."""
    if reply is None:
        return b"_\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    if isinstance(reply, Refusal):
        return b"-%s\r\n" % reply.text.encode()
    if isinstance(reply, Push):
        return b">%d\r\n%s" % (len(reply.values), b"".join(map(encode, reply.values)))
    return b"*%d\r\n%s" % (len(reply), b"".join(map(encode, reply)))


def parse_commands(data: bytes) -> list[list[bytes]]:
    """Return the words of each command in `data`, which holds whole commands."""
    commands = []
    at = 0
    while at < len(data):
        count, at = _read_head(data, at, b"*")
        words = []
        for _ in range(count):
            size, at = _read_head(data, at, b"$")
            words.append(data[at : at + size])
            assert len(words[-1]) == size, "a command is cut short"
            assert data[at + size : at + size + 2] == b"\r\n", "a word has another length"
            at += size + 2
        commands.append(words)
    return commands


def _read_head(data: bytes, at: int, kind: bytes) -> tuple[int, int]:
    assert data[at : at + 1] == kind, f"expected {kind!r} at {data[at : at + 20]!r}"
    end = data.index(b"\r\n", at)
    return int(data[at + 1 : end]), end + 2
