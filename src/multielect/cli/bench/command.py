"""The command `multielect bench`: its options, its errors and its exit status.

Rules of this file:
    * A mistake of the user is reported in one line, before anything is measured, with status 2.
    * Status 0 means that everything was measured, whatever the results. 1 means that something
      could not be measured. 130 means that the run was interrupted; the results until then are
      reported. No process, file or key is left behind in any case.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import click
import redis
from rich.console import Console

from multielect import MultielectError
from multielect.embedded import EmbeddedServer

from ..client import is_in_cluster
from ..ending import INTERRUPTED, interruptible
from ..server import check_server, server_option
from .instruments.machine import Stolen, described_machine
from .instruments.servers import Server
from .progress import Progress
from .results.findings import Findings
from .results.plot import check_plot, write_plot
from .results.report import print_machine, print_suite, to_json
from .subjects.peers import DEFAULT_FOLDER
from .suite import Bench, BenchError, Scale, Suite
from .suites import SUITES

_QUESTIONS = "\n".join(f"  {suite.name:<12}{suite.question}" for suite in SUITES)

_HELP = f"""\
Measure what multielect costs, and compare it with the server's own limit and other libraries.

\b
Each suite answers a question:
{_QUESTIONS}

Trust the ratios more than the figures. Subjects that are compared are measured in turns: each
round measures each of them once, in another order each time, and a ratio is computed within a
round. So a machine that is busy or becomes slower affects all of them.

A figure is the median of all rounds. The per cent behind it is half of the distance between
the quartiles, between which half of the rounds lie. If it is large, wait until the machine is
idle and measure again.

Wall is the time until the last answer has arrived. Client CPU is that of this whole process.
Server CPU is what the server reports; it includes the work for its other clients.

Other libraries are measured if their adapters are there: in a clone of the repository, in
benchmarks/peers, after: pip install --group peers

\b
Exit status: 0 if everything was measured, 1 if something could not be
measured, 2 for wrong options, 130 if interrupted. The results until then are
reported.

\b
Examples:
  multielect bench --quick
  multielect bench --suite refresh --json figures.json --plot refresh.svg
  multielect bench --url redis://localhost:6379/0 --suite refresh
  multielect bench --suite refresh --leases 5000 --rounds 21
"""


FAILURES = (BenchError, MultielectError, redis.RedisError, OSError)
"""The errors that end a suite or the run, and are reported in one line."""


@click.command(short_help="Measure costs, and compare them with the server's limit.", help=_HELP)
@click.option(
    "--suite",
    "names",
    metavar="NAME",
    type=click.Choice([suite.name for suite in SUITES]),
    multiple=True,
    help="Measure only this suite; may be repeated.  [default: all]",
)
@click.option("--quick", is_flag=True, help="Fewer rounds, fewer leases: done within a minute.")
@server_option("Measure")
@click.option(
    "--leases",
    "sizes",
    metavar="N",
    type=click.IntRange(1, 10_000_000),
    multiple=True,
    help="How many leases, in place of the suites' own numbers; may be repeated.",
)
@click.option("--rounds", metavar="N", type=click.IntRange(1, 1_000), help="How many rounds.")
@click.option(
    "--peers",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"The adapters to other libraries.  [default: {DEFAULT_FOLDER}, if it is there]",
)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all figures and the values of all rounds to this file.",
)
@click.option(
    "--plot",
    "plot_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw the cost of a lease, and the time without a leader, for each number of leases: "
    "SVG or PNG.",
)
def bench(
    *,
    names: tuple[str, ...],
    quick: bool,
    url: str | None,
    sizes: tuple[int, ...],
    rounds: int | None,
    peers: Path | None,
    json_path: Path | None,
    plot_path: Path | None,
) -> None:
    """Measure, and report the results; see `_HELP`."""
    out, err = Console(highlight=False), Console(highlight=False, stderr=True)
    _check_paths(json_path, plot_path)
    if peers is None and DEFAULT_FOLDER.is_dir():
        peers = DEFAULT_FOLDER
    scale = Scale(quick=quick, rounds=rounds, sizes=tuple(dict.fromkeys(sorted(sizes))) or None)
    run = Run([suite for suite in SUITES if not names or suite.name in names], scale, peers)
    if plot_path is not None:
        check_plot(plot_path, [suite.name for suite in run.suites])
    with interruptible():
        try:
            run.measure(err, url)
        except KeyboardInterrupt:
            run.interrupted = True
        except FAILURES as error:
            run.failed["the server"] = str(error)
    _print_report(run, out, json_path, plot_path)
    if run.interrupted:
        click.echo("Interrupted: nothing is left behind. The results so far are above.", err=True)
        sys.exit(INTERRUPTED)
    for name, why in run.failed.items():
        click.echo(f"Error: {name}: {why}", err=True)
    sys.exit(1 if run.failed else 0)


@dataclass
class Run:
    """One run of some suites.

    Attributes:
        suites: the suites to run.
        scale: how much to measure.
        peers: the folder of adapters to other libraries.
        machine: the description of the machine.
        found: the findings of each suite, also of one that was interrupted.
        failed: what could not be measured, and why.
        interrupted: whether the run was interrupted.
        when: when the run began.
    """

    suites: list[Suite]
    scale: Scale
    peers: Path | None
    machine: dict[str, str] = field(default_factory=dict)
    found: list[tuple[Suite, Findings]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    when: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def measure(self, console: Console, url: str | None) -> None:
        """Run all suites, and show the progress on `console`."""
        with ExitStack() as stack:
            server = stack.enter_context(_server(url, stack))
            self.machine = described_machine(server)
            progress = stack.enter_context(Progress(console))
            for suite in self.suites:
                given = Bench(server, self.scale, progress, self.peers)
                self.found.append((suite, given.findings))
                progress.enter_suite(suite.name, suite.question)
                stolen = Stolen()
                try:
                    suite.run(given)
                except FAILURES as error:
                    self.failed[suite.name] = str(error)
                finally:
                    given.findings.notes.extend(stolen.notes())
                server.clear()


def _server(url: str | None, stack: ExitStack) -> Server:
    if url is None:
        return Server(stack.enter_context(EmbeddedServer()).url, is_private=True)
    try:
        server = Server(url, is_private=False)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    check_server(server.client, "--url")
    if is_in_cluster(server.client):
        raise click.BadParameter(
            "it is a node of a cluster, which is not measured: --suite cluster starts its own",
            param_hint="--url",
        )
    return server


def _print_report(
    run: Run, console: Console, json_path: Path | None, plot_path: Path | None
) -> None:
    if not run.found:
        return
    print_machine(console, run.machine)
    for suite, findings in run.found:
        print_suite(console, suite, findings)
    document = to_json(
        run.machine,
        run.found,
        when=run.when.isoformat(timespec="seconds"),
        quick=run.scale.quick,
        interrupted=run.interrupted,
        failed=run.failed,
    )
    if json_path is not None:
        json_path.write_text(json.dumps(document, indent=2) + "\n")
        console.print(f"\nThe figures are in {json_path}", soft_wrap=True)
    if plot_path is not None:
        console.print(write_plot(plot_path, document), soft_wrap=True)


def _check_paths(json_path: Path | None, plot_path: Path | None) -> None:
    for path, option in ((json_path, "--json"), (plot_path, "--plot")):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.BadParameter(f"no directory {path.parent}", param_hint=option)
