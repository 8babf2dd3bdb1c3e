"""Are streams consumed once and in order, while nodes join, leave and are killed?

The events become Redis Streams, one for each partition, which are filled over some time. A balanced
fleet of processes consumes them. For each entry, the handler stages one entry in an output stream.
Nodes come and go all the time. In the first run they only join and leave cleanly. In the second run
some are also killed, and two are frozen for twice the TTL, and then commit too late. At the end the
output streams are compared with the events.

Rules of this file:
    * Each node is a separate process. It drains at SIGTERM, and ends at any moment at SIGKILL.
    * A handler writes each entry to a file before it returns. The file shows what was processed.
      The output streams show what was committed, and under which epoch.
    * This file only collects the facts. `tests.streams.judge` judges them.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import click
import redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from multielect import DemotionReason, Term
from multielect.cli.demo.events import read_events
from multielect.cli.demo.stream import EventStream
from multielect.embedded import EmbeddedServer
from multielect.fencing import Fence
from multielect.streams import Batch, StreamConsumer

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.streams.judge import Commit, Verdict, judge

PREFIX = "benchmark-streams"
LOST = ".lost"
SPAWN = multiprocessing.get_context("spawn")
MIN_NODES, MAX_NODES = 3, 5
FEED_AT_ONCE = 1_000
MAX_AFTER_S = 60.0
STOP_WITHIN_S = 30.0


@dataclass(frozen=True)
class Plan:
    """The settings of a node."""

    url: str
    keys: list[str]
    node: str
    ttl: float
    processed: str


def source(key: str) -> str:
    """Return the stream with the events of a partition."""
    return f"in:{key}"


def output(key: str) -> str:
    """Return the output stream of a partition."""
    return f"out:{key}"


class Watched(StreamConsumer):
    """A consumer that counts the terms that it lost.

    Attributes:
        lost: the number of terms that ended as EXPIRED or LOST.
    """

    lost = 0

    def _on_demoted(self, term: Term, reason: DemotionReason) -> None:
        # The group has one callback thread, so this needs no lock.
        self.lost += reason in (DemotionReason.EXPIRED, DemotionReason.LOST)
        super()._on_demoted(term, reason)


def run_node(plan: Plan, ready: Event) -> None:
    """Consume until SIGTERM."""
    # All threads inherit the mask, so the signal is pending until the main thread waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with open(plan.processed, "ab", buffering=0) as processed:  # noqa: PTH123  # unbuffered
        numbers = {key: number for number, key in enumerate(plan.keys)}

        def handle(batch: Batch[Fence]) -> None:
            lines = []
            for entry in batch.entries:
                number = entry.fields[b"n"]
                lines.append(b"%d %s\n" % (numbers[batch.key], number))
                fields: dict[str | bytes, Any] = {"n": number, "epoch": batch.epoch}
                batch.xadd(output(batch.key), fields | {"node": plan.node})
            processed.write(b"".join(lines))

        consumer = Watched(
            plan.url,
            prefix=PREFIX,
            partitions={key: source(key) for key in plan.keys},
            handler=handle,
            node_id=plan.node,
            ttl=plan.ttl,
            balance=True,
        )
        with consumer:
            ready.set()
            signal.sigwait({signal.SIGTERM})
    Path(plan.processed).with_suffix(LOST).write_text(str(consumer.lost))


def feed(url: str, stream: EventStream, seconds: float, ending: threading.Event) -> None:
    """Add all events to their streams, evenly over some time."""
    began = time.monotonic()
    given = [0] * len(stream.keys)
    total = len(stream)
    with redis.Redis.from_url(url) as client:
        for first in range(0, total, FEED_AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for position in range(first, min(first + FEED_AT_ONCE, total)):
                partition = stream.partition_of[position]
                number = given[partition]
                given[partition] += 1
                event = stream.event(stream.starts[partition] + number)
                pipeline.xadd(source(stream.keys[partition]), {"n": number, "event": event})
            pipeline.execute()
            due_s = seconds * (first + FEED_AT_ONCE) / total
            if ending.wait(max(0.0, due_s - (time.monotonic() - began))):
                return


class Fleet:
    """The nodes of one run, and the changes of the fleet."""

    def __init__(
        self, url: str, keys: list[str], ttl: float, folder: Path, verdict: Verdict
    ) -> None:
        self._url, self._keys, self._ttl, self._folder = url, keys, ttl, folder
        self._verdict = verdict
        self._numbers = itertools.count(1)
        self._ready: dict[str, Event] = {}
        self.nodes: dict[str, BaseProcess] = {}
        self.disturbed: set[str] = set()

    def join(self) -> str:
        """Start another node."""
        name = f"node-{next(self._numbers)}"
        plan = Plan(self._url, self._keys, name, self._ttl, str(self._folder / name))
        ready = SPAWN.Event()
        process: BaseProcess = SPAWN.Process(target=run_node, args=(plan, ready), daemon=True)
        process.start()
        self._ready[name] = ready
        self.nodes[name] = process
        return f"{name} joins"

    def leave(self, name: str) -> str:
        """Let a node drain and end."""
        process = self.nodes.pop(name)
        assert process.pid is not None
        self._ready[name].wait(STOP_WITHIN_S)
        os.kill(process.pid, signal.SIGTERM)
        process.join(STOP_WITHIN_S)
        if process.exitcode != 0:
            self._verdict.errors.append(f"{name} ended with {process.exitcode}")
            self._verdict.unclean_stops += 1
            process.kill()
            process.join()
        return f"{name} leaves"

    def kill(self, name: str) -> str:
        """End a node by SIGKILL."""
        process = self.nodes.pop(name)
        process.kill()
        process.join()
        self.disturbed.add(name)
        return f"{name} is killed"

    def freeze(self, name: str) -> str:
        """Freeze a node until other nodes lead its elections."""
        process = self.nodes[name]
        assert process.pid is not None
        self.disturbed.add(name)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(2 * self._ttl)
        os.kill(process.pid, signal.SIGCONT)
        self._verdict.freezes += 1
        return f"{name} was frozen"

    def change(self, number: int, rng: random.Random, *, kills: bool) -> str:
        """Do the next change of the fleet."""
        if len(self.nodes) <= MIN_NODES or (number % 2 and len(self.nodes) < MAX_NODES):
            self._verdict.joins += 1
            return self.join()
        name = rng.choice(sorted(self.nodes))
        if kills and (self._verdict.kills <= self._verdict.leaves):
            self._verdict.kills += 1
            return self.kill(name)
        self._verdict.leaves += 1
        return self.leave(name)

    def close(self) -> None:
        """Stop all remaining nodes cleanly, at the same time."""
        for name, process in self.nodes.items():
            assert process.pid is not None
            self._ready[name].wait(STOP_WITHIN_S)
            os.kill(process.pid, signal.SIGTERM)
        for name in list(self.nodes):
            self.leave(name)


def committed(client: redis.Redis, keys: list[str]) -> int:
    """Return how many entries are in the output streams."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.xlen(output(key))
    return sum(pipeline.execute())


