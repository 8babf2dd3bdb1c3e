"""What does it cost to refresh a lease, compared with the server's limit and other libraries?

Rules of this file:
    * All contenders of all sizes exist at the same time, and each round measures each of them. So
      the ratio of the largest to the smallest size is a ratio of one round, like all others.
    * A pipeline has as many leases as the group that it is compared with, but at most
      `MAX_PIPELINED`. A contender that refreshes one lease after another is measured once a round,
      on a sample. Its cost counts for all sizes.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from ..results.findings import Case, Comparison, Findings, Key, Quantity
from ..results.spread import Bound
from ..subjects import floor, ours
from ..subjects.contenders import Contender, in_turns, measure, passes_of
from ..subjects.peers import Peer, PeerContender, load
from ..suite import Bench, BenchError

WALL = Quantity("wall", "us a lease")
SERVER = Quantity("server CPU", "us a lease")
CLIENT = Quantity("client CPU", "us a lease")

MAX_PIPELINED = 100_000
SAMPLE_QUICK, SAMPLE_FULL = 200, 2_000

_US = 1e6

# The names that the adapters in benchmarks/peers have.
_PIPELINE = "redis-py pipeline"
_LOCK = "redis-py Lock"


@dataclass(frozen=True)
class Entrant:
    """A contender, and the cases for which its cost counts."""

    cases: tuple[Case, ...]
    contender: Contender
    passes: int


class Refresh:
    """Wall, server CPU and client CPU of refreshing a lease."""

    name = "refresh"
    question = "What does it cost to refresh a lease?"

    def run(self, bench: Bench) -> None:
        """Measure all contenders, at every size, in every round."""
        cases = tuple(
            Case.of(size)
            for size in bench.scale.sizes_or(
                quick=(1_000, 10_000), full=(1_000, 10_000, 100_000, 1_000_000)
            )
        )
        with ExitStack() as stack:
            entrants = _entrants(bench, cases, stack)
            _compare(bench.findings, cases, entrants)
            rounds = bench.scale.round_count()
            bench.progress.begin(rounds * len(entrants))
            for number in range(rounds):
                for entrant in in_turns(entrants, number):
                    label = f"round {number + 1} of {rounds}, {entrant.contender.name}"
                    bench.progress.step(label)
                    costs = measure(entrant.contender, entrant.passes, bench.server)
                    for case in entrant.cases:
                        add = bench.findings.add
                        add(case, entrant.contender.name, WALL, costs.wall_s * _US)
                        add(case, entrant.contender.name, SERVER, costs.server_s * _US)
                        add(case, entrant.contender.name, CLIENT, costs.client_s * _US)


def _entrants(bench: Bench, cases: tuple[Case, ...], stack: ExitStack) -> list[Entrant]:
    """Return all contenders. Each of them has taken its leases."""
    server, findings = bench.server, bench.findings
    peers = load(bench.peers)
    findings.not_measured |= peers.missing
    found = []

    def enter(contender: Contender, *those: Case) -> None:
        found.append(Entrant(those, contender, passes_of(contender)))

    def enter_peer(kind: type[Peer], leases: int, *those: Case) -> None:
        bench.progress.say(f"{kind.name} takes {leases:,} leases")
        peer = PeerContender(kind())
        stack.callback(peer.close)
        findings.versions[kind.library] = peer.version
        try:
            peer.prepare(server.url, server.fresh_prefix(), leases, ours.TTL_S)
            enter(peer, *those)
        except BenchError as error:
            findings.not_measured[peer.name] = str(error)

    for case in cases:
        bench.progress.say(f"taking {case.label}")
        prefix = server.fresh_prefix()
        enter(ours.Ours(stack.enter_context(ours.led(server.url, prefix, case.size))), case)
        limit = floor.Floor(server.url, server.fresh_prefix(), case.size)
        stack.callback(limit.close)
        enter(limit, case)
        for kind in peers.kinds:
            if not kind.one_by_one:
                enter_peer(kind, min(case.size, MAX_PIPELINED), case)
    sample = bench.scale.pick(quick=SAMPLE_QUICK, full=SAMPLE_FULL)
    for kind in peers.kinds:
        if kind.one_by_one:
            enter_peer(kind, sample, *cases)
    if peers.kinds:
        findings.notes.append(
            f"Libraries that refresh one lease after another were measured on {sample:,} leases, "
            f"once a round, and pipelines on at most {MAX_PIPELINED:,}."
        )
    return found


def _compare(findings: Findings, cases: tuple[Case, ...], entrants: list[Entrant]) -> None:
    """Declare the comparisons and the bounds."""

    def against(over: Key, under: Key, label: str, bound: Bound | None) -> None:
        findings.compare(Comparison(label, over, under, bound))

    for case in cases:
        own = {quantity: Key(case, ours.NAME, quantity) for quantity in (WALL, CLIENT)}
        for entrant in entrants:
            name = entrant.contender.name
            if case in entrant.cases and name != ours.NAME:
                findings.compare(
                    Comparison(
                        f"wall, {name} against {ours.NAME}, {case.label}",
                        Key(case, name, WALL),
                        own[WALL],
                        column="wall, times ours",
                    )
                )
        limit = Key(case, floor.NAME, WALL)
        against(own[WALL], limit, f"wall against PEXPIRE, {case.label}", Bound(at_most=1.5))
        for name, least in ((_PIPELINE, 6), (_LOCK, 100)):
            label = f"wall, times faster than {name}, {case.label}"
            against(Key(case, name, WALL), own[WALL], label, Bound(at_least=least))
        findings.expect(f"client CPU, us a lease, {case.label}", own[CLIENT], Bound(at_most=0.1))
        label = f"client CPU, times less than {_PIPELINE}, {case.label}"
        against(Key(case, _PIPELINE, CLIENT), own[CLIENT], label, Bound(at_least=50))
    if len(cases) > 1:
        small, large = min(cases, key=_size), max(cases, key=_size)
        against(
            Key(large, ours.NAME, WALL),
            Key(small, ours.NAME, WALL),
            f"wall at {large.label} against {small.label}",
            Bound(at_most=1.3),
        )


def _size(case: Case) -> int:
    return case.size
