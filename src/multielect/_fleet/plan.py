"""The plan of a fleet: who was given what last, kept in Redis so that few elections move.

Rules of this file:
    * Pure: words in, words out. Whoever has the same members, keys and plan comes to the same
      assignment.
    * And to the same one by the plan that follows from it: so a plan may be late. Only members that
      went by different plans differ, or one that went by none: so all are told when one is kept.
    * Plans are numbered, and the highest number wins. One follows another only where the fleet is
      another: nodes with other keys, or another idea of who may lead what, do not outbid each
      other for ever.
    * A fleet with many elections needs no plan, as members and keys alone move little enough there:
      see `multielect.balance`.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from .._protocol.keys import decode_key
from .._protocol.netstrings import netstring, read_netstrings
from ..balance import Assignment, KeySet, Member, assign

MAX_NEW_KEYS = 4_096
"""A fleet that has no plan gets one up to so many elections."""

MAX_KEYS = 2 * MAX_NEW_KEYS
"""A fleet that has a plan keeps it up to so many, so that one more or less does not matter."""

_HASH_BYTES = 8


@dataclass(frozen=True)
class Plan:
    """What was given to whom.

    Attributes:
        number: which plan it is: the higher, the newer.
        text: the plan as it is kept, without its number.
        fleet: whom it was made for: see `fleet_mark`.
        held: by the hash of a key, the holder of the member that it was given to.
    """

    number: int
    text: bytes
    fleet: bytes
    held: Mapping[int, str]

    @property
    def words(self) -> bytes:
        """The plan as it is sent: with its number."""
        return b"%d %s" % (self.number, self.text)


def read_plan(number: int, text: bytes) -> Plan:
    """Read a plan as it is kept.

    Raises:
        ValueError: for what is no plan.
    """
    fleet, *shares = read_netstrings(text)
    held = {}
    for holder, packed in zip(shares[::2], shares[1::2], strict=True):
        name = decode_key(holder)
        held.update(dict.fromkeys(_hashes(packed), name))
    return Plan(number, text, fleet, held)


def planned(members: Sequence[Member], keys: KeySet, plan: Plan | None) -> Assignment:
    """Return who is to lead what: what the plan says, as far as the members of today allow."""
    if plan is None or not plan.held:
        return assign(members, keys)
    get = plan.held.get
    held = {
        name: holder
        for name, number in zip(keys.names, keys.hashes, strict=True)
        if (holder := get(number)) is not None
    }
    return assign(members, keys, held)


def following(assignment: Assignment, plan: Plan | None) -> bytes | None:
    """Return the text of the plan that says what an assignment does; None where none is needed.

    Args:
        assignment: what was worked out by `plan`.
        plan: the plan that it follows, if there is one.
    """
    fleet = fleet_mark(assignment.members)
    if plan is not None and plan.fleet == fleet:
        return None
    keys = assignment.keys_given
    was_kept = plan is not None and bool(plan.held)
    if len(keys) > (MAX_KEYS if was_kept else MAX_NEW_KEYS):
        # Without shares it says that members and keys alone decide from now on.
        return netstring(fleet) if was_kept else None
    shares = [array("Q") for _ in range(len(assignment.members) + 1)]
    for number, owner in zip(keys.hashes, assignment.owners, strict=True):
        shares[owner].append(number)
    words = [fleet]
    # The last share is that of nobody.
    for member, share in zip(assignment.members, shares[:-1], strict=True):
        if share:
            words += [member.holder.encode("utf-8", "surrogateescape"), _packed(share)]
    return b"".join(map(netstring, words))


def succeeding(assignment: Assignment, plan: Plan | None, members: Sequence[Member]) -> Assignment:
    """Return who is to lead what once the members are others, and what follows from `plan` is kept.

    Args:
        assignment: what was worked out by `plan`.
        plan: the plan, if there is one.
        members: the members that are then.
    """
    text = following(assignment, plan)
    if text is not None:
        plan = read_plan(0, text)
    return planned(members, assignment.keys_given, plan)


def fleet_mark(members: Sequence[Member]) -> bytes:
    """Return a short text that differs where members, or what they may be given, do."""
    told = sorted([m.holder, m.thousandths, m.max_leases, sorted(m.labels)] for m in members)
    return blake2b(json.dumps(told).encode(), digest_size=16).hexdigest().encode()


def _packed(hashes: array[int]) -> bytes:
    if sys.byteorder == "big":
        hashes.byteswap()
    return hashes.tobytes()


def _hashes(packed: bytes) -> array[int]:
    if len(packed) % _HASH_BYTES:
        raise ValueError("a share of the plan is cut off")
    hashes = array("Q")
    hashes.frombytes(packed)
    if sys.byteorder == "big":
        hashes.byteswap()
    return hashes
