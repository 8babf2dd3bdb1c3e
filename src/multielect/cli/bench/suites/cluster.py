"""What do leases on a cluster cost, compared with one server and with other ways?

Rules of this file:
    * The cluster and the single server are private, run the same program, and are reached over the
      loopback. So they differ in nothing but what is measured.
    * *At pace*: two processes hold as many leases each, one on the cluster and one on the single
      server, both with a real TTL. Both are measured in the same window, in which each refreshes
      its leases as it always does.
    * *At once*: all leases are refreshed on command, by each contender in turns. Other ways have
      no pace of their own.
    * The CPU time of the primaries is added up.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import redis

from ...cluster import PRIMARIES, PrivateCluster, start_on_loopback
from ..instruments.children import Child, Parent
from ..instruments.servers import cpu_s_of
from ..results.findings import Case, Comparison, Key, Quantity
from ..results.spread import Bound
from ..subjects import ours
from ..subjects.contenders import Contender, in_turns, measure, passes_of
from ..subjects.peers import PeerContender, Peers, load
from ..suite import Bench, BenchError

WALL = Quantity("wall", "us a lease")
SERVER = Quantity("server CPU", "us a lease")
CLIENT = Quantity("client CPU", "us a lease")

ON_CLUSTER = f"{ours.NAME}, a cluster"
ON_ONE = f"{ours.NAME}, one server"

SAMPLE_QUICK, SAMPLE_FULL = 100, 2_000

_PREFIX = "multielect-bench"
_READY_S = 300.0
_REPLY_S = 60.0
_US = 1e6


@dataclass(frozen=True)
class Place:
    """Where leases are held.

    Attributes:
        name: the name of multielect there.
        url: its URL.
        node_url: the URL of one of its servers, for clients that take no other.
        servers: a client of each server, which reports its CPU time.
    """

    name: str
    url: str
    node_url: str
    servers: list[redis.Redis]

    def cpu_s(self) -> float:
        """Return the CPU time that its servers have used since they were started, in seconds."""
        return sum(map(cpu_s_of, self.servers))


class Cluster:
    """CPU time of refreshing a lease on three primaries and on one server."""

    name = "cluster"
    question = f"What does a lease cost on {PRIMARIES} primaries, against one server?"

    def run(self, bench: Bench) -> None:
        """Measure at pace, and then at once, at every size."""
        sizes = bench.scale.sizes_or(quick=(2_000,), full=(100_000,))
        rounds = bench.scale.pick(quick=bench.scale.rounds or 2, full=bench.scale.round_count())
        ttl_s = bench.scale.pick(quick=1.5, full=5.0)
        peers = load(bench.peers / "cluster" if bench.peers is not None else None)
        bench.findings.not_measured |= peers.missing
        bench.progress.begin(rounds * len(sizes) * 2)
        with ExitStack() as stack:
            bench.progress.say(f"starting a cluster of {PRIMARIES} primaries")
            places = [_cluster(stack), _one_server(stack)]
            for size in sizes:
                _at_pace(bench, places, size, rounds, ttl_s)
                _at_once(bench, places, size, rounds, peers)
        bench.findings.notes.append(
            "All servers were private and reached over TCP, whatever --url says. At pace both"
            " processes were measured in the same window; at once in turns."
        )


def _cluster(stack: ExitStack) -> Place:
    started = stack.enter_context(PrivateCluster())
    clients = [stack.enter_context(redis.Redis.from_url(url)) for url in started.urls]
    return Place(ON_CLUSTER, started.url, started.urls[0], clients)


def _one_server(stack: ExitStack) -> Place:
    url = start_on_loopback(stack)
    return Place(ON_ONE, url, url, [stack.enter_context(redis.Redis.from_url(url))])


# ---- at pace


def _at_pace(bench: Bench, places: list[Place], size: int, rounds: int, ttl_s: float) -> None:
    case = Case(f"{size:,} leases at pace, TTL {ttl_s:g} s", size)
    add = bench.findings.add
    _bound(bench, case)
    bench.progress.say(f"taking {size:,} leases, twice")
    with ExitStack() as stack:
        holders = [
            stack.enter_context(Child(place.name, hold, place.url, _PREFIX, size, ttl_s))
            for place in places
        ]
        for holder in holders:
            holder.receive(_READY_S)
        for number in range(rounds):
            bench.progress.step(f"round {number + 1} of {rounds}, {case.label}")
            before = [_look(place, holder) for place, holder in zip(places, holders, strict=True)]
            # Every lease is refreshed once in that time.
            time.sleep(ttl_s / 3)
            for place, holder, was in zip(places, holders, before, strict=True):
                now = _look(place, holder)
                refreshed = now["refreshes"] - was["refreshes"]
                if now["demoted"] or not refreshed:
                    raise BenchError(f"{place.name} lost leases: {now['errors']}")
                for quantity, name in ((SERVER, "server_s"), (CLIENT, "client_s")):
                    add(case, place.name, quantity, (now[name] - was[name]) / refreshed * _US)


def _bound(bench: Bench, case: Case) -> None:
    for quantity, most in ((SERVER, 1.3), (CLIENT, 1.5)):
        bench.findings.compare(
            Comparison(
                f"{quantity.name}, a cluster against one server, {case.label}",
                Key(case, ON_CLUSTER, quantity),
                Key(case, ON_ONE, quantity),
                Bound(at_most=most),
            )
        )


def _look(place: Place, holder: Child) -> dict[str, Any]:
    holder.send("look")
    seen: dict[str, Any] = holder.receive(_REPLY_S)
    return seen | {"server_s": place.cpu_s()}


def hold(parent: Parent, url: str, prefix: str, leases: int, ttl_s: float) -> None:
    """Lead all elections, and tell the cost so far whenever the parent asks."""
    held = ours.Group(url, prefix, leases, ttl_s=ttl_s)
    try:
        held.acquire()
        ours.settle()
        before = held.group.counters
        parent.send("ready")
        while parent.receive():
            now = held.group.counters
            parent.send(
                {
                    "client_s": time.process_time(),
                    "refreshes": now.refreshes,
                    "demoted": now.demoted - before.demoted,
                    "errors": held.errors[:5],
                }
            )
    finally:
        held.group.stop(0)


# ---- at once


def _at_once(bench: Bench, places: list[Place], size: int, rounds: int, peers: Peers) -> None:
    case = Case(f"{size:,} leases at once", size)
    add = bench.findings.add
    with ExitStack() as stack:
        contenders = _contenders(bench, places, size, peers, stack)
        for _, contender in contenders[1:]:
            bench.findings.compare(
                Comparison(
                    f"wall, {contender.name} against {ON_CLUSTER}, {case.label}",
                    Key(case, contender.name, WALL),
                    Key(case, ON_CLUSTER, WALL),
                    column="wall, times a cluster",
                )
            )
        passes = [passes_of(contender) for _, contender in contenders]
        for number in range(rounds):
            bench.progress.step(f"round {number + 1} of {rounds}, {case.label}")
            for (place, contender), count in in_turns(
                list(zip(contenders, passes, strict=True)), number
            ):
                costs = measure(contender, count, place)
                add(case, contender.name, WALL, costs.wall_s * _US)
                add(case, contender.name, SERVER, costs.server_s * _US)
                add(case, contender.name, CLIENT, costs.client_s * _US)


def _contenders(
    bench: Bench, places: list[Place], size: int, peers: Peers, stack: ExitStack
) -> list[tuple[Place, Contender]]:
    """Return all contenders, multielect on the cluster first. Each has taken its leases."""
    prefix = f"{_PREFIX}-once-{size}"
    found: list[tuple[Place, Contender]] = []
    for place in places:
        contender = ours.Ours(stack.enter_context(ours.led(place.url, prefix, size)))
        contender.name = place.name
        found.append((place, contender))
    cluster = places[0]
    sample = min(size, bench.scale.pick(quick=SAMPLE_QUICK, full=SAMPLE_FULL))
    for kind in peers.kinds:
        peer = PeerContender(kind())
        stack.callback(peer.close)
        bench.findings.versions[kind.library] = peer.version
        leases = sample if kind.one_by_one else size
        bench.progress.say(f"{kind.name} takes {leases:,} leases")
        try:
            peer.prepare(cluster.node_url, f"{prefix}-{kind.__module__}", leases, ours.TTL_S)
        except BenchError as error:
            bench.findings.not_measured[peer.name] = str(error)
        else:
            found.append((cluster, peer))
    return found
