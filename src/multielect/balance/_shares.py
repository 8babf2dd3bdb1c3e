"""How many keys each member should have, were all free to take any.

Rules of this file:
    * Whole numbers and exact fractions only: no share depends on how a machine rounds.
    * What is beyond a member's cap goes to the others by weight, which may fill the next cap.
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
    """Divide so many keys among the members, by weight and within their caps."""
    caps = array("i", [_cap(member) for member in members])
    lows, highs = array("i", caps), array("i", caps)
    # Whoever has the least room for its weight is filled first: once one is not, none is.
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
