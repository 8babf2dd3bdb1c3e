"""Runs the proof: `make proof`.

Rules of this file:
    * Only a terminal shows the progress. A pipe gets one line for each part.
    * After Ctrl-C, the report has the parts that were complete.
"""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from .part import QUICK, Advance, Part, Run, Scale
from .parts import PARTS, ROOT
from .report import write, write_docs

DOCS = ROOT / "docs"
NOW_CHARACTERS = 34


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.option(
    "--only", multiple=True, type=click.Choice(list(PARTS)), help="This part; may be repeated."
)
@click.option("--quick", is_flag=True, help="Fewer repetitions of each part: some minutes.")
@click.option("--seed", default=1, show_default=True, help="The seed of all random choices.")
@click.option(
    "--folder",
    default=Path("build/proof"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for report.md and report.json.",
)
@click.option("--docs", is_flag=True, help="Put the tables into the pages in docs/ as well.")
def main(*, only: tuple[str, ...], quick: bool, seed: int, folder: Path, docs: bool) -> None:
    """Check that multielect keeps its promises, by several independent methods.

    A full run takes about an hour on two cores. It searches all states of a model of the protocol.
    It runs a million simulated events, ten million fuzzed inputs and the core under sanitizers. It
    plants faults in copies of our own code. It strikes real processes with five hundred rounds of
    faults, and ends with a soak.

    Exits with 0 only if every requested part was run and holds.
    """
    scale = replace(QUICK if quick else Scale(), seed=seed)
    console = Console()
    parts: list[Part] = []
    interrupted = False
    try:
        # One at a time, so that complete parts count if the next one is interrupted.
        parts.extend(_run(name, PARTS[name], scale, console) for name in only or PARTS)
    except KeyboardInterrupt:
        interrupted = True
        console.print("interrupted: the report has the parts that were complete")
    page = write(parts, scale, folder)
    _show(parts, console)
    if docs:
        write_docs(parts, DOCS)
    console.print(f"the report is {page}")
    sys.exit(130 if interrupted else int(not all(part.ok for part in parts)))


def _run(name: str, run: Run, scale: Scale, console: Console) -> Part:
    columns = (
        TextColumn(f"{name:10}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    bars = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    began = time.monotonic()
    with bars:
        try:
            part = run(scale, _telling(bars, bars.add_task("", total=None, now="")))
        # An error in one part must not cost the results of the others, which may take an hour.
        except Exception:  # noqa: BLE001
            part = Part(name, name, trouble=[traceback.format_exc()])
    part.seconds = time.monotonic() - began
    console.print(f"{name:10} {part.verdict:8} {part.skipped or part.summary}")
    for trouble in part.trouble:
        console.print(trouble, markup=False, highlight=False)
    return part


def _telling(bars: Progress, task: TaskID) -> Advance:
    def tell(done: float, total: float, now: str = "") -> None:
        bars.update(task, completed=done, total=total, now=now[:NOW_CHARACTERS])

    return tell


def _show(parts: list[Part], console: Console) -> None:
    table = Table(title="Results of the proof")
    for head in ("part", "verdict", "minutes"):
        table.add_column(head, justify="right" if head == "minutes" else "left")
    for part in parts:
        table.add_row(part.title, part.verdict, f"{part.seconds / 60:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