def check(
    client: redis.Redis, stream: EventStream, folder: Path, fleet: Fleet, verdict: Verdict
) -> None:
    """Judge what was committed and processed."""
    committed = {}
    for key in stream.keys:
        found: Any = client.xrange(output(key))
        committed[key] = [
            Commit(int(fields[b"n"]), int(fields[b"epoch"]), fields[b"node"].decode())
            for _, fields in found
        ]
    processed = {}
    for file in folder.iterdir():
        if file.suffix == LOST:
            if file.stem not in fleet.disturbed:
                verdict.lost_terms += int(file.read_text())
            continue
        pairs = (line.split() for line in file.read_bytes().splitlines())
        processed[file.name] = [(stream.keys[int(key)], int(number)) for key, number in pairs]
    given = {key: stream.count(partition) for partition, key in enumerate(stream.keys)}
    verdict.found = judge(given, committed, processed, fleet.disturbed)


def consume(
    url: str, stream: EventStream, options: dict[str, Any], console: Console, *, kills: bool
) -> Verdict:
    """Do one run and judge it."""
    name = "with kills" if kills else "without a kill"
    verdict = Verdict(name, min_kills=int(kills))
    rng = random.Random(options["seed"])
    ending = threading.Event()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made, redis.Redis.from_url(url) as client:
        client.flushall()
        folder = Path(made)
        fleet = Fleet(url, stream.keys, options["ttl"], folder, verdict)
        feeder = threading.Thread(
            target=feed, args=(url, stream, options["seconds"], ending), daemon=True
        )
        changer = threading.Thread(
            target=_change,
            args=(fleet, rng, options, console, ending),
            kwargs={"kills": kills},
            daemon=True,
        )
        try:
            for _ in range(options["nodes"]):
                fleet.join()
            feeder.start()
            changer.start()
            _watch(client, stream, options["seconds"], changer, console, verdict=verdict)
        finally:
            ending.set()
            feeder.join()
            changer.join()
            fleet.close()
        verdict.seconds = time.monotonic() - began
        check(client, stream, folder, fleet, verdict)
    return verdict


