"""What does it cost to ask an election whether it is led: `is_leader`, `epoch`, `remaining`?

Rules of this file:
    * The elections are led all the while, on a private server: a `False` is quicker.
    * What is measured is many reads in a loop of the interpreter's, the loop included. The
      bound on `is_leader` is the design's: under 100 ns.
"""

from __future__ import annotations

import timeit
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from multielect import Election, ElectionGroup
from multielect.embedded import EmbeddedServer

READS = 100_000
NAMES = ["is_leader", "epoch", "remaining", "heartbeat()", "is_removed", "leader_id"]


@pytest.fixture(scope="module")
def election() -> Iterator[Election]:
    """An election that is led, among a thousand."""
    with EmbeddedServer() as server:
        group = ElectionGroup(server.url, prefix="benchmark-handles", ttl=10)
        group.add_many(f"election-{number}" for number in range(1000))
        with group:
            election = group["election-500"]
            assert election.wait(20)
            yield election


def reads(name: str, election: Election) -> timeit.Timer:
    """Return what reads so and so often in a loop."""
    return timeit.Timer(f"election.{name}", globals={"election": election})


@pytest.mark.parametrize("name", NAMES)
def test_read(benchmark: BenchmarkFixture, election: Election, name: str) -> None:
    """Ten rounds of a hundred thousand reads; the figure of one, in ns, is in the extra info."""
    timer = reads(name, election)
    benchmark.pedantic(timer.timeit, args=(READS,), rounds=10)  # type: ignore[no-untyped-call]
    benchmark.extra_info["ns a read"] = round(min(timer.repeat(5, READS)) / READS * 1e9, 1)
    assert election.is_leader


def test_is_leader_costs_less_than_100_ns(election: Election) -> None:
    """The best of some rounds: what the machine does besides is not the read's cost."""
    assert election.is_leader
    assert min(reads("is_leader", election).repeat(20, READS)) / READS * 1e9 < 100
