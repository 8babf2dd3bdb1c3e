"""All faults, and which of them may strike together.

Rules of this file:
    * Each fault that needs a node finds one. At most one fault strikes a node or its wire.
    * Of each rank that concerns the whole server, at most one fault strikes. A fault that replaces
      the server or steps its clock strikes alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from . import node_faults, server_faults, wire_faults
from .fault import FAULTS, Fault, Rank

__all__ = ["FAULTS", "MAX_AT_ONCE", "MODULES", "are_compatible", "choose"]

MODULES = (node_faults, wire_faults, server_faults)
"""The modules with faults. Importing them adds the faults to `FAULTS`."""

MAX_AT_ONCE = 4

_ONCE = (Rank.LIMITS_SERVER, Rank.STOPS_SERVER)
_ALONE = (Rank.REPLACES_SERVER, Rank.TURNS_CLOCK)


def are_compatible(faults: Sequence[Fault], nodes: int, *, spared: int = 0) -> bool:
    """Return whether some faults may strike together.

    Args:
        faults: the faults.
        nodes: the number of nodes of the fleet.
        spared: the number of nodes whose processes no fault may end.
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
    """Choose `count` faults that may strike together, without those of the clock."""
    among = [fault for fault in FAULTS.values() if fault.rank is not Rank.TURNS_CLOCK]
    while True:
        chosen = chance.sample(among, count)
        if are_compatible(chosen, nodes, spared=spared):
            return chosen
