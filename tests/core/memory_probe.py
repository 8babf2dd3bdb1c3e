"""Prints what an election costs in memory, as the operating system counts it.

Rules of this file:
    * It is run in a process of its own, so that nothing else grows or shrinks meanwhile.
    * All elections are led when it measures: events, queues and buffers have had their share.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from multielect._core.core import Core
from multielect._core.driver import Driver
from multielect._protocol.keys import group_layout
from multielect._protocol.scripts import WITH_FLAGS

BATCH = 125
TTL_NS = 10**12


def resident_bytes() -> int:
    """Return how much of this process is in memory."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize()


def main(count: int, key_bytes: int) -> None:
    """Lead `count` elections whose keys are `key_bytes` long, and print the cost of each."""
    layout = group_layout("memory")
    core = Core(
        now_ns=10**9,
        ttl_ns=TTL_NS,
        margin_ns=0,
        key_prefixes=layout.key_prefixes,
        separator=layout.separator,
        holder=b"node/1",
        channel=layout.channel,
    )
    driver = Driver(core)
    core.elections.start()
    driver.connect(WITH_FLAGS)
    won = b"*%d\r\n:1\r\n*0\r\n" % (BATCH + 2) + b":1\r\n" * BATCH
    before, own = resident_bytes(), core.elections.memory_bytes
    for number in range(count):
        core.elections.add(b"%0*d" % (key_bytes, number), number % 256)
    while core.elections.leading < count:
        driver.turn(10**9)
        driver.sent(driver.outgoing_bytes)
        while driver.owed_since_ns is not None:
            driver.receive(won, 10**9)
        while core.reporter.take_events():
            pass
    cost = {
        "resident": (resident_bytes() - before) / count - key_bytes,
        "counted": (core.elections.memory_bytes - own) / count - key_bytes,
    }
    sys.stdout.write(json.dumps(cost))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
