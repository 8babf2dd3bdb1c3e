"""How many keys each member should have if every member may lead every key.

Rules of this file:
    * Whole numbers and exact fractions only: no share depends on a machine's rounding.
    * The keys above a member's cap go to the others by weight, which may fill another cap.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ._member import MAX_LEASES, Member


@dataclass(frozen=True, slots=True)
class Shares:
    """The fair shares of some members, in their order.

    Attributes:
        lows: the shares rounded down.
        highs: the shares rounded up.
        caps: how many keys a member may have at most.
    """

    lows: array[int]
    highs: array[int]
    caps: array[int]


def fair_shares(members: Sequence[Member], keys: int) -> Shares:
    """Return the shares of the members when `keys` keys are divided by weight, within the caps."""
    caps = array("i", [_cap(member) for member in members])
    lows, highs = array("i", caps), array("i", caps)
    # The member with the least room for its weight comes first. If its share fits, all shares fit.
    free = sorted(
        (number for number, cap in enumerate(caps) if cap),
        key=lambda number: Fraction(caps[number], members[number].thousandths),
    )
    weight = sum(members[number].thousandths for number in free)
    left = keys
    for place, number in enumerate(free):
        mine = members[number].thousandths
        if caps[number] * weight > left * mine:
            for rest in free[place:]:
                share, remainder = divmod(left * members[rest].thousandths, weight)
                lows[rest], highs[rest] = share, share + (remainder > 0)
            break
        left -= caps[number]
        weight -= mine
    return Shares(lows, highs, caps)


def _cap(member: Member) -> int:
    if not member.thousandths:
        return 0
    return MAX_LEASES if member.max_leases is None else member.max_leases
