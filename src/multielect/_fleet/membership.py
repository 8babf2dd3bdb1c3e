"""The membership of a fleet: how a member describes itself, what the others say, and who counts.

Rules of this file:
    * Pure: words in, words out. The core polls the membership, and the balancer acts on it.
    * Time is the server's, in milliseconds, so that all members come to the same answer.
    * What another version of this library wrote is read as far as it is understood, and an entry
      that is malformed is left out. So is a time that no server's clock will ever show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from .._protocol.keys import decode_key
from .._protocol.netstrings import read_netstrings
from .._settings.settings import MAX_JOIN_DELAY_S
from ..balance import Member
from ..errors import ConfigError

LAST_MS = 1 << 42
"""Beyond the year 2100, and no further than what counts in nanoseconds can count."""


@dataclass(frozen=True)
class Entry:
    """A member's entry.

    Attributes:
        member: what it may be given.
        since_ms: since when it is a member.
        join_delay_ms: how long it waits before it is given anything.
        remaining_ms: how long the entry still lasts.
    """

    member: Member
    since_ms: int
    join_delay_ms: int
    remaining_ms: int = 0


@dataclass(frozen=True)
class Membership:
    """An answer to a membership poll.

    Attributes:
        server_ms: when it was given.
        was_there: whether the caller's own entry was there already.
        entries: all members, the caller included.
        unread: the holders of the entries that are malformed.
        plan_number: which plan of the fleet the server keeps; 0 for none.
        plan_text: that plan, if it is another than the caller knows.
    """

    server_ms: int
    was_there: bool
    entries: tuple[Entry, ...]
    unread: tuple[bytes, ...]
    plan_number: int
    plan_text: bytes


def describe(member: Member, join_delay_ms: int) -> bytes:
    """Return how a member describes itself to the others."""
    words: dict[str, object] = {"weight": member.weight}
    if member.max_leases is not None:
        words["max_leases"] = member.max_leases
    if member.labels:
        words["labels"] = sorted(member.labels)
    if join_delay_ms:
        words["join_delay_ms"] = join_delay_ms
    return json.dumps(words, separators=(",", ":")).encode()


def pack(*words: bytes) -> bytes:
    """Return the words of a call, as they are sent."""
    return b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def parse(answer: bytes) -> Membership:
    """Read an answer of membership.lua.

    Raises:
        ValueError: for an answer that is none.
    """
    server, was_there, plan_number, plan_text, *rest = read_netstrings(answer)
    if len(rest) % 4:
        raise ValueError("an entry of the membership is cut off")
    found = [(rest[at], _entry(*rest[at : at + 4])) for at in range(0, len(rest), 4)]
    return Membership(
        server_ms=_ms(server),
        was_there=was_there == b"1",
        entries=tuple(entry for _, entry in found if entry is not None),
        unread=tuple(holder for holder, entry in found if entry is None),
        plan_number=int(plan_number),
        plan_text=plan_text,
    )


def counted(entries: Iterable[Entry], server_ms: int) -> tuple[list[Member], int | None]:
    """Return the members that are given elections now, and when there will be others.

    A member that joins waits for its delay, so that many that come one by one are taken in
    together. Not so at the beginning: who comes within the delay of the eldest counts at once, as
    it would else lead everything for that time. So who counts once counts for as long as it stays,
    whoever comes or goes. Who came at a time that is still to come has been there since before the
    server's clock was set back.

    Args:
        entries: all members.
        server_ms: the server's time.

    Returns:
        The members, and the server's time when the next one will count; None if all do.
    """
    listed = list(entries)
    eldest_ms = min((entry.since_ms for entry in listed), default=0)
    members, later = [], []
    for entry in listed:
        counts_ms = entry.since_ms + entry.join_delay_ms
        if (
            counts_ms <= server_ms
            or entry.since_ms < eldest_ms + entry.join_delay_ms
            or entry.since_ms > server_ms
        ):
            members.append(entry.member)
        else:
            later.append(counts_ms)
    return members, min(later, default=None)


def _entry(holder: bytes, remaining: bytes, since: bytes, description: bytes) -> Entry | None:
    try:
        words = json.loads(description)
        labels = words.get("labels", [])
        if not isinstance(labels, list):
            return None
        node_id, _, incarnation = decode_key(holder).partition("/")
        member = Member(
            node_id,
            incarnation,
            weight=words["weight"],
            max_leases=words.get("max_leases"),
            labels=frozenset(labels),
        )
        delay_ms = int(words.get("join_delay_ms", 0))
        if not 0 <= delay_ms <= MAX_JOIN_DELAY_S * 1000:
            return None
        return Entry(member, _ms(since), delay_ms, _ms(remaining))
    # What others wrote may be anything, and must cost no more than its own entry.
    except (
        ArithmeticError,
        AttributeError,
        ConfigError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
    ):
        return None


def _ms(text: bytes) -> int:
    number = int(text)
    if not 0 <= number <= LAST_MS:
        raise ValueError(f"{number} ms is no time of a server")
    return number
