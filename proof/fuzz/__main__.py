"""Fuzzes the core from the command line: `python -m proof.fuzz --executions 10000000`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from .build import BuildError, build, find_compilers, missing
from .campaign import Report, replay, run
from .faults import FAULTS


def show(report: Report) -> None:
    """Print the report."""
    print(
        f"{report.total:,} executions in {report.seconds:.0f} s, {report.per_second:,.0f} a second"
    )
    print(
        f"built with {report.compiler}, {'guided' if report.guided else 'not guided'} by coverage"
    )
    for target, executions in report.executions.items():
        covered = report.covered[target]
        reached = (
            f"  {covered.edges:,} of {covered.all_edges:,} edges, {covered.features:,} features"
        )
        print(f"  {target:10} {executions:>12,}{reached if report.guided else ''}")
    for crash in report.crashes:
        print(f"\n{crash.target}: {crash.what}\n  {crash.data!r}\n  kept as {crash.kept}")
    print("nothing was broken" if not report.crashes else f"{len(report.crashes)} broken")


def plant_faults(executions: int) -> int:
    """Print what the fuzzers find of each planted fault. Returns 1 if they miss one."""
    missed = 0
    build()  # The faults share the modules that they do not change.
    for fault in FAULTS:
        report = run(
            executions, targets=[fault.target], seed=1, program=build((fault.target,), fault=fault)
        )
        missed += not report.crashes
        what = report.crashes[0].what if report.crashes else "NOT FOUND"
        print(f"{fault.name:30} {report.total:>10,}  {what:.80}", flush=True)
    print(f"{len(FAULTS) - missed} of {len(FAULTS)} found")
    return 1 if missed else 0


def as_json(report: Report) -> str:
    """Return a report as JSON."""
    told = {
        **vars(report),
        "covered": {target: vars(covered) for target, covered in report.covered.items()},
        "crashes": [
            {**vars(crash), "data": crash.data.hex(), "kept": str(crash.kept)}
            for crash in report.crashes
        ],
    }
    return json.dumps(told, indent=1)


def main() -> int:
    """Run the fuzzers. Returns 1 if something broke, 2 if something is not installed."""
    parser = argparse.ArgumentParser(prog="python -m proof.fuzz", description=__doc__)
    parser.add_argument("--executions", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--workers", type=int, metavar="N", help="as many as cores, if not given")
    parser.add_argument("--seed", type=int, metavar="N", help="one worker, from the seeds alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    compilers = {compiler.command: compiler for compiler in find_compilers()}
    parser.add_argument("--compiler", choices=sorted(compilers), help="the best, if not given")
    parser.add_argument(
        "--faults", action="store_true", help="plant faults, and check that each is found"
    )
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FILE"), help="one input, once")
    wanted = parser.parse_args()
    if missing():
        print(missing())
        return 2
    try:
        if wanted.replay:
            target, path = wanted.replay
            print(replay(target, [Path(path)]) or "nothing was broken")
            return 0
        if wanted.faults:
            return plant_faults(wanted.executions)
        columns = ("fuzzing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("", total=wanted.executions)
            report = run(
                wanted.executions,
                workers=wanted.workers,
                seed=wanted.seed,
                program=build(compiler=compilers[wanted.compiler]) if wanted.compiler else None,
                on_progress=lambda done: progress.update(task, completed=done),
            )
    except (BuildError, InterruptedError) as error:
        print(error)
        return 2
    show(report)
    if wanted.json:
        wanted.json.write_text(as_json(report), "utf-8")
    return 1 if report.crashes else 0


if __name__ == "__main__":
    sys.exit(main())
