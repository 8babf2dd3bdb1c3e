"""The command `multielect bench`: its options, its errors and its exit status.

Rules of this file:
    * What the user got wrong is said in one line, before anything is measured, with status 2.
    * 0 means that all was measured, whatever came of it; 1 that something could not be; 130 that
      it was interrupted: then what was measured until then is told. Nothing is left behind in any
      case: no process, no file, no key.
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
Measure what it costs, beside the server's own limit and the others.

\b
Each suite answers a question:
{_QUESTIONS}

Believe the ratios before the figures. What is compared is measured in turns: each round
measures everybody once, each time in another order, and a ratio is taken within a round. A
machine that is busy, or slows down, is so for all of them.

A figure is the median of all rounds. The per cent behind it are half of the distance between
the quartiles, within which half of the rounds lie. Where they are many, let the machine come
to rest and measure again.

Wall is the time that passes until the last answer is in. Client CPU is that of this whole
process, server CPU what the server itself says: on one that others use meanwhile, theirs is
in it.

The others are measured where their adapters are: in a clone of the repository, in
benchmarks/peers, once they are installed by: pip install --group peers

\b
Exit status: 0 if all was measured, 1 if something could not be, 2 for wrong
options, 130 if interrupted; what was measured until then is told.

\b
Examples:
  multielect bench --quick
  multielect bench --suite refresh --json figures.json --plot refresh.svg
  multielect bench --url redis://localhost:6379/0 --suite refresh
  multielect bench --suite refresh --leases 5000 --rounds 21
"""


FAILURES = (BenchError, MultielectError, redis.RedisError, OSError)
"""What ends a suite, or the run, and is told in a line. What was measured before is told too."""


@click.command(short_help="Measure what it costs, beside the server's limit.", help=_HELP)
@click.option(
    "--suite",
    "names",
    metavar="NAME",
    type=click.Choice([suite.name for suite in SUITES]),
    multiple=True,
    help="Measure this alone; may be repeated.  [default: all]",
)
@click.option("--quick", is_flag=True, help="Fewer rounds, fewer leases: done within a minute.")
@server_option("Measure")
@click.option(
    "--leases",
    "sizes",
    metavar="N",
    type=click.IntRange(1, 10_000_000),
    multiple=True,
    help="How many leases, in place of what the suites have; may be repeated.",
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
    help="Write all figures, and the values of all rounds, to this file.",
)
@click.option(
    "--plot",
    "plot_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Draw what a lease costs, and how long nobody leads, against how many there are: "
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
    """Measure, and tell what came of it; see `_HELP`."""
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
    _tell(run, out, json_path, plot_path)
    if run.interrupted:
        click.echo("Interrupted: nothing is left behind. Above is what was measured.", err=True)
        sys.exit(INTERRUPTED)
    for name, why in run.failed.items():
        click.echo(f"Error: {name}: {why}", err=True)
    sys.exit(1 if run.failed else 0)


@dataclass
class Run:
    """One run of some suites.

    Attributes:
        suites: what is measured.
        scale: how much.
        peers: the folder of adapters to others.
        machine: on what.
        found: what each suite found, also one that was cut short.
        failed: what could not be measured, and why.
        interrupted: whether it was.
        when: it began.
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
        """Run all suites, telling on `console` how far it is."""
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
                    given.findings.notes.extend(stolen.words())
                server.clear()


def _server(url: str | None, stack: ExitStack) -> Server:
    if url is None:
        return Server(stack.enter_context(EmbeddedServer()).url, is_private=True)
    try:
        server = Server(url, is_private=False)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    check_server(server.client, "--url")
    return server


def _tell(run: Run, console: Console, json_path: Path | None, plot_path: Path | None) -> None:
    if not run.found:
        return
    print_machine(console, run.machine)
    for suite, findings in run.found:
        print_suite(console, suite, findings)
    told = to_json(
        run.machine,
        run.found,
        when=run.when.isoformat(timespec="seconds"),
        quick=run.scale.quick,
        interrupted=run.interrupted,
        failed=run.failed,
    )
    if json_path is not None:
        json_path.write_text(json.dumps(told, indent=2) + "\n")
        console.print(f"\nThe figures are in {json_path}", soft_wrap=True)
    if plot_path is not None:
        console.print(write_plot(plot_path, told), soft_wrap=True)


def _check_paths(json_path: Path | None, plot_path: Path | None) -> None:
    for path, option in ((json_path, "--json"), (plot_path, "--plot")):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.BadParameter(f"no directory {path.parent}", param_hint=option)
