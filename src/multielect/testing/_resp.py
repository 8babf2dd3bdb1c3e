"""The part of the Redis protocol that the model of Redis needs: it reads commands, writes replies.

Rules of this file:
    * This parser is independent of the core's, so that one checks the other.
    * Bytes that are not a command fail the test at once.
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
    """A message that the server sends without a request."""

    values: tuple[bytes | int, ...]


_ARRAY, _BULK = b"*$"

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
    """Return the words of each command in `data`, which must end with a complete command."""
    reader = CommandReader()
    commands = reader.feed(data)
    assert not reader.has_rest, "a command is cut short"
    return commands


class CommandReader:
    """Divides a stream of bytes, which may arrive in any pieces, into commands."""

    def __init__(self) -> None:
        self._unread = b""

    @property
    def has_rest(self) -> bool:
        """Whether an incomplete command waits for its rest."""
        return bool(self._unread)

    def feed(self, data: bytes) -> list[list[bytes]]:
        """Take more bytes. Returns the words of each command that is complete now."""
        data = self._unread + data if self._unread else data
        commands = []
        at = 0
        while (found := _read_command(data, at)) is not None:
            words, at = found
            commands.append(words)
        self._unread = data[at:]
        return commands


def _read_command(data: bytes, at: int) -> tuple[list[bytes], int] | None:
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    assert data[at] == _ARRAY, f"expected a command at {data[at : at + 20]!r}"
    count, at = int(data[at + 1 : line]), line + 2
    words = []
    for _ in range(count):
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        assert data[at] == _BULK, f"expected a word at {data[at : at + 20]!r}"
        start = line + 2
        at = start + int(data[at + 1 : line]) + 2
        if len(data) < at:
            return None
        assert data[at - 2 : at] == b"\r\n", "a word has another length"
        words.append(data[start : at - 2])
    return words, at
