"""The plan of a fleet: the last assignment, kept in Redis so that few elections move.

Rules of this file:
    * Pure functions: no I/O, no clock. Nodes that have the same members, keys and plan compute the
      same assignment.
    * A plan and the plan that follows from it lead to the same assignment, so a plan may be late.
      Members differ only if their plans are further apart, or if one of them has none. So the
      server announces each plan that it keeps.
    * Plans are numbered, and the highest number wins. A new plan follows only when the fleet has
      changed. So nodes with different keys, or a different `only`, do not replace each other's
      plans for ever.
    * A fleet with many elections needs no plan: members and keys alone move few elections there.
      See `multielect.balance`.
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
"""A fleet without a plan gets one if it has at most this many elections."""

MAX_KEYS = 2 * MAX_NEW_KEYS
"""A fleet with a plan keeps it up to this many, so that one more or less does not matter."""

_HASH_BYTES = 8


@dataclass(frozen=True)
class Plan:
    """The last assignment of a fleet.

    Attributes:
        number: the number of the plan; a newer plan has a higher number.
        text: the plan as Redis keeps it, without its number.
        fleet: the fleet for which it was made: see `fleet_mark`.
        held: for the hash of each key, the holder to which the key was assigned.
    """

    number: int
    text: bytes
    fleet: bytes
    held: Mapping[int, str]

    @property
    def numbered_text(self) -> bytes:
        """The plan as a proposal: with its number."""
        return b"%d %s" % (self.number, self.text)


def read_plan(number: int, text: bytes) -> Plan:
    """Return a plan from the text that Redis keeps.

    Raises:
        ValueError: if the text is malformed.
    """
    fleet, *shares = read_netstrings(text)
    held = {}
    for holder, packed in zip(shares[::2], shares[1::2], strict=True):
        name = decode_key(holder)
        held.update(dict.fromkeys(_hashes(packed), name))
    return Plan(number, text, fleet, held)


def planned(members: Sequence[Member], keys: KeySet, plan: Plan | None) -> Assignment:
    """Return the assignment: that of the plan, as far as the present members allow."""
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
    """Return the text of the next plan, which has this assignment; None if none is needed.

    Args:
        assignment: the assignment that follows from `plan`.
        plan: the present plan, if there is one.
    """
    fleet = fleet_mark(assignment.members)
    if plan is not None and plan.fleet == fleet:
        return None
    keys = assignment.keys_given
    was_kept = plan is not None and bool(plan.held)
    if len(keys) > (MAX_KEYS if was_kept else MAX_NEW_KEYS):
        # A plan without shares means that members and keys alone decide from now on.
        return netstring(fleet) if was_kept else None
    shares = [array("Q") for _ in range(len(assignment.members) + 1)]
    for number, owner in zip(keys.hashes, assignment.owners, strict=True):
        shares[owner].append(number)
    parts = [fleet]
    # The last share has the unassigned keys.
    for member, share in zip(assignment.members, shares[:-1], strict=True):
        if share:
            parts += [member.holder.encode("utf-8", "surrogateescape"), _packed(share)]
    return b"".join(map(netstring, parts))


def succeeding(assignment: Assignment, plan: Plan | None, members: Sequence[Member]) -> Assignment:
    """Return the assignment of a later fleet, when the plan after `plan` is kept.

    Args:
        assignment: the assignment that follows from `plan`.
        plan: the present plan, if there is one.
        members: the members of the later fleet.
    """
    text = following(assignment, plan)
    if text is not None:
        plan = read_plan(0, text)
    return planned(members, assignment.keys_given, plan)


def fleet_mark(members: Sequence[Member]) -> bytes:
    """Return a short text that differs for other members, weights, limits or labels."""
    fleet = sorted([m.holder, m.thousandths, m.max_leases, sorted(m.labels)] for m in members)
    return blake2b(json.dumps(fleet).encode(), digest_size=16).hexdigest().encode()


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
