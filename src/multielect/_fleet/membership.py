"""The membership of a fleet: the entries of its members, and which members get elections now.

Rules of this file:
    * Pure functions: no I/O, no clock. The core polls the membership, and the balancer acts on it.
    * Times are the server's, in milliseconds, so that all members compute the same.
    * Fields that another version of this library added are ignored. A malformed entry is left out,
      and so is an entry with a time that no server's clock can show.
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

POLLS_PER_TTL = 6
"""How often a member polls the membership in one TTL. A poll is its heartbeat."""

ENTRY_LASTS_POLLS = 4
"""After how many poll periods an entry ends: before the first lease of a node that died."""

LAST_MS = 1 << 42
"""The largest time: beyond the year 2100, and within 64 bits of nanoseconds."""


@dataclass(frozen=True)
class Entry:
    """A member's entry.

    Attributes:
        member: the member.
        since_ms: since when it is a member.
        join_delay_ms: how long it waits before it is assigned anything.
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
        server_ms: the time of the answer.
        was_there: whether the caller's own entry was already there.
        entries: the entries of all members, with the caller's.
        malformed: the holders of the malformed entries.
        plan_number: the number of the plan that the server keeps; 0 for none.
        plan_text: that plan, if the caller does not know it.
    """

    server_ms: int
    was_there: bool
    entries: tuple[Entry, ...]
    malformed: tuple[bytes, ...]
    plan_number: int
    plan_text: bytes


def describe(member: Member, join_delay_ms: int) -> bytes:
    """Return a member's own description for its entry."""
    fields: dict[str, object] = {"weight": member.weight}
    if member.max_leases is not None:
        fields["max_leases"] = member.max_leases
    if member.labels:
        fields["labels"] = sorted(member.labels)
    if join_delay_ms:
        fields["join_delay_ms"] = join_delay_ms
    return json.dumps(fields, separators=(",", ":")).encode()


def pack(*arguments: bytes) -> bytes:
    """Return the arguments of a command as Redis reads them."""
    return b"".join(b"$%d\r\n%s\r\n" % (len(each), each) for each in arguments)


def parse(answer: bytes) -> Membership:
    """Return the membership from a reply of membership.lua.

    Raises:
        ValueError: if the reply is malformed.
    """
    server, was_there, plan_number, plan_text, *rest = read_netstrings(answer)
    if len(rest) % 4:
        raise ValueError("an entry of the membership is cut off")
    found = [(rest[at], _entry(*rest[at : at + 4])) for at in range(0, len(rest), 4)]
    return Membership(
        server_ms=_ms(server),
        was_there=was_there == b"1",
        entries=tuple(entry for _, entry in found if entry is not None),
        malformed=tuple(holder for holder, entry in found if entry is None),
        plan_number=int(plan_number),
        plan_text=plan_text,
    )


def counted(entries: Iterable[Entry], server_ms: int) -> tuple[list[Member], int | None]:
    """Return the members that get elections now, and when the next member will.

    A new member waits for its join delay, so that members that start one after another get their
    elections together. A member that comes within its delay after the eldest member does not wait:
    otherwise the eldest would lead everything for that time. So a member that gets elections once
    gets them for as long as it stays, even if others come or go. A member whose time lies in the
    future came before the server's clock was set back, and does not wait either.

    Args:
        entries: the entries of all members.
        server_ms: the server's time.

    Returns:
        The members, and the server's time when the next member's delay ends; None if none waits.
    """
    listed = list(entries)
    eldest_ms = min((entry.since_ms for entry in listed), default=0)
    members, later = [], []
    for entry in listed:
        delay_ends_ms = entry.since_ms + entry.join_delay_ms
        if (
            delay_ends_ms <= server_ms
            or entry.since_ms < eldest_ms + entry.join_delay_ms
            or entry.since_ms > server_ms
        ):
            members.append(entry.member)
        else:
            later.append(delay_ends_ms)
    return members, min(later, default=None)


def _entry(holder: bytes, remaining: bytes, since: bytes, description: bytes) -> Entry | None:
    try:
        fields = json.loads(description)
        labels = fields.get("labels", [])
        if not isinstance(labels, list):
            return None
        node_id, _, incarnation = decode_key(holder).partition("/")
        member = Member(
            node_id,
            incarnation,
            weight=fields["weight"],
            max_leases=fields.get("max_leases"),
            labels=frozenset(labels),
        )
        delay_ms = int(fields.get("join_delay_ms", 0))
        if not 0 <= delay_ms <= MAX_JOIN_DELAY_S * 1000:
            return None
        return Entry(member, _ms(since), delay_ms, _ms(remaining))
    # Another program may have written anything. It must spoil only its own entry.
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
        raise ValueError(f"{number} ms is not a server's time")
    return number
