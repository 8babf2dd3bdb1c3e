"""What does a thread that keeps the GIL cost a pump without the GIL, and a pump in Python?

One process runs both pumps, with the same number of leases each. Its main thread keeps the GIL in
a single C call, several times. Meanwhile another process reads at the server when each lease was
last refreshed. It reports how late the latest refresh was, and how many leases ended. A refresh is
due a third of the TTL after the last one.

Rules of this file:
    * Lateness is measured at the server, from outside the process that keeps the GIL.
    * Both pumps run the same core. They differ only in the code that moves the bytes.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import click
import redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from multielect import ElectionGroup
from multielect.embedded import EmbeddedServer

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.python_pump import PythonPump

PREFIX = "benchmark-starve"
PUMPS = {"without the GIL": f"{PREFIX}-ours", "in Python": f"{PREFIX}-python"}
SPAWN = multiprocessing.get_context("spawn")
MAX_WAIT_S = 60.0
WATCHED = 8
"""How many leases of each pump are read. A few are enough, as a batch refreshes hundreds."""


@dataclass(frozen=True)
class Scenario:
    """The number of leases, their TTL, and for how long and how often the GIL is kept."""

    leases: int
    ttl: float
    seconds: float
    times: int


@dataclass(frozen=True)
class Outcome:
    """The results of one pump.

    Attributes:
        lost: the number of terms that ended.
        kept: the number of leases that were held all the time.
        worst_late_s: how long after it was due the latest refresh reached Redis.
    """

    lost: int
    kept: int
    worst_late_s: float


def _starving(url: str, scenario: Scenario, pipe: Connection) -> None:
    """Hold leases with both pumps and keep the GIL. Reports when that begins, and the losses."""
    keys = [f"election-{number}" for number in range(scenario.leases)]
    ours, python = PUMPS.values()
    group = ElectionGroup(url, prefix=ours, ttl=scenario.ttl)
    group.add_many(keys)
    with group, PythonPump(url, prefix=python, keys=keys, ttl_s=scenario.ttl) as pump:
        until = time.monotonic() + MAX_WAIT_S
        while len(group.led) < scenario.leases or pump.leading < scenario.leases:
            if time.monotonic() > until:
                raise TimeoutError("not all elections were won")
            time.sleep(0.01)
        pipe.send("ready")
        pipe.recv()
        for done in range(scenario.times):
            ctypes.PyDLL(None).usleep(round(scenario.seconds * 1_000_000))
            pipe.send(done + 1)
            # Both pumps have time to recover, so that each time can cost them terms again.
            time.sleep(scenario.ttl)
        pipe.send((group.counters.demoted, len(pump.demotions)))
        pipe.recv()


class _Watch:
    """Records when some leases were last refreshed at Redis, and the longest time in between."""

    def __init__(self, client: redis.Redis, prefix: str, ttl: float) -> None:
        self.worst_gap_s = 0.0
        self._client = client
        self._ttl = ttl
        self._refreshed_s: dict[bytes, float] = {}
        found = sorted(client.scan_iter(f"{prefix}:*:leader", count=10_000))
        self._keys = found[:: max(1, len(found) // WATCHED)]

    def look(self) -> None:
        """Read the remaining time of the leases, and compute their last refresh from it."""
        pipeline = self._client.pipeline(transaction=False)
        for key in self._keys:
            pipeline.pttl(key)
        remaining = pipeline.execute()
        now_s = time.monotonic()
        for key, left_ms in zip(self._keys, remaining, strict=True):
            last_s = self._refreshed_s.get(key, now_s)
            refreshed_s = last_s if left_ms < 0 else now_s + left_ms / 1000 - self._ttl
            self.worst_gap_s = max(self.worst_gap_s, refreshed_s - last_s, now_s - last_s)
            self._refreshed_s[key] = refreshed_s

    @property
    def worst_late_s(self) -> float:
        """How late the latest refresh was. It was due a third of the TTL after the one before."""
        return max(0.0, self.worst_gap_s - self._ttl / 3)


def _measure(url: str, scenario: Scenario, console: Console) -> dict[str, Outcome]:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=_starving, args=(url, scenario, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(2 * MAX_WAIT_S):
            raise click.ClickException("the process with both pumps did not get ready")
        ours.recv()
        with (
            redis.Redis.from_url(url) as client,
            Progress(
                TextColumn(f"keeping the GIL for {scenario.seconds:g} s, {scenario.times} times"),
                BarColumn(),
                TimeElapsedColumn(),
                console=console,
                disable=not console.is_terminal,
            ) as progress,
        ):
            watches = [_Watch(client, prefix, scenario.ttl) for prefix in PUMPS.values()]
            task = progress.add_task("", total=scenario.times)
            ours.send("begin")
            report: object = None
            while not isinstance(report, tuple):
                for watch in watches:
                    watch.look()
                if ours.poll(0.002):
                    report = ours.recv()
                    if isinstance(report, int):
                        progress.update(task, completed=report)
        ours.send("stop")
        process.join(10)
        return {
            name: Outcome(lost, max(0, scenario.leases - lost), watch.worst_late_s)
            for name, lost, watch in zip(PUMPS, report, watches, strict=True)
        }
    except EOFError:
        raise click.ClickException("the process with both pumps ended early") from None
    finally:
        if process.is_alive():
            process.terminate()
            process.join(5)


def _tell(outcomes: dict[str, Outcome], scenario: Scenario, console: Console) -> bool:
    ttl = scenario.ttl
    table = Table(
        title=f"{scenario.leases:,} leases each, TTL {ttl:g} s, refreshed every {ttl / 3:.2f} s"
    )
    table.add_column("pump")
    table.add_column("terms lost", justify="right")
    table.add_column("kept throughout", justify="right")
    table.add_column("worst refresh, late by", justify="right")
    for name, outcome in outcomes.items():
        late = f"{outcome.worst_late_s * 1000:,.0f} ms"
        table.add_row(name, f"{outcome.lost:,}", f"{outcome.kept:,}", late)
    console.print(table)
    return next(iter(outcomes.values())).lost == 0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--leases", default=1000, show_default=True, type=click.IntRange(1))
@click.option("--ttl", default=2.0, show_default=True, type=click.FloatRange(0.1))
@click.option("--seconds", default=6.0, show_default=True, type=click.FloatRange(0.1))
@click.option("--times", default=3, show_default=True, type=click.IntRange(1))
@click.option("--url", help="A server's URL; a private one is started by default.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def main(url: str | None, json_file: Path | None, **options: float) -> None:
    """Keep the GIL in single C calls, in a process with a pump that needs it and one that does not.

    Exits with 0 only if the pump without the GIL lost no term.
    """
    console = Console()
    scenario = Scenario(**options)  # type: ignore[arg-type]  # click has seen to the types
    if url is None:
        with EmbeddedServer() as server:
            outcomes = _measure(server.url, scenario, console)
    else:
        outcomes = _measure(url, scenario, console)
    good = _tell(outcomes, scenario, console)
    if json_file is not None:
        report = {name: asdict(outcome) for name, outcome in outcomes.items()}
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
