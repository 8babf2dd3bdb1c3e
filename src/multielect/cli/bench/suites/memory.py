"""How much memory does an election take, in the process and in Redis?

Rules of this file:
    * A new process is started for each number of elections. The memory of an election is computed
      from the difference between two such processes, so the interpreter's memory does not count.
    * The process leads all its elections at the time of the measurement, so events, queues and
      buffers count.
"""

from __future__ import annotations

import gc
import resource
import sys
from pathlib import Path

from ..instruments.children import Child, Parent
from ..results.findings import Case, Key, Quantity
from ..results.spread import Bound
from ..subjects.ours import KEY, NAME, Group, settle
from ..suite import Bench

PROCESS = Quantity("in the process", "bytes beyond key")
COUNTED = Quantity("of which counted", "bytes beyond key")
REDIS = Quantity("in Redis", "bytes with keys")

_READY_S = 300.0
_KEY_BYTES = len(KEY.format(0))
_QUICK, _FULL = (10_000, 50_000), (100_000, 1_000_000)


class Memory:
    """Memory of an election, in bytes."""

    name = "memory"
    question = "How much memory does an election take?"

    def run(self, bench: Bench) -> None:
        """Measure two processes, and compute the difference."""
        sizes = bench.scale.sizes_or(quick=_QUICK, full=_FULL)
        small, large = min(sizes), max(sizes)
        if small == large:
            small = large // 10
        case = Case(f"from {small:,} to {large:,} elections", large)
        bench.findings.expect(
            f"bytes in the process beyond the key, {case.label}",
            Key(case, NAME, PROCESS),
            Bound(at_most=200),
        )
        bench.findings.notes.append(
            f"In the process: the difference between two processes in memory that is {_HOW}. Keys"
            f" of elections have {_KEY_BYTES} bytes. In Redis: used_memory, with the names of both"
            " keys."
        )
        rounds = bench.scale.rounds or bench.scale.pick(quick=1, full=3)
        bench.progress.begin(2 * rounds)
        for _ in range(rounds):
            low, high = _grown(bench, small), _grown(bench, large)
            for quantity, beside in ((PROCESS, _KEY_BYTES), (COUNTED, _KEY_BYTES), (REDIS, 0)):
                name = quantity.name
                each = (high[name] - low[name]) / (large - small) - beside
                bench.findings.add(case, NAME, quantity, each)


def _grown(bench: Bench, leases: int) -> dict[str, int]:
    """Return the memory of a process that leads `leases` elections, and of their keys in Redis."""
    server = bench.server
    bench.progress.step(f"{leases:,} elections")
    before = server.memory_bytes()
    with Child("the process that grows", grow, server.url, server.fresh_prefix(), leases) as child:
        sizes: dict[str, int] = child.receive(_READY_S)
        sizes[REDIS.name] = server.memory_bytes() - before
    server.clear()
    return sizes


def grow(parent: Parent, url: str, prefix: str, leases: int) -> None:
    """Lead `leases` elections, and send the memory of this process."""
    held = Group(url, prefix, leases)
    try:
        held.acquire()
        settle()
        gc.collect()
        counted = held.probe.memory_bytes
        parent.send({PROCESS.name: resident_bytes(), COUNTED.name: counted})
        parent.receive()
    finally:
        held.group.stop(0)


def resident_bytes() -> int:
    """Return this process's resident memory, or its peak if the system reports only the peak."""
    if _STATM.exists():
        return int(_STATM.read_text("ascii").split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


_STATM = Path("/proc/self/statm")
_HOW = "resident" if _STATM.exists() else "resident at the peak"
