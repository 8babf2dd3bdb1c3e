"""How late are refreshes, compared with when they are due?

Rules of this file:
    * The core records the lateness of every refresh of every lease. A refresh is due a third of the
      TTL after the last one. Its lateness is the time from then until the core packs its batch. A
      refresh that is sent before it is due is not late.
    * The holding process is idle, or runs Python without pause, or keeps the GIL in one C call for
      a whole window. It does one after the other in each round, with the same leases.
    * A window is longer than a third of the TTL, so every lease is refreshed in each window.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

from ..instruments.children import Child, Parent
from ..results.findings import Case, Key, Quantity
from ..results.percentiles import Tail
from ..results.spread import Bound
from ..subjects.contenders import in_turns
from ..subjects.ours import Group, settle
from ..suite import Bench, BenchError

DEMOTIONS = Quantity("terms lost", "of all")

_QUICK, _FULL = (20_000,), (100_000,)
_QUICK_TTL_S, _FULL_TTL_S = 1.8, 10.0
_WINDOW_TTLS = 0.4
_ROUNDS_QUICK, _ROUNDS_FULL = 2, 9
_READY_S = 300.0


class Lateness:
    """Percentiles of how late refreshes go out."""

    name = "lateness"
    question = "How late are refreshes, in an idle process and in a busy one?"

    def run(self, bench: Bench) -> None:
        """Measure under each load, in every round."""
        scale, findings = bench.scale, bench.findings
        ttl_s = scale.pick(quick=_QUICK_TTL_S, full=_FULL_TTL_S)
        sizes = scale.sizes_or(quick=_QUICK, full=_FULL)
        rounds = scale.rounds or scale.pick(quick=_ROUNDS_QUICK, full=_ROUNDS_FULL)
        findings.notes.append(
            "Lateness is the time from when a refresh is due until its batch is packed. Timers"
            " fire a 384th of the TTL before it is due."
        )
        bench.progress.begin(len(sizes) * rounds * len(LOADS))
        for size in sizes:
            case = Case(f"{size:,} leases, TTL {ttl_s:g} s", size)
            for load in LOADS:
                label = f"terms lost, {load}, {case.label}"
                findings.expect(label, Key(case, load, DEMOTIONS), Bound(at_most=0))
            _measure(bench, case, ttl_s, rounds)
            bench.server.clear()


def _measure(bench: Bench, case: Case, ttl_s: float, rounds: int) -> None:
    server, window_s = bench.server, _WINDOW_TTLS * ttl_s
    bench.progress.say(f"taking {case.size:,} leases")
    prefix = server.fresh_prefix()
    with Child("the holder", hold, server.url, prefix, case.size, ttl_s) as holder:
        holder.receive(_READY_S)
        for number in range(rounds):
            for load in in_turns(list(LOADS), number):
                bench.progress.step(f"round {number + 1} of {rounds}, {load}")
                holder.send((load, window_s))
                counts, demoted, why = holder.receive(_READY_S)
                if not counts:
                    raise BenchError(f"nothing was refreshed within {window_s:g} s: {why}")
                Tail.of_counts(counts).add_to(bench.findings, case, load)
                bench.findings.add(case, load, DEMOTIONS, demoted)


def hold(parent: Parent, url: str, prefix: str, leases: int, ttl_s: float) -> None:
    """Lead all elections. For each message, run that load and send how late refreshes were."""
    held = Group(url, prefix, leases, ttl_s=ttl_s)
    try:
        held.acquire()
        settle()
        parent.send("ready")
        while True:
            load, seconds = parent.receive()
            before = held.group.counters.demoted
            held.probe.watch_lateness()
            LOADS[load](seconds)
            demoted = held.group.counters.demoted - before
            parent.send((held.probe.lateness_ns, demoted, held.errors[-1:]))
    finally:
        held.group.stop(0)


def run_python(seconds: float) -> None:
    """Use the CPU in Python code, which releases the GIL as often as any Python code."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        pass


def keep_gil(seconds: float) -> None:
    """Sleep in a C call that keeps the GIL, like an extension module that computes."""
    ctypes.PyDLL(None).usleep(round(seconds * 1e6))


LOADS: dict[str, Callable[[float], None]] = {
    "idle": time.sleep,
    "a thread runs Python": run_python,
    "a thread keeps the GIL": keep_gil,
}
"""The loads, by their names in the table. Each function runs for that many seconds."""
