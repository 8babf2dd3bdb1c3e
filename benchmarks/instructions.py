"""How many instructions does the core spend on a lease, as callgrind counts them?

    make instructions                       # a table, beside the counts that are kept
    make instructions ARGS=--keep           # keep these from now on, for this kind of machine
    make instructions ARGS='--into DIR'     # callgrind's files too, for callgrind_annotate

Rules of this file:
    * A count is the difference between a run with some leases and one with twice as many, divided
      by the leases. So the fixed cost of a run does not count, nor does Python's part in it.
    * The same code gives the same counts, to a few in a thousand, on a busy machine too. Another
      compiler, Python or processor gives other counts, which are kept for each of them.
    * A count that has risen is a failure. Keep a count that has fallen, or a later rise up to the
      old count will not be noticed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import click
from benchmarks.core_stage import STEPS
from rich.console import Console
from rich.table import Table

from multielect._core import fleet

ROOT = Path(__file__).parents[1]
KEPT = Path(__file__).with_suffix(".json")
LEASES = 2000
MAX_SECONDS = 110
_STEADY = {
    "PYTHONHASHSEED": "0",
    "LD_BIND_NOW": "1",  # functions of libraries are looked up before it begins
}
_COMPILER = re.compile(rb"(clang) version (\d+)|(GCC): \([^)]*\) (\d+)")
_TOTAL = re.compile(r"^summary: (\d+)$", re.MULTILINE)


class CannotCountError(Exception):
    """The instructions cannot be counted, for a reason outside the core."""


def kind() -> str:
    """Return what the counts depend on: the processor, Python, and the core's compiler."""
    assert fleet.__file__ is not None
    found = _COMPILER.search(Path(fleet.__file__).read_bytes())
    compiler = b" ".join(filter(None, found.groups())).decode() if found else "unknown compiler"
    levels = re.findall(r"-O\w+", sysconfig.get_config_var("CFLAGS") or "")
    python = f"{platform.python_implementation()} {sys.version_info[0]}.{sys.version_info[1]}"
    return ", ".join((platform.machine(), python, " ".join([compiler, *levels[-1:]])))


def has_callgrind() -> bool:
    """Return whether valgrind is installed."""
    return shutil.which("valgrind") is not None


def count(into: Path | None = None) -> dict[str, float]:
    """Return the instructions a lease of each step.

    Args:
        into: a directory for callgrind's output, one file a step.

    Raises:
        CannotCountError: when callgrind could not run the steps.
    """
    with tempfile.TemporaryDirectory() as scratch:
        parts = _run(Path(scratch) / "part")
        if into is not None:
            into.mkdir(parents=True, exist_ok=True)
            for step, (_, more) in parts.items():
                shutil.copyfile(more, into / f"{step}.callgrind")
        return {
            step: round((_total(more) - _total(fewer)) / LEASES, 1)
            for step, (fewer, more) in parts.items()
        }


def kept(of: str) -> dict[str, float] | None:
    """Return the counts that are kept for a kind of machine, if it is for these steps."""
    counts: dict[str, float] = json.loads(KEPT.read_text("utf-8"))["counts"].get(of, {})
    return counts if counts.keys() == STEPS.keys() else None


def tolerance() -> float:
    """Return the share by which a count may rise."""
    return float(json.loads(KEPT.read_text("utf-8"))["tolerance"])


def keep(counted: dict[str, float]) -> None:
    """Keep counts for this kind of machine, in place of the old ones."""
    everything = json.loads(KEPT.read_text("utf-8"))
    everything["counts"][kind()] = counted
    everything["counts"] = dict(sorted(everything["counts"].items()))
    KEPT.write_text(json.dumps(everything, indent=2) + "\n", "utf-8")


def risen(counted: dict[str, float], before: dict[str, float]) -> list[str]:
    """Return a message about each step whose count has risen by more than the tolerance."""
    most = 1 + tolerance()
    return [
        f"{step}: {counted[step]:.0f} instructions a lease, where {before[step]:.0f} are kept"
        for step in STEPS
        if counted[step] > before[step] * most
    ]


def _run(part: Path) -> dict[str, tuple[Path, Path]]:
    """Run the steps under callgrind; return two parts of each, for fewer leases and for more."""
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            "--dump-before=getppid",
            f"--callgrind-out-file={part}",
            sys.executable,
            "-m",
            "benchmarks.marked",
            str(LEASES),
        ],
        cwd=ROOT,
        env={**os.environ, **_STEADY},
        capture_output=True,
        text=True,
        check=False,
        timeout=MAX_SECONDS,
    )
    found = len(list(part.parent.glob(f"{part.name}.*")))
    if done.returncode or found != 4 * len(STEPS):
        raise CannotCountError(
            f"{found} marks of {4 * len(STEPS)} were met:\n{done.stderr[-2000:]}"
        )
    return {
        step: (Path(f"{part}.{4 * place + 2}"), Path(f"{part}.{4 * place + 4}"))
        for place, step in enumerate(STEPS)
    }


def _total(part: Path) -> int:
    found = _TOTAL.search(part.read_text("ascii", "replace"))
    if found is None:
        raise CannotCountError(f"callgrind wrote no summary into {part.name}")
    return int(found[1])


def _table(counted: dict[str, float], before: dict[str, float] | None) -> Table:
    table = Table(title=kind())
    for name in ("a lease", "instructions", "kept", "change"):
        table.add_column(name, justify="left" if name == "a lease" else "right")
    for step, number in counted.items():
        cells = ["-", "-"]
        if before is not None:
            cells = [f"{before[step]:.0f}", f"{number / before[step] - 1:+.1%}"]
        table.add_row(f"{step}: {STEPS[step].about}", f"{number:.0f}", *cells)
    return table


@click.command()
@click.option("--keep", "keeps", is_flag=True, help="Keep these counts from now on.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="A directory for callgrind's files, one a step.",
)
def main(*, keeps: bool, into: Path | None) -> None:
    """Count the core's instructions a lease; fail if they have risen."""
    if not has_callgrind():
        raise click.ClickException("valgrind is not installed (Debian: apt-get install valgrind)")
    console = Console()
    try:
        with console.status("counting under callgrind, for some ten seconds"):
            counted = count(into)
    except (CannotCountError, subprocess.TimeoutExpired) as error:
        raise click.ClickException(str(error)) from error
    before = kept(kind())
    console.print(_table(counted, before))
    if keeps:
        keep(counted)
        return
    if before is None:
        console.print("There are no counts for this kind of machine yet: keep these with --keep.")
        return
    if found := risen(counted, before):
        raise click.ClickException("\n".join(["risen:", *found]))
    if any(number < before[step] * (1 - tolerance()) for step, number in counted.items()):
        console.print("Some counts have fallen: keep them with --keep, to notice later rises.")


if __name__ == "__main__":
    main()