def _change(
    fleet: Fleet,
    rng: random.Random,
    options: dict[str, Any],
    console: Console,
    ending: threading.Event,
    *,
    kills: bool,
) -> None:
    every_s = options["seconds"] / (options["changes"] + 1)
    began = time.monotonic()
    for number in range(options["changes"]):
        due_s = began + (number + 1) * every_s - time.monotonic()
        if ending.wait(max(0.0, due_s)):
            return
        said = fleet.change(number, rng, kills=kills)
        console.print(f"{time.monotonic() - began:6.1f} s  {said}")
        if kills and number in (options["changes"] // 3, 2 * options["changes"] // 3):
            said = fleet.freeze(rng.choice(sorted(fleet.nodes)))
            console.print(f"{time.monotonic() - began:6.1f} s  {said}")


def _watch(
    client: redis.Redis,
    stream: EventStream,
    seconds: float,
    changer: threading.Thread,
    console: Console,
    *,
    verdict: Verdict,
) -> None:
    until = time.monotonic() + seconds + MAX_AFTER_S
    with Progress(
        TextColumn(f"{verdict.name}: {{task.completed:,.0f}} of {{task.total:,.0f}} events"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=len(stream))
        while time.monotonic() < until:
            done = committed(client, stream.keys)
            progress.update(task, completed=done)
            if done >= len(stream) and not changer.is_alive():
                return
            time.sleep(0.5)
    verdict.errors.append("not all was consumed in time")


def _tell(verdicts: list[Verdict], stream: EventStream, console: Console) -> None:
    table = Table(title=f"{len(stream):,} events in {len(stream.keys):,} streams")
    table.add_column("what")
    for verdict in verdicts:
        table.add_column(verdict.name, justify="right")
    for name in ("joins", "leaves", "kills", "freezes", "unclean_stops", "lost_terms"):
        table.add_row(_words(name), *(f"{getattr(verdict, name):,}" for verdict in verdicts))
    for name in asdict(verdicts[0].found):
        table.add_row(_words(name), *(f"{getattr(verdict.found, name):,}" for verdict in verdicts))
    table.add_row("seconds", *(f"{verdict.seconds:.0f}" for verdict in verdicts))
    table.add_row("verdict", *("BAD" if verdict.wrong else "good" for verdict in verdicts))
    console.print(table)
    for verdict in verdicts:
        for wrong in verdict.wrong:
            console.print(f"{verdict.name}: {wrong}")


def _words(name: str) -> str:
    return name.replace("_", " ")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--events", type=click.Path(exists=True, path_type=Path), help="A CSV, or zip of it.")
@click.option("--nodes", default=4, show_default=True, type=click.IntRange(MIN_NODES))
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(1))
@click.option("--changes", default=12, show_default=True, help="Joins, leaves and kills in a run.")
@click.option("--ttl", default=3.0, show_default=True, type=click.FloatRange(0.1))
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def main(events: Path | None, json_file: Path | None, **options: Any) -> None:  # noqa: ANN401
    """Consume flights as streams, first without a kill and then with some.

    Exits with 0 only if no event was lost, committed twice, out of order or under an older epoch,
    none was processed twice except because of a kill or a freeze, every stop was clean, and nodes
    joined, left or were killed at least 10 times in each run.
    """
    console = Console()
    console.print("reading the events")
    stream = read_events(events)
    verdicts = []
    for kills in (False, True):
        with EmbeddedServer() as server:
            console.print("with kills" if kills else "without a kill")
            verdicts.append(consume(server.url, stream, options, console, kills=kills))
    _tell(verdicts, stream, console)
    if json_file is not None:
        figures = {
            "events": len(stream),
            "partitions": len(stream.keys),
            "runs": [asdict(verdict) | {"wrong": verdict.wrong} for verdict in verdicts],
        }
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(1 if any(verdict.wrong for verdict in verdicts) else 0)


if __name__ == "__main__":
    main()
