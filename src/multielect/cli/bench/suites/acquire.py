"""How long does it take to lead all elections, from the start of a group?

Rules of this file:
    * Each round uses a new group and elections without keys in Redis. The time includes the start
      of the group, its connection and its first script.
    * The bench compares it with the time that the server needs for the same scripts, for as many
      other free elections. The server reports that time. No client can be faster.
"""

from __future__ import annotations

import time

from multielect._protocol.keys import KeyLayout, group_layout
from multielect._protocol.scripts import WITH_FLAGS, WITHOUT_FLAGS

from ..instruments.raw import RawConnection, packed
from ..instruments.servers import Server
from ..results.findings import Case, Comparison, Key, Quantity
from ..results.spread import Bound
from ..subjects import ours
from ..subjects.contenders import in_turns
from ..suite import Bench, BenchError

WALL = Quantity("wall", "us an election")
SERVER = Quantity("server CPU", "us an election")
CLIENT = Quantity("client CPU", "us an election")
SCRIPTS = "its scripts, in the server"

_US = 1e6
_BATCH = 125
_HOLDER = b"node-0123456789ab/0123456789abcdef"
# Each reply has a line for each outcome, and these: the array, the server's time, the rivals.
_LINES_BESIDE = 3
_QUICK, _FULL = (1_000, 10_000), (10_000, 100_000, 1_000_000)
_FULL_ROUNDS = 5


class Acquire:
    """Wall and CPU of leading elections that are free."""

    name = "acquire"
    question = "How long does a new group need until it leads all its elections?"

    def run(self, bench: Bench) -> None:
        """Acquire all elections, at every size, in every round."""
        cases = [
            Case.of(size, "elections") for size in bench.scale.sizes_or(quick=_QUICK, full=_FULL)
        ]
        for case in cases:
            bench.findings.compare(
                Comparison(
                    f"wall against the server's own time, {case.label}",
                    Key(case, ours.NAME, WALL),
                    Key(case, SCRIPTS, WALL),
                    Bound(at_most=1.5),
                )
            )
        rounds = bench.scale.rounds or bench.scale.pick(quick=3, full=_FULL_ROUNDS)
        bench.progress.begin(rounds * len(cases))
        for number in range(rounds):
            for case in in_turns(cases, number):
                bench.progress.step(f"round {number + 1} of {rounds}, {case.label}")
                measures = [_measure_ours, _measure_scripts]
                for measure in in_turns(measures, number):
                    measure(bench, case)
                    bench.server.clear()


def _measure_ours(bench: Bench, case: Case) -> None:
    server = bench.server
    group = ours.Group(server.url, server.fresh_prefix(), case.size)
    before_s = server.cpu_s()
    try:
        cost = group.acquire()
        server_s = server.cpu_s() - before_s
        # Callbacks may run after the election. Their CPU time counts too.
        led_s = time.process_time()
        ours.settle()
        client_s = cost.client_s + time.process_time() - led_s
    finally:
        group.group.stop(0)
    for quantity, seconds in ((WALL, cost.wall_s), (SERVER, server_s), (CLIENT, client_s)):
        bench.findings.add(case, ours.NAME, quantity, seconds / case.size * _US)


def _measure_scripts(bench: Bench, case: Case) -> None:
    server = bench.server
    layout = group_layout(server.fresh_prefix())
    script = (WITH_FLAGS if server.knows_script_flags else WITHOUT_FLAGS).acquire
    server.client.script_load(script.body)
    batches = [
        range(first, min(first + _BATCH, case.size)) for first in range(0, case.size, _BATCH)
    ]
    data = b"".join(_batch(layout, script.sha, numbers) for numbers in batches)
    lines = case.size + _LINES_BESIDE * len(batches)

    def is_done(received: bytes) -> bool:
        nonlocal lines
        if b"-" in received:
            raise BenchError(f"an acquire was refused: {received!r:.200}")
        lines -= received.count(b"\n")
        return lines <= 0

    before_s, before_us = server.cpu_s(), _script_us(server)
    with RawConnection(server.url) as connection:
        connection.exchange(data, is_done)
    script_us, server_s = _script_us(server) - before_us, server.cpu_s() - before_s
    bench.findings.add(case, SCRIPTS, WALL, script_us / case.size)
    bench.findings.add(case, SCRIPTS, SERVER, server_s / case.size * _US)


def _batch(layout: KeyLayout, sha: bytes, numbers: range) -> bytes:
    keys = [ours.KEY.format(number).encode() for number in numbers]
    pairs = [name for key in keys for name in (layout.leader_key(key), layout.epoch_key(key))]
    ttl_ms = b"%d" % round(ours.TTL_S * 1000)
    return packed(b"EVALSHA", sha, b"%d" % len(pairs), *pairs, _HOLDER, ttl_ms, b"time", b"")


def _script_us(server: Server) -> float:
    return float(server.commands().get("evalsha", {}).get("usec", 0))
