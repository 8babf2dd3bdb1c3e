"""The leases at the server: their holders, and when they end.

Rules of this file:
    * This file only reads. A reading is a snapshot that is old when it arrives.
    * A lease's end is computed on the local clock from the instant *before* the request was sent.
      So it is never later than the true end, except for the server's rounding to a millisecond, and
      a takeover never looks quicker than it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from multielect._protocol.keys import encode_key, group_layout
from multielect._runtime.clock import Clock

from ..client import Client, values

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEYS_A_CALL = 500
_LEASES_A_CALL = 100


@dataclass(frozen=True)
class Lease:
    """A lease at the server: which node holds it, and when it ends on the local clock."""

    node: str
    ends_ns: int


class LeaseReader:
    """Reads the leases of all elections of a group. For one thread at a time."""

    def __init__(self, client: Client, prefix: str, keys: Sequence[str]) -> None:
        layout = group_layout(prefix)
        self._client = client
        self._leader_keys = [layout.leader_key(encode_key(key)) for key in keys]
        self._now_ns = Clock().now_ns

    def leaders(self) -> list[str | None]:
        """Return the node that leads each election; None for an election without a leader."""
        found: list[bytes | None] = []
        for first in range(0, len(self._leader_keys), _KEYS_A_CALL):
            found += values(self._client, self._leader_keys[first : first + _KEYS_A_CALL])
        return [_node(holder) if holder else None for holder in found]

    def held_by(self, node: str) -> dict[int, Lease]:
        """Return the leases that a dead or frozen node still holds, by election.

        It reads twice: a refresh that such a node sent before may reach the server after the first
        reading, and extend a lease once more.
        """
        latest = self._read(node)
        latest.update(self._read(node))
        return latest

    def _read(self, node: str) -> dict[int, Lease]:
        # Reading the leaders is fast, so the ends of the leases are read soon after the failure.
        led = [election for election, leader in enumerate(self.leaders()) if leader == node]
        leases: dict[int, Lease] = {}
        for first in range(0, len(led), _LEASES_A_CALL):
            some = led[first : first + _LEASES_A_CALL]
            pipeline = self._client.pipeline(transaction=False)
            for election in some:
                pipeline.get(self._leader_keys[election])
                pipeline.pttl(self._leader_keys[election])
            sent_ns = self._now_ns()
            replies = pipeline.execute()
            for place, election in enumerate(some):
                holder, remaining_ms = replies[2 * place], replies[2 * place + 1]
                # The lease may have ended meanwhile, and another node may hold it.
                if holder is not None and _node(holder) == node and remaining_ms >= 0:
                    leases[election] = Lease(node, sent_ns + remaining_ms * 1_000_000)
        return leases


def _node(holder: bytes) -> str:
    return holder.partition(b"/")[0].decode()
