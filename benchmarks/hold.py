"""Does one process hold thousands of leases through a busy minute, and at what cost?

One group holds all elections on one connection, a second group stands by on the same keys,
and a third process fills Redis with other work all the while. At the end: how many terms were
lost (none should be), the share of one core that the holding process took, how late its
refreshes were served, and how often the group standing by had to ask.

Rules of this file:
    * Holder, standby and neighbour are processes of their own: their CPU is their own.
    * The window is measured from when all is led until the time is up, by the processes
      themselves, with the CPU that the kernel charged to each.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import click
import redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from multielect import ElectionGroup
from multielect.embedded import EmbeddedServer

PREFIX = "benchmark-hold"
SPAWN = multiprocessing.get_context("spawn")


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _node(url: str, keys: int, ttl: float, role: str, pipe: Connection) -> None:
    """Run one group; report when it is ready, then what happened between 'begin' and 'end'."""
    demotions: list[str] = []
    errors: list[str] = []
    group = ElectionGroup(
        url,
        prefix=PREFIX,
        ttl=ttl,
        node_id=role,
        on_demoted=lambda term, reason: demotions.append(f"{term.key} {reason.name}"),
        on_error=lambda error: errors.append(str(error)),
    )
    group.add_many(f"election-{number}" for number in range(keys))
    with group:
        if role == "holder":
            while len(group.owned) < keys:
                time.sleep(0.01)
        else:
            while group.counters.checks < keys:
                time.sleep(0.01)
        pipe.send("ready")
        pipe.recv()
        began, cpu_s, before = time.monotonic(), _cpu_s(), group.counters
        pipe.recv()
        seconds, cpu_s, after = time.monotonic() - began, _cpu_s() - cpu_s, group.counters
        pipe.send(
            {
                "seconds": seconds,
                "cpu_s": cpu_s,
                "owned": len(group.owned),
                "demotions": len(demotions),
                "errors": errors[:5],
                "refreshes": after.refreshes - before.refreshes,
                "checks": after.checks - before.checks,
                "batches": after.batches - before.batches,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
        pipe.recv()


def _neighbour(url: str, pipe: Connection) -> None:
    """Fill Redis with other work: pipelines of writes and reads of a kilobyte, without pause."""
    value = b"x" * 1024
    done = 0
    with redis.Redis.from_url(url) as client:
        pipe.send("ready")
        while not pipe.poll():
            pipeline = client.pipeline(transaction=False)
            for number in range(100):
                pipeline.set(f"{PREFIX}-neighbour:{(done + number) % 10_000}", value)
                pipeline.get(f"{PREFIX}-neighbour:{number}")
            pipeline.execute()
            done += 200
    pipe.send({"commands": done})


def _measure(url: str, keys: int, ttl: float, seconds: float, console: Console) -> dict[str, Any]:
    roles: dict[str, tuple[BaseProcess, Connection]] = {}
    try:
        for role in ("holder", "standby", "neighbour"):
            ours, theirs = SPAWN.Pipe()
            arguments = (url, theirs) if role == "neighbour" else (url, keys, ttl, role, theirs)
            process: BaseProcess = SPAWN.Process(
                target=_neighbour if role == "neighbour" else _node, args=arguments, daemon=True
            )
            process.start()
            theirs.close()
            roles[role] = (process, ours)
            if not ours.poll(60):
                raise click.ClickException(f"the {role} was not ready after a minute")
            ours.recv()
            console.print(f"{role} is ready")
        for role in ("holder", "standby"):
            roles[role][1].send("begin")
        until = time.monotonic() + seconds
        with Progress(
            TextColumn("holding {task.fields[keys]:,} leases"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        ) as progress:
            task = progress.add_task("", total=seconds, keys=keys)
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(0.2, left))
                progress.update(task, completed=seconds - max(0.0, left))
        report: dict[str, Any] = {}
        for role in ("holder", "standby", "neighbour"):
            roles[role][1].send("end")
            report[role] = roles[role][1].recv()
        # The standby first, or it would take over what the holder lets go.
        for role in ("standby", "holder"):
            roles[role][1].send("stop")
            roles[role][0].join(10)
        return report
    finally:
        for process, _ in roles.values():
            if process.is_alive():
                process.terminate()
                process.join(5)


def _tell(report: dict[str, Any], keys: int, ttl: float, console: Console) -> bool:
    holder, standby = report["holder"], report["standby"]
    share = 100 * holder["cpu_s"] / holder["seconds"]
    checks = standby["checks"] / keys / (standby["seconds"] / ttl)
    report["holder_core_percent"] = share
    report["standby_checks_per_key_per_ttl"] = checks
    held = holder["owned"] == keys and holder["demotions"] == 0
    rate = report["neighbour"]["commands"] / holder["seconds"]
    table = Table(title=f"{keys:,} elections, TTL {ttl:g} s, {holder['seconds']:.0f} s")
    table.add_column("what")
    table.add_column("measured", justify="right")
    table.add_column("wanted", justify="right")
    table.add_row("demotions", str(holder["demotions"]), "0")
    table.add_row("led at the end", f"{holder['owned']:,}", f"{keys:,}")
    table.add_row("holder, % of one core", f"{share:.2f}", "< 5")
    table.add_row("standby, checks a key a TTL", f"{checks:.3f}", "< 1.5")
    table.add_row("standby, % of one core", f"{100 * standby['cpu_s'] / standby['seconds']:.2f}")
    table.add_row("holder, refreshes a second", f"{holder['refreshes'] / holder['seconds']:,.0f}")
    table.add_row("holder, scripts a second", f"{holder['batches'] / holder['seconds']:,.0f}")
    table.add_row("neighbour, commands a second", f"{rate:,.0f}")
    table.add_row("holder, peak memory, MiB", f"{holder['peak_mib']:.0f}")
    console.print(table)
    for error in holder["errors"] + standby["errors"]:
        console.print(f"reported: {error}")
    return bool(held and share < 5 and checks < 1.5)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--elections", default=10_000, show_default=True, type=click.IntRange(1))
@click.option("--ttl", default=3.0, show_default=True, type=click.FloatRange(0.1))
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(1))
@click.option("--url", help="A server's URL; a private one is started by default.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def main(
    elections: int, ttl: float, seconds: float, url: str | None, json_file: Path | None
) -> None:
    """Hold many leases for a while beside a busy neighbour, and count what it costs.

    Exits with 0 only if no term was lost, the holder took less than 5 % of one core, and the
    group standing by asked less than 1.5 times a key a TTL.
    """
    console = Console()
    if url is None:
        with EmbeddedServer() as server:
            report = _measure(server.url, elections, ttl, seconds, console)
    else:
        report = _measure(url, elections, ttl, seconds, console)
    good = _tell(report, elections, ttl, console)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
