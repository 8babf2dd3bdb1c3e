"""Entries of a stream, and the replies that bring them.

Rules of this file:
    * Fields are bytes in the order of Redis, and may repeat a name.
    * An id is a str, ``ms-seq``, and is compared by its two numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ..errors import ConfigError

FIRST_ID = "0-0"
NEW_ONLY = "$"

_ID = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?")
_LARGEST = 2**64 - 1


class Entry:
    """One entry of a stream.

    Attributes:
        id: the entry's id in the stream.
        flat: names and values of its fields, alternating.
    """

    def __init__(self, id: str, flat: Sequence[bytes]) -> None:  # noqa: A002
        self.id = id
        self.flat = flat

    @cached_property
    def fields(self) -> Mapping[bytes, bytes]:
        """The entry's fields. If a name is repeated, this has its last value."""
        return dict(zip(self.flat[::2], self.flat[1::2], strict=True))

    @property
    def time_ms(self) -> int:
        """The first half of the id: when the entry was added, unless the producer chose the id."""
        return id_numbers(self.id)[0]

    def __eq__(self, other: object) -> bool:
        """Compare id and fields."""
        if not isinstance(other, Entry):
            return NotImplemented
        return self.id == other.id and list(self.flat) == list(other.flat)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<Entry {self.id}: {dict(self.fields)}>"


def id_numbers(id: str) -> tuple[int, int]:  # noqa: A002
    """Return an id as two numbers that compare as ids do."""
    ms, _, sequence = id.partition("-")
    return int(ms), int(sequence or 0)


def checked_start(start: object) -> str:
    """Return where to begin: an id with both numbers, or ``$``.

    Raises:
        ConfigError: if `start` is neither.
    """
    if start == NEW_ONLY:
        return NEW_ONLY
    match = _ID.fullmatch(start) if isinstance(start, str) else None
    if match is None or any(int(part) > _LARGEST for part in match.groups("0")):
        raise ConfigError(f"start must be an entry's id, such as '0', or '$': {start!r}")
    return f"{int(match[1])}-{int(match[2] or 0)}"


def entries_of(reply: Any) -> dict[bytes, list[Entry]]:  # noqa: ANN401
    """Return the entries of each stream, from a RESP2 reply to XREAD."""
    return {
        stream: [Entry(id.decode(), flat) for id, flat in found]  # noqa: A001
        for stream, found in reply or ()
    }
