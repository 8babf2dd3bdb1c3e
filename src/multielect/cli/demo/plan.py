"""The plan of a run: the node of each mishap, chosen before anything runs.

Rules of this file:
    * At least one node runs unharmed to the end of the stream.
    * Nodes are named in the order in which they start. The node that joins has the last name.
"""

from __future__ import annotations

from dataclasses import dataclass

FREEZE_AT, JOIN_AT, KILL_AT, STOP_AT = 0.1, 0.45, 0.6, 0.85
"""When the mishaps happen, as parts of the stream's time. Each waits for the one before."""


@dataclass(frozen=True)
class Plan:
    """The node of each mishap; None if the mishap does not happen."""

    nodes: list[str]
    frozen: str | None
    joining: str | None
    killed: str | None
    stopped: str | None

    @classmethod
    def make(cls, nodes: int, *, freeze: bool = True, join: bool = True, kill: bool = True) -> Plan:
        """Return the plan for so many nodes at the start."""
        names = [f"node-{number}" for number in range(1, nodes + 1)]
        joining = f"node-{nodes + 1}" if join else None
        leaving = iter(names if joining else names[:-1])
        return cls(
            nodes=names,
            frozen=names[-1] if freeze else None,
            joining=joining,
            killed=next(leaving, None) if kill else None,
            stopped=next(leaving, None),
        )


@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        plan: the mishaps.
        url: the URL of the Redis server.
        prefix: the prefix of all keys that the run writes.
        ttl: the TTL of the leases, in seconds.
        seconds: how long the stream lasts.
    """

    plan: Plan
    url: str
    prefix: str
    ttl: float
    seconds: float
