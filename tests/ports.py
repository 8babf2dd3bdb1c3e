"""Free ports of the loopback, for servers that tests start."""

from __future__ import annotations

import contextlib
import socket

BUS_OFFSET = 10_000
"""How far above its own port a node of a cluster opens the port of the bus."""

_ATTEMPTS = 100


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_cluster_port() -> int:
    """Return a port that nobody has, for a node of a cluster: nor has anybody that of its bus.

    Raises:
        OSError: if there are no two such ports.
    """
    for _ in range(_ATTEMPTS):
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            # The system may give a port above which there is none for the bus.
            with contextlib.suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port + BUS_OFFSET))
                return port
    raise OSError("no two ports are free")
