"""What do nodes that stand by cost the server?

Rules of this file:
    * One process leads all elections. Another process has the groups that stand by for them. Each
      round measures several numbers of groups, and also no group, which shows the leader's cost.
    * The server counts its commands and its scripts. The commands inside scripts count as commands,
      the scripts themselves do not. The counts include those of the server's other clients.
    * Before a measurement begins, each group that stands by has seen the leader of each election. A
      measurement lasts a whole number of TTLs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from multielect import ElectionGroup

from ..instruments.children import Child, Parent
from ..instruments.servers import Server
from ..results.findings import Case, Comparison, Key, Quantity
from ..subjects.contenders import in_turns
from ..subjects.ours import KEY, Group, settle
from ..suite import Bench, BenchError

COMMANDS = Quantity("commands", "a key a TTL")
CHECKS = Quantity("checks, each", "a key a TTL")
SCRIPTS = Quantity("scripts", "a TTL")
CPU = Quantity("server CPU", "% of a core")

GROUPS = (0, 1, 4, 16)
NOBODY = "the leader alone"

_SCRIPTS = ("eval", "evalsha")
_QUICK, _FULL = (1_000,), (10_000,)
_QUICK_TTL_S, _FULL_TTL_S = 0.5, 5.0
_WATCHED_TTLS = 2
_FULL_ROUNDS = 5
_READY_S = 300.0
_LOOK_S = 0.005
_MAX_S = 60.0


class Standby:
    """Commands and server CPU that groups standing by cost."""

    name = "standby"
    question = "What do groups that stand by cost the server?"

    def run(self, bench: Bench) -> None:
        """Watch the server with each number of groups standing by, in every round."""
        scale, findings = bench.scale, bench.findings
        ttl_s = scale.pick(quick=_QUICK_TTL_S, full=_FULL_TTL_S)
        sizes = scale.sizes_or(quick=_QUICK, full=_FULL)
        rounds = scale.rounds or scale.pick(quick=1, full=_FULL_ROUNDS)
        findings.notes.append(
            "Commands are those that the server ran, also inside scripts, without the scripts"
            " themselves. Checks are the acquires of each group that stands by. A client that polls"
            " every third of the TTL makes 3 checks."
        )
        bench.progress.begin(len(sizes) * rounds * len(GROUPS))
        for size in sizes:
            case = Case(f"{size:,} elections, TTL {ttl_s:g} s", size)
            for groups in GROUPS[1:]:
                label = f"commands, {_subject(groups)} against {NOBODY}, {case.label}"
                over, under = (Key(case, _subject(count), COMMANDS) for count in (groups, 0))
                findings.compare(Comparison(label, over, under))
            _measure(bench, case, ttl_s, rounds)
            bench.server.clear()


def _subject(groups: int) -> str:
    return f"{groups} standing by" if groups else NOBODY


def _measure(bench: Bench, case: Case, ttl_s: float, rounds: int) -> None:
    server, size = bench.server, case.size
    prefix = server.fresh_prefix()
    with (
        Child("the leader", lead, server.url, prefix, size, ttl_s) as leader,
        Child("the process that stands by", stand_by, server.url, prefix, size, ttl_s) as others,
    ):
        leader.receive(_READY_S)
        others.receive(_READY_S)
        for number in range(rounds):
            for groups in in_turns(GROUPS, number):
                bench.progress.step(f"round {number + 1} of {rounds}, {_subject(groups)}")
                others.send(groups)
                others.receive(_READY_S)
                before, began_s = Asked.of(server), time.monotonic()
                time.sleep(_WATCHED_TTLS * ttl_s)
                after, seconds = Asked.of(server), time.monotonic() - began_s
                others.send("end")
                checks, leading = others.receive(_READY_S)
                if leading:
                    raise BenchError(f"{leading:,} leases changed hands: the machine is too busy")
                ttls = seconds / ttl_s
                add, subject = bench.findings.add, _subject(groups)
                add(case, subject, COMMANDS, (after.commands - before.commands) / size / ttls)
                if groups:
                    add(case, subject, CHECKS, checks / groups / size / ttls)
                add(case, subject, SCRIPTS, (after.scripts - before.scripts) / ttls)
                add(case, subject, CPU, 100 * (after.cpu_s - before.cpu_s) / seconds)


@dataclass(frozen=True)
class Asked:
    """The server's counts since it was started.

    Attributes:
        commands: the commands that it ran, of clients and inside scripts.
        scripts: the scripts that it ran.
        cpu_s: its CPU time.
    """

    commands: int
    scripts: int
    cpu_s: float

    @classmethod
    def of(cls, server: Server) -> Asked:
        """Return the server's counts now."""
        return cls.counted(server.commands(), server.cpu_s())

    @classmethod
    def counted(cls, calls: dict[str, dict[str, Any]], cpu_s: float) -> Asked:
        """Return the counts, from what INFO says. The bench's own INFO commands do not count."""
        counts = {name: int(count["calls"]) for name, count in calls.items()}
        scripts = sum(counts.pop(name, 0) for name in _SCRIPTS)
        counts.pop("info", None)
        return cls(sum(counts.values()), scripts, cpu_s)


def lead(parent: Parent, url: str, prefix: str, leases: int, ttl_s: float) -> None:
    """Lead all elections until the parent is gone."""
    held = Group(url, prefix, leases, ttl_s=ttl_s)
    try:
        held.acquire()
        settle()
        parent.send("ready")
        parent.receive()
    finally:
        held.group.stop(0)


def stand_by(parent: Parent, url: str, prefix: str, leases: int, ttl_s: float) -> None:
    """Run as many groups as the parent says, and send their checks and how often they were elected.

    Waits for the next number then. The groups do not lead as long as the leader is there.
    """
    parent.send("ready")
    while True:
        groups = [ElectionGroup(url, prefix=prefix, ttl=ttl_s) for _ in range(parent.receive())]
        try:
            for group in groups:
                group.add_many(KEY.format(number) for number in range(leases))
                group.start()
            _wait_until_met(groups, leases)
            before = sum(group.counters.checks for group in groups)
            parent.send("ready")
            parent.receive()
            checks = sum(group.counters.checks for group in groups) - before
            parent.send((checks, sum(group.counters.elected for group in groups)))
        finally:
            for group in groups:
                group.stop(0)


def _wait_until_met(groups: list[ElectionGroup], leases: int) -> None:
    give_up_s = time.monotonic() + _MAX_S
    for group in groups:
        while group.counters.checks < leases:
            if time.monotonic() > give_up_s:
                raise TimeoutError("not every election was met")
            time.sleep(_LOOK_S)
