"""A long run of many elections under random faults, which also measures memory and descriptors.

    python -m tests.faults.soak --minutes 10 --elections 10000 --nodes 4

Rules of this file:
    * No fault ends the processes of half of the nodes. These are measured.
    * A node is flat if the median of the last third of its samples exceeds that of the second third
      by at most `MAX_GROWTH` or `MIN_BYTES`, and that of descriptors by at most
      `SPARE_DESCRIPTORS`. The first third does not count, because a process still grows then.
    * Memory is the process's private memory, without the mapped journals.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .checker import Findings
from .fleet import Fleet, FleetPlan, Node
from .registry import choose
from .report import Recorder, Report
from .round import run_round

SAMPLE_S = 0.5
MAX_GROWTH = 0.05
MIN_BYTES = 4 << 20
SPARE_DESCRIPTORS = 4
MAX_AT_ONCE = 2
RECORDS_AN_ELECTION = 1_000


@dataclass
class Usage:
    """The samples of one process.

    Attributes:
        node: the name of its node.
        memory_bytes: its private memory.
        descriptors: the number of its open files and sockets.
    """

    node: str
    memory_bytes: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def grown_bytes(self) -> int:
        """Return by how much the last third's median is above the second's."""
        second, last = _thirds(self.memory_bytes)
        return round(statistics.median(last) - statistics.median(second))

    def more_descriptors(self) -> int:
        """Return by how much the last third's median is above the second's."""
        second, last = _thirds(self.descriptors)
        return round(statistics.median(last) - statistics.median(second))

    @property
    def is_flat(self) -> bool:
        """Whether neither grew."""
        second, _ = _thirds(self.memory_bytes)
        allowed = max(MIN_BYTES, MAX_GROWTH * statistics.median(second))
        return self.grown_bytes() <= allowed and self.more_descriptors() <= SPARE_DESCRIPTORS


@dataclass
class SoakReport:
    """The results of a soak.

    Attributes:
        minutes: how long it lasted.
        elections: the number of elections.
        rounds: the results of the rounds of faults.
        usage: the samples of the nodes that ran from the start to the end.
    """

    minutes: float
    elections: int
    rounds: Report
    usage: list[Usage]

    @property
    def ok(self) -> bool:
        """Whether everything held and nothing grew."""
        return self.rounds.ok and all(usage.is_flat for usage in self.usage)


def soak(
    minutes: float,
    elections: int,
    nodes: int,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
    *,
    ttl_s: float = 5.0,
    balance: bool = True,
    binary: str | None = None,
    keep: Path | None = None,
) -> SoakReport:
    """Run rounds with one or two random faults each. A violation ends the soak.

    Args:
        minutes: how long the soak lasts. The last round may take longer.
        elections: the number of elections. Every node stands for all of them.
        nodes: the number of nodes, each a process; at least two.
        seed: the seed of all choices.
        progress: called with a line about each round.
        ttl_s: the TTL of the leases, in seconds.
        balance: whether the nodes share the elections out among themselves.
        binary: the server's program.
        keep: the folder for evidence of violations; a new folder by default.
    """
    plan = FleetPlan(
        nodes=nodes,
        elections=elections,
        ttl_s=ttl_s,
        balance=balance,
        binary=binary,
        records=RECORDS_AN_ELECTION * elections + 100_000,
        writes_soon=False,
    )
    recorder = Recorder(seed, keep)
    usage: list[Usage] = []
    names = ["the start"]
    number = 0
    replay = f"python -m tests.faults.soak --seed {seed}"
    with tempfile.TemporaryDirectory(prefix="multielect-soak-") as folder:
        fleet = Fleet(plan, Path(folder) / "fleet")
        try:
            with fleet:
                spared = fleet.places[: max(1, nodes // 2)]
                usage = [Usage(node.name) for node in spared]
                end_ns = fleet.now_ns() + round(minutes * 60e9)
                with _watched(spared, usage):
                    while fleet.now_ns() < end_ns and recorder.report.ok:
                        chance = random.Random(f"{seed}/{number}")
                        count = chance.randint(1, MAX_AT_ONCE)
                        faults = choose(chance, nodes, count, spared=len(spared))
                        names = [fault.name for fault in faults]
                        progress(f"round {number}: {', '.join(names)}")
                        result = run_round(fleet, faults, chance, spared=spared)
                        recorder.add(fleet, number, result, replay)
                        number += 1
                names = ["the end"]
                findings = fleet.stop()
                if findings.violations:
                    recorder.keep(fleet, number, names, findings, replay)
        # Any error is reported, with the samples until then.
        except Exception as error:  # noqa: BLE001
            recorder.keep(fleet, number, names, Findings(), replay, went_wrong=repr(error))
    return SoakReport(minutes, elections, recorder.finished(), usage)


@contextmanager
def _watched(nodes: Sequence[Node], usage: Sequence[Usage]) -> Iterator[None]:
    ended = threading.Event()
    watching = threading.Thread(target=_watch, args=(nodes, usage, ended), name="usage")
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


def _watch(nodes: Sequence[Node], usage: Sequence[Usage], ended: threading.Event) -> None:
    while not ended.wait(SAMPLE_S):
        for node, used in zip(nodes, usage, strict=True):
            status = Path(f"/proc/{node.pid}/status").read_text()
            (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
            used.memory_bytes.append(int(line.split()[1]) * 1024)
            used.descriptors.append(len(list(Path(f"/proc/{node.pid}/fd").iterdir())))


def _thirds(samples: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    third = len(samples) // 3
    return samples[third : 2 * third], samples[-third:]


def main() -> int:
    """Run a soak and print the report. Returns 1 if an invariant was broken or a node grew."""
    parser = argparse.ArgumentParser(description="A long run under random faults.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--elections", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ttl", type=float, default=5.0)
    parser.add_argument("--alone", action="store_true", help="nodes that do not balance")
    wanted = parser.parse_args()
    report = soak(
        wanted.minutes,
        wanted.elections,
        wanted.nodes,
        wanted.seed,
        lambda line: print(line, flush=True),  # noqa: T201
        ttl_s=wanted.ttl,
        balance=not wanted.alone,
    )
    print(json.dumps(asdict(report), indent=1))  # noqa: T201
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
