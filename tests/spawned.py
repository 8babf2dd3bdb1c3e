"""What a child process that starts from scratch does: it stands for an election of its own."""

from __future__ import annotations

from multiprocessing.connection import Connection

from multielect import ElectionGroup


def lead(url: str, prefix: str, pipe: Connection) -> None:
    """Lead one election, say so, and stop when told."""
    with ElectionGroup(url, prefix=prefix, ttl=60) as group:
        election = group.add("child's")
        pipe.send((election.wait(10), election.epoch, group.node_id))
        pipe.recv()
