"""How long does another client of the server wait while leases are refreshed?

Rules of this file:
    * The neighbour is a separate process that only sends PINGs. It shares no CPU time, no GIL and
      no connection with the process that holds the leases.
    * PINGs are due at a fixed interval. If a reply is late, the PINGs that become due meanwhile
      wait too, and their wait counts from when they were due. A client that sends the next PING
      only after a reply would miss most of a pause.
    * The holder refreshes its leases at their normal pace. Each round also has a measurement in
      which there are no leases.
"""

from __future__ import annotations

import time

from ..instruments.children import Child, Parent
from ..instruments.raw import RawConnection, packed
from ..results.findings import Case, Key
from ..results.percentiles import P99, Tail
from ..results.spread import Bound
from ..subjects.contenders import in_turns
from ..subjects.ours import Group, settle
from ..suite import Bench

NOBODY = "PING, nothing refreshed"
REFRESHED = "PING, leases refreshed"
MORE = "more, of the same round"

_TTL_S = 10.0
_QUICK, _FULL = (100_000,), (100_000,)
_WINDOW_QUICK_S, _WINDOW_FULL_S = 1.0, 10.0
_ROUNDS_QUICK = 2
_FULL_ROUNDS = 5
_EVERY_NS = 1_000_000
_NS = 1_000_000_000
_PING, _PONG = packed(b"PING"), b"+PONG\r\n"
_READY_S = 300.0


class Neighbours:
    """Percentiles of another client's PING."""

    name = "neighbours"
    question = "How long does another client wait while leases are refreshed?"

    def run(self, bench: Bench) -> None:
        """Send PINGs while leases are refreshed and while there are none, in every round."""
        scale, findings = bench.scale, bench.findings
        sizes = scale.sizes_or(quick=_QUICK, full=_FULL)
        rounds = scale.rounds or scale.pick(quick=_ROUNDS_QUICK, full=_FULL_ROUNDS)
        window_s = scale.pick(quick=_WINDOW_QUICK_S, full=_WINDOW_FULL_S)
        findings.notes.append(
            f"A PING is due every {_EVERY_NS / 1e6:g} ms. If it has to wait for the reply to"
            " another, that wait counts."
        )
        bench.progress.begin(len(sizes) * rounds * 2)
        server = bench.server
        with Child("the neighbour", ask, server.url) as neighbour:
            neighbour.receive(_READY_S)
            for size in sizes:
                case = Case(f"{size:,} leases, TTL {_TTL_S:g} s", size)
                label = f"another client's PING p99, ms more, {case.label}"
                findings.expect(label, Key(case, MORE, P99), Bound(at_most=2))
                with Child("the holder", hold, server.url, size) as holder:
                    for number in range(rounds):
                        _round(bench, case, number, (neighbour, holder), window_s)


def _round(
    bench: Bench, case: Case, number: int, children: tuple[Child, Child], window_s: float
) -> None:
    neighbour, holder = children
    tails: dict[str, Tail] = {}
    for subject in in_turns([NOBODY, REFRESHED], number):
        bench.progress.step(f"round {number + 1}, {subject}")
        if subject == REFRESHED:
            holder.send(bench.server.fresh_prefix())
            holder.receive(_READY_S)
        neighbour.send(window_s)
        tails[subject] = Tail.of(neighbour.receive(_READY_S))
        if subject == REFRESHED:
            holder.send("let go")
            holder.receive(_READY_S)
            bench.server.clear()
    # All values are added together, so that an interrupted round adds none.
    for subject, tail in tails.items():
        tail.add_to(bench.findings, case, subject)
    tails[REFRESHED].beyond(tails[NOBODY]).add_to(bench.findings, case, MORE)


def hold(parent: Parent, url: str, leases: int) -> None:
    """Lead `leases` elections under each prefix that the parent sends, until its next message."""
    while True:
        held = Group(url, parent.receive(), leases, ttl_s=_TTL_S)
        try:
            held.acquire()
            settle()
            parent.send("ready")
            parent.receive()
        finally:
            held.group.stop(0)
        parent.send("done")


def ask(parent: Parent, url: str) -> None:
    """Send PINGs for as many seconds as the parent says, and report the time of each in ns."""
    with RawConnection(url) as connection:
        parent.send("ready")
        while True:
            seconds = parent.receive()
            parent.send(asked(connection, seconds))


def asked(connection: RawConnection, seconds: float) -> list[int]:
    """Send PINGs when they are due, and return the time of each in nanoseconds."""
    left = 0

    def is_done(received: bytes) -> bool:
        nonlocal left
        left -= len(received)
        return left <= 0

    took_ns = []
    due_ns = now_ns = time.monotonic_ns()
    until_ns = due_ns + round(seconds * _NS)
    while due_ns < until_ns:
        if due_ns > now_ns:
            time.sleep((due_ns - now_ns) / _NS)
            # The server is not charged for the time by which this process slept too long.
            begun_ns = time.monotonic_ns()
        else:
            begun_ns = due_ns
        left = len(_PONG)
        connection.exchange(_PING, is_done)
        now_ns = time.monotonic_ns()
        took_ns.append(now_ns - begun_ns)
        due_ns += _EVERY_NS
    return took_ns
