"""What do a balanced fleet and a rolling restart of it cost?

`rolling` restarts every node of a balanced fleet, one after another, each by a drain. It reports
how many elections moved and how long each had no leader. `commands` counts the commands that Redis
gets from the same fleet with balance and without, in turns.

Rules of this file:
    * Every node is a separate process, or shares a process with a few others if there are many. All
      read the same clock, on which they record the beginning and the end of their terms.
    * The time without a leader is from the end of one term to the beginning of the next, as the
      nodes believed. If it is negative, two nodes led at once, and the run has failed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import click
import redis
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from multielect import DemotionReason, ElectionGroup, Term
from multielect.embedded import EmbeddedServer

PREFIX = "benchmark-fleet"
SPAWN = multiprocessing.get_context("spawn")
READY_S = 60.0


class Past(NamedTuple):
    """A term that has ended."""

    key: str
    epoch: int
    node: str
    began_ns: int
    ended_ns: int
    reason: str


class Plan(NamedTuple):
    """The settings of a node."""

    url: str
    prefix: str
    keys: int
    ttl: float
    balance: bool


class Recorder:
    """Records the terms of one node. Any thread may add to it."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._begun: dict[tuple[str, int], int] = {}
        self.past: list[Past] = []

    def elected(self, term: Term) -> None:
        """Note that a term began."""
        assert term.began_ns is not None
        self._begun[term.key, term.epoch] = term.began_ns

    def demoted(self, term: Term, reason: DemotionReason) -> None:
        """Note that a term ended."""
        assert term.ended_ns is not None
        began_ns = self._begun.pop((term.key, term.epoch))
        self.past.append(
            Past(term.key, term.epoch, self._node, began_ns, term.ended_ns, reason.name)
        )


def _nodes(plan: Plan, names: list[str], pipe: Connection) -> None:
    """Run some nodes, and carry out the orders from the pipe: report loads, drain, stop."""
    recorders = [Recorder(name) for name in names]
    groups = [
        ElectionGroup(
            plan.url,
            prefix=plan.prefix,
            ttl=plan.ttl,
            node_id=recorder_name,
            balance=plan.balance,
            on_elected=recorder.elected,
            on_demoted=recorder.demoted,
        )
        for recorder_name, recorder in zip(names, recorders, strict=True)
    ]
    for group in groups:
        group.add_many(f"partition-{number}" for number in range(plan.keys))
    for group in groups:
        group.start()
    pipe.send("started")
    while (word := pipe.recv()) != "stop":
        if word == "led":
            pipe.send([len(group.led) for group in groups])
        elif word == "drain":
            pipe.send(all(group.drain(10) for group in groups))
    stoppers = [threading.Thread(target=group.stop) for group in groups]
    for stopper in stoppers:
        stopper.start()
    for stopper in stoppers:
        stopper.join()
    pipe.send([past for recorder in recorders for past in recorder.past])


