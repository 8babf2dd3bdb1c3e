"""Are leases held for minutes, and what does the process that holds them cost?

Rules of this file:
    * The holder is a separate process with a real group and a real TTL. Its refreshes keep their
      normal pace, and the kernel reports its CPU time.
    * The measurement begins when the holder leads all elections. Each term that ends before the
      end of the measurement counts, even if the holder is elected again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..instruments.children import Child, Parent
from ..results.findings import Case, Key, Quantity
from ..results.spread import Bound
from ..subjects.ours import NAME, Group, settle
from ..suite import Bench

DEMOTIONS = Quantity("terms lost", "of all")
CPU = Quantity("client CPU", "% of a core")
SERVER = Quantity("server CPU", "% of a core")
REFRESHES = Quantity("refreshes", "a second")

_READY_S = 300.0
_GRACE_S = 60.0
_LOOK_S = 0.2


@dataclass(frozen=True)
class Watch:
    """One measurement.

    Attributes:
        leases: the number of leases.
        ttl_s: their TTL.
        seconds: for how long the holder holds them.
        max_percent: the bound of the holder's CPU time, in per cent of a core, if there is one.
    """

    leases: int
    ttl_s: float
    seconds: float
    max_percent: float | None = None


QUICK = (Watch(10_000, 2.0, 4.0),)
FULL = (Watch(100_000, 10.0, 60.0, max_percent=3.0), Watch(1_000_000, 30.0, 300.0))


class Hold:
    """Terms lost and CPU time of a process that holds leases."""

    name = "hold"
    question = "Are all leases held, and what does the holding process cost?"

    def run(self, bench: Bench) -> None:
        """Do all measurements, one after another."""
        watches = bench.scale.pick(quick=QUICK, full=FULL)
        if bench.scale.sizes:
            watches = tuple(
                Watch(size, watches[0].ttl_s, watches[0].seconds) for size in bench.scale.sizes
            )
        for watch in watches:
            case = _case(watch)
            bench.findings.expect(
                f"terms lost, {case.label}", Key(case, NAME, DEMOTIONS), Bound(at_most=0)
            )
            if watch.max_percent is not None:
                label = f"holding process, % of a core, {case.label}"
                bench.findings.expect(label, Key(case, NAME, CPU), Bound(at_most=watch.max_percent))
        bench.progress.begin(round(sum(watch.seconds for watch in watches)))
        for watch in watches:
            _measure(bench, watch)
            bench.server.clear()


def _case(watch: Watch) -> Case:
    return Case(
        f"{watch.leases:,} leases, TTL {watch.ttl_s:g} s, {watch.seconds:g} s", watch.leases
    )


def _measure(bench: Bench, watch: Watch) -> None:
    case, server = _case(watch), bench.server
    bench.progress.say(f"taking {watch.leases:,} leases")
    prefix = server.fresh_prefix()
    with Child("the holder", hold, server.url, prefix, watch.leases, watch.ttl_s) as holder:
        holder.receive(_READY_S)
        cpu_s, began_s = server.cpu_s(), time.monotonic()
        holder.send("begin")
        until_s, told_s = began_s + watch.seconds, began_s
        while (left_s := until_s - time.monotonic()) > 0:
            if time.monotonic() >= told_s:
                bench.progress.step(f"holding {watch.leases:,} leases")
                told_s += 1
            time.sleep(min(_LOOK_S, left_s))
        holder.send("end")
        reply = holder.receive(_GRACE_S)
        seconds = time.monotonic() - began_s
        add = bench.findings.add
        add(case, NAME, DEMOTIONS, reply["demoted"])
        add(case, NAME, CPU, 100 * reply["cpu_s"] / reply["seconds"])
        add(case, NAME, SERVER, 100 * (server.cpu_s() - cpu_s) / seconds)
        add(case, NAME, REFRESHES, reply["refreshes"] / reply["seconds"])
        bench.findings.notes.extend(reply["errors"])


def hold(parent: Parent, url: str, prefix: str, leases: int, ttl_s: float) -> None:
    """Lead all elections, and report the cost between the parent's next two messages."""
    held = Group(url, prefix, leases, ttl_s=ttl_s)
    try:
        held.acquire()
        settle()
        parent.send("ready")
        parent.receive()
        began_s, cpu_s, before = time.monotonic(), time.process_time(), held.group.counters
        parent.receive()
        seconds, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
        after = held.group.counters
        parent.send(
            {
                "seconds": seconds,
                "cpu_s": cpu_s,
                "demoted": after.demoted - before.demoted,
                "refreshes": after.refreshes - before.refreshes,
                "errors": held.errors[:5],
            }
        )
        parent.receive()
    finally:
        held.group.stop(0)
