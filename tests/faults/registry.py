"""All faults by name, and which of them may strike at once.

Rules of this file:
    * Those that need a node each find one, and one node or wire is hurt by one fault at a time.
    * The server does one thing at a time: no two of a rank that concerns it as a whole. What
      replaces it, or turns its clock, strikes alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from . import node_faults, server_faults, wire_faults
from .fault import FAULTS, Fault, Rank

__all__ = ["FAULTS", "MAX_AT_ONCE", "MODULES", "are_compatible", "choose"]

MODULES = (node_faults, wire_faults, server_faults)
"""Where they are from: importing these has entered them."""

MAX_AT_ONCE = 4

_ONCE = (Rank.LIMITS_SERVER, Rank.STOPS_SERVER)
_ALONE = (Rank.REPLACES_SERVER, Rank.TURNS_CLOCK)


def are_compatible(faults: Sequence[Fault], nodes: int, *, spared: int = 0) -> bool:
    """Tell whether these may strike at once in a fleet of so many nodes.

    Args:
        faults: these.
        nodes: how many there are.
        spared: of how many of them the process is not to be ended.
    """
    ranks = Counter(fault.rank for fault in faults)
    return (
        len({fault.name for fault in faults}) == len(faults)
        and ranks[Rank.ENDS_NODE] <= nodes - spared
        and ranks[Rank.ENDS_NODE] + ranks[Rank.HURTS_NODE] <= nodes
        and all(ranks[rank] <= 1 for rank in _ONCE)
        and (len(faults) == 1 or not any(ranks[rank] for rank in _ALONE))
    )


def choose(chance: random.Random, nodes: int, count: int, *, spared: int = 0) -> list[Fault]:
    """Choose so many faults that may strike at once, none of the clock."""
    among = [fault for fault in FAULTS.values() if fault.rank is not Rank.TURNS_CLOCK]
    while True:
        chosen = chance.sample(among, count)
        if are_compatible(chosen, nodes, spared=spared):
            return chosen