class Fleet:
    """Processes of nodes."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._running: dict[str, tuple[BaseProcess, Connection]] = {}
        self.past: list[Past] = []

    def start(self, *names: str) -> None:
        """Start a process with some nodes."""
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=_nodes, args=(self._plan, list(names), theirs), daemon=True)
        process.start()
        theirs.close()
        self._running[names[0]] = (process, ours)
        if not ours.poll(READY_S):
            raise click.ClickException(f"{names[0]} did not start within a minute")
        ours.recv()

    def ask(self, name: str, word: str) -> Any:  # noqa: ANN401
        """Return the reply of a process."""
        pipe = self._running[name][1]
        pipe.send(word)
        return pipe.recv()

    def restart(self, name: str) -> None:
        """Let a node drain and stop, and start it again."""
        if not self.ask(name, "drain"):
            raise click.ClickException(f"{name} could not drain in time")
        self.stop(name)
        self.start(name)

    def stop(self, name: str) -> None:
        """Stop a process, and take the terms that its nodes recorded."""
        self.past += self.ask(name, "stop")
        process, _ = self._running.pop(name)
        process.join(10)

    def loads(self) -> list[int]:
        """Return how many elections each node leads."""
        return [count for name in list(self._running) for count in self.ask(name, "led")]

    def settle(self, least: int) -> None:
        """Wait until all elections are led and every node leads at least `least`."""
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            loads = self.loads()
            if sum(loads) == self._plan.keys and min(loads) >= least:
                return
            time.sleep(0.05)
        raise click.ClickException(f"the fleet did not settle within a minute: {self.loads()}")

    def end(self) -> None:
        """End the processes that still run."""
        for process, _ in self._running.values():
            process.terminate()
            process.join(5)


@contextlib.contextmanager
def _server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with EmbeddedServer() as server:
        yield server.url


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "p50": ordered[last // 2],
        "p99": ordered[round(last * 0.99)],
        "max": ordered[-1],
    }


def _gaps(past: list[Past]) -> tuple[list[float], int, int]:
    """Return the ms without a leader of each move, the number of overlaps, and that of moves."""
    by_key: dict[str, list[Past]] = {}
    for term in past:
        by_key.setdefault(term.key, []).append(term)
    gaps, overlaps, moves = [], 0, 0
    for terms in by_key.values():
        terms.sort(key=lambda term: term.epoch)
        for before, after in itertools.pairwise(terms):
            gap_ns = after.began_ns - before.ended_ns
            overlaps += gap_ns < 0
            gaps.append(gap_ns / 1e6)
            moves += before.node != after.node
    return gaps, overlaps, moves


HELP = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=HELP)
def main() -> None:
    """Measure a fleet of nodes that share their elections out."""


@main.command(context_settings=HELP)
@click.option("--nodes", default=8, show_default=True, type=click.IntRange(2))
@click.option("--elections", default=4044, show_default=True, type=click.IntRange(1))
@click.option("--ttl", default=10.0, show_default=True, type=click.FloatRange(0.5))
@click.option("--url", help="A server's URL; a private one is started by default.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write figures here.")
def rolling(
    nodes: int, elections: int, ttl: float, url: str | None, json_file: Path | None
) -> None:
    """Restart every node of a fleet, one after another, each by a drain.

    Exits with 0 only if no two nodes led an election at once, no term was lost, and in 99 of 100
    moves the election had no leader for less than 100 ms.
    """
    console = Console()
    names = [f"node-{number}" for number in range(nodes)]
    least = elections // nodes
    with _server(url) as at, Progress(console=console, transient=True) as progress:
        fleet = Fleet(Plan(at, PREFIX, elections, ttl, balance=True))
        try:
            task = progress.add_task("starting", total=nodes)
            for name in names:
                fleet.start(name)
            fleet.settle(least)
            began_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            for name in names:
                progress.update(task, description=f"restarting {name}", advance=1)
                fleet.restart(name)
                fleet.settle(least)
            until_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            for name in names:
                fleet.stop(name)
        finally:
            fleet.end()
    # Terms that ended when all nodes stopped do not count.
    planned = [t for t in fleet.past if began_ns <= t.ended_ns <= until_ns]
    spans = [t for t in fleet.past if t.ended_ns >= began_ns and t.began_ns <= until_ns]
    gaps, overlaps, moves = _gaps(spans)
    lost = sum(term.reason not in {"REBALANCED", "DRAINED", "STOPPED"} for term in planned)
    found = _quantiles(gaps)
    needed = 2 * elections
    table = Table(title=f"rolling restart: {nodes} nodes, {elections:,} elections, TTL {ttl:g} s")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("wanted", justify="right")
    table.add_row("moves", f"{moves:,}", f"about {needed:,}")
    table.add_row("led by two nodes at once", str(overlaps), "0")
    table.add_row("terms lost", str(lost), "0")
    for name, value in found.items():
        wanted = "< 100" if name == "p99" else ""
        table.add_row(f"without a leader, ms, {name}", f"{value:.1f}", wanted)
    table.add_row("seconds in all", f"{(until_ns - began_ns) / 1e9:.1f}")
    console.print(table)
    if json_file is not None:
        figures = {"moves": moves, "overlaps": overlaps, "lost": lost, "gap_ms": found}
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(0 if overlaps == 0 and lost == 0 and found["p99"] < 100 else 1)


def _asked(client: redis.Redis) -> dict[str, float]:
    """Return the server's counts of commands and scripts."""
    stats: Any = client.info("all")
    scripts = sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))
    return {
        "scripts": scripts,
        "commands": stats["total_commands_processed"],
        "cpu_s": stats["used_cpu_user"] + stats["used_cpu_sys"],
    }


@main.command(context_settings=HELP)
@click.option("--nodes", default=20, show_default=True, type=click.IntRange(2))
@click.option("--elections", default=4044, show_default=True, type=click.IntRange(1))
@click.option("--ttl", default=3.0, show_default=True, type=click.FloatRange(0.5))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--url", help="A server's URL; a private one is started by default.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write figures here.")
def commands(
    *,
    nodes: int,
    elections: int,
    ttl: float,
    rounds: int,
    url: str | None,
    json_file: Path | None,
) -> None:
    """Count the commands of a fleet without changes, with balance and without, in turns."""
    console = Console()
    names = [f"node-{number}" for number in range(nodes)]
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with (
        _server(url) as at,
        redis.Redis.from_url(at) as client,
        Progress(console=console, transient=True) as progress,
    ):
        task = progress.add_task("", total=2 * rounds)
        for turn in range(2 * rounds):
            balance = turn % 2 == 0
            progress.update(task, description="with balance" if balance else "without")
            fleet = Fleet(Plan(at, f"{PREFIX}-{turn}", elections, ttl, balance))
            try:
                for first in range(0, nodes, 5):
                    fleet.start(*names[first : first + 5])
                fleet.settle(elections // nodes if balance else 0)
                time.sleep(2 * ttl)
                before, began = _asked(client), time.monotonic()
                time.sleep(4 * ttl)
                after, seconds = _asked(client), time.monotonic() - began
                found[balance].append({k: (after[k] - before[k]) / seconds for k in after})
                for first in range(0, nodes, 5):
                    fleet.stop(names[first])
            finally:
                fleet.end()
            progress.advance(task)
    medians = {
        balance: {k: statistics.median(run[k] for run in runs) for k in runs[0]}
        for balance, runs in found.items()
    }
    table = Table(title=f"{nodes} nodes, {elections:,} elections, TTL {ttl:g} s: load of Redis")
    table.add_column("a second, median")
    for head in ("with balance", "without", "ratio"):
        table.add_column(head, justify="right")
    rows = {"scripts": "scripts", "commands": "commands, also in scripts", "cpu_s": "CPU s"}
    for key, label in rows.items():
        with_it, without = medians[True][key], medians[False][key]
        digits = 3 if key == "cpu_s" else 0
        table.add_row(
            label, f"{with_it:,.{digits}f}", f"{without:,.{digits}f}", f"{with_it / without:.2f}"
        )
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps({"balance": found[True], "none": found[False]}) + "\n")


if __name__ == "__main__":
    main()
