"""The command `multielect demo`: its options, its errors and its exit status.

Rules of this file:
    * A mistake of the user is reported in one line, before anything is started, with status 2.
    * Status 0 means that every check held, 1 that one did not or that the run failed, 130 that the
      run was interrupted. No process, file or key is left behind in any case.
"""

from __future__ import annotations

import json
import secrets
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from multielect import MultielectError
from multielect.embedded import EmbeddedServer

from ..client import FAILURES, Client
from ..cluster import PrivateCluster
from ..ending import INTERRUPTED, interruptible
from ..server import check_server, described, remove_keys, server_option, unusable
from .checkpoint import connect
from .conductor import Conductor
from .events import EventsError, read_events
from .fleet import DemoError
from .plan import Plan, Settings
from .report import print_report, to_json
from .result import Result
from .view import view_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .stream import EventStream

MIN_SECONDS, MAX_SECONDS = 12.0, 40.0
EVENTS_A_SECOND = 8000


@click.command(short_help="Watch elections on real flight events while nodes fail.")
@click.option(
    "--nodes",
    metavar="N",
    type=click.IntRange(2, 16),
    default=3,
    show_default=True,
    help="How many nodes there are at the start, each a process. One more joins half way.",
)
@click.option(
    "--ttl",
    metavar="SECONDS",
    type=click.FloatRange(0.5, 30.0),
    default=2.0,
    show_default=True,
    help="TTL of a lease: how long a crash can go unnoticed.",
)
@click.option(
    "--seconds",
    metavar="SECONDS",
    type=click.FloatRange(3.0, 3600.0),
    help=f"How long the stream of events lasts.  [default: {MIN_SECONDS:.0f}, and up to "
    f"{MAX_SECONDS:.0f} for a large file]",
)
@click.option(
    "--events",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A CSV with a column 'tailnum', or a zip of one.  [default: a sample of one week]",
)
@server_option("Use")
@click.option("--cluster", is_flag=True, help="Use a private Redis Cluster of three primaries.")
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all figures to this file.",
)
@click.option("--no-freeze", is_flag=True, help="Do not freeze a node.")
@click.option("--no-join", is_flag=True, help="Do not start one node more half way.")
@click.option("--no-kill", is_flag=True, help="Do not kill a node.")
def demo(
    *,
    nodes: int,
    ttl: float,
    seconds: float | None,
    events: Path | None,
    url: str | None,
    cluster: bool,
    json_path: Path | None,
    no_freeze: bool,
    no_join: bool,
    no_kill: bool,
) -> None:
    """Watch elections on real flight events while nodes fail.

    Flights that left New York City are replayed as a stream. Each aircraft is a
    partition with an election of its own. The node that leads it processes the
    aircraft's events in order, and commits its progress. Commits are fenced: Redis
    takes one only under the newest epoch of that election.

    Three nodes, each a process, share the elections evenly. One is frozen until its
    leases have expired; it then sends its late commits and gets its share back. Half
    way a fourth joins and gets a share. One is killed with kill -9. One is stopped
    cleanly, and hands over its elections. The others finish. In a planned move the
    leader first commits the events that it has read.

    At the end a checker reads the journal of commits and the beliefs of each node. Was
    every event committed exactly once, in order, by a leader? Did two nodes ever believe
    to lead the same election at once? Did the planned moves cost a term?

    \b
    Exit status: 0 if all of that held, 1 if not, 2 for wrong options,
    130 if interrupted.

    \b
    Examples:
      multielect demo
      multielect demo --nodes 5 --ttl 1 --json figures.json
      multielect demo --cluster
      multielect demo --url redis://localhost:6379/0
    """  # noqa: D301
    console = Console(highlight=False)
    if json_path is not None and not json_path.absolute().parent.is_dir():
        raise click.BadParameter(f"no directory {json_path.parent}", param_hint="--json")
    if cluster and url is not None:
        raise click.UsageError("--cluster starts a cluster: leave out --url, which may name yours")
    with _ending_cleanly():
        stream = _read(events)
        if seconds is None:
            seconds = min(MAX_SECONDS, max(MIN_SECONDS, len(stream) / EVENTS_A_SECOND))
        plan = Plan.make(nodes, freeze=not no_freeze, join=not no_join, kill=not no_kill)
        try:
            result, server = _run(
                console, stream, plan, url, in_cluster=cluster, ttl=ttl, seconds=seconds
            )
        except (DemoError, MultielectError) as error:
            raise click.ClickException(str(error)) from error
        except FAILURES as error:
            raise click.ClickException(f"Redis failed: {error}") from error
    print_report(console, result)
    if json_path is not None:
        figures = to_json(result, ttl=ttl, seconds=seconds, server=server)
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
        console.print(f"The figures are in {json_path}", soft_wrap=True)
    sys.exit(0 if result.verdict.ok else 1)


def _read(events: Path | None) -> EventStream:
    try:
        return read_events(events)
    except EventsError as error:
        raise click.BadParameter(str(error), param_hint="--events") from error


def _run(
    console: Console,
    stream: EventStream,
    plan: Plan,
    url: str | None,
    *,
    in_cluster: bool,
    ttl: float,
    seconds: float,
) -> tuple[Result, str]:
    prefix = f"multielect-demo-{secrets.token_hex(4)}"
    with ExitStack() as stack:
        if url is None:
            url = _start_private(console, stack, in_cluster=in_cluster)
            client = stack.enter_context(connect(url))
        else:
            client = stack.enter_context(_client(url))
            stack.callback(remove_keys, client, f"{prefix}:*")
        settings = Settings(plan, url, prefix, ttl, seconds)
        server = described(client)
        console.print(
            f"{len(stream):,} events of {len(stream.keys):,} aircraft over {seconds:.0f} s, "
            f"on {server}, TTL {ttl:g} s",
            soft_wrap=True,
        )
        view = stack.enter_context(view_for(console))
        return Conductor(settings, stream, client, view).run(), server


def _start_private(console: Console, stack: ExitStack, *, in_cluster: bool) -> str:
    """Start a private server or cluster, which ends with the stack. Returns its URL."""
    if in_cluster:
        console.print("Starting a private cluster")
        return stack.enter_context(PrivateCluster()).url
    console.print("Starting a private server")
    return stack.enter_context(EmbeddedServer()).url


def _client(url: str) -> Client:
    try:
        client = connect(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    except FAILURES as error:
        raise unusable("--url", error) from error
    check_server(client, "--url")
    return client


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """End with one line, and not with a traceback, if the run is interrupted."""
    with interruptible():
        try:
            yield
        except KeyboardInterrupt:
            click.echo("Interrupted: all nodes are ended, and nothing is left behind.", err=True)
            sys.exit(INTERRUPTED)
