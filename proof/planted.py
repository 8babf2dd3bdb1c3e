"""Plants faults in copies of the project, and checks that the tests find them.

    make planted                                # all faults: a table, in a quarter of an hour
    make planted ARGS='anchor-at-reply'         # one fault, with the output of the failed test

Rules of this file:
    * The project itself does not change. Each fault is planted in its own copy, and the modules
      that it changes are compiled again there.
    * A fault is found if a test fails in its copy and passes without the fault. So a copy that
      cannot run finds nothing, and neither does a test that always fails.
    * If a fault cannot be planted or does not compile, that is an error of the list.
    * Tests that do not end in time are killed, and the fault counts as found.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .planted_faults import PLANTED, Edit, Fault

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src") / "multielect"
MAX_SECONDS = 900
"""How long one suite may take. The longest suite needs a third of that."""
_JOBS = max(1, (os.cpu_count() or 2) // 2)
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "dist", "bdist.*", "__pycache__", "*.egg-info", ".*_cache"
)
_TELLING = re.compile(r"^(tests/\S+?::.+?) (PASSED|FAILED|ERROR|SKIPPED)")

FAILED, CRASHED, NEVER_ENDED = "failed", "crashed", "did not end"


@dataclass(frozen=True)
class Finding:
    """The result for one fault.

    Attributes:
        fault: the fault.
        test: the test that found it; empty if none did.
        how: whether that test failed, crashed the interpreter, or did not end.
        seconds: the time from the start of the tests until one failed.
        passes_without: whether the same test passes without the fault.
        said: the end of pytest's output.
    """

    fault: Fault
    test: str
    how: str
    seconds: float
    passes_without: bool
    said: str

    @property
    def is_found(self) -> bool:
        """Whether a test fails with the fault and passes without it."""
        return bool(self.test) and self.passes_without

    @property
    def verdict(self) -> str:
        """The verdict for the table."""
        if self.is_found:
            return self.how
        return "FAILS ANYWAY" if self.test else "SURVIVED"


class PlantingError(Exception):
    """A fault cannot be planted as it is described."""


def read_changed(root: Path, edit: Edit) -> str:
    """Return the text of a file after an edit.

    Raises:
        PlantingError: if the text to replace does not occur exactly once.
    """
    text = (root / PACKAGE / edit.file).read_text("utf-8")
    found = text.count(edit.before)
    if found != 1:
        raise PlantingError(f"{edit.file}: found {found} times, not once:\n{edit.before}")
    return text.replace(edit.before, edit.after)


@contextmanager
def copied(root: Path = ROOT) -> Iterator[Path]:
    """Give a copy of the project with its compiled modules. It is removed after the block."""
    with tempfile.TemporaryDirectory(prefix="multielect-planted-") as name:
        copy = Path(name) / "project"
        shutil.copytree(root, copy, ignore=_LEFT_OUT)
        yield copy


def plant(copy: Path, fault: Fault) -> None:
    """Plant a fault in a copy, and compile the modules that it changes.

    Raises:
        PlantingError: if it cannot be planted, or does not compile.
    """
    for edit in fault.edits:
        (copy / PACKAGE / edit.file).write_text(read_changed(copy, edit), "utf-8")
    if _is_compiled(fault):
        _compile(copy)
    seen = _python(copy, "-c", "import multielect; print(multielect.__file__)", seconds=60)
    if not seen.stdout.startswith(str(copy)):
        raise PlantingError(f"{fault.name}: the copy is not what is imported:\n{seen.stdout}")


def look_for(fault: Fault, root: Path = ROOT) -> Finding:
    """Plant a fault in a copy, and run its suites until a test fails.

    Raises:
        PlantingError: if the fault cannot be planted.
    """
    with copied(root) as copy:
        plant(copy, fault)
        began = time.monotonic()
        test, how, said = "", "", ""
        for suite in fault.suites:
            test, how, said = _run_suite(copy, suite)
            if test:
                break
        seconds = time.monotonic() - began
    passes = bool(test) and _passes_in(root, test)
    return Finding(fault, test, how, seconds, passes, said)


def look_for_all(
    faults: Iterable[Fault],
    told: Callable[[Finding], None] = lambda _: None,
    *,
    jobs: int = _JOBS,
    root: Path = ROOT,
) -> list[Finding]:
    """Look for several faults, `jobs` at a time. Calls `told` with each result."""
    findings = []
    with copied(root) as sound, ThreadPoolExecutor(jobs) as pool:
        faults = list(faults)
        if any(map(_is_compiled, faults)):
            # This leaves the build files in the copy, so that each fault compiles only its modules.
            _compile(sound)
        for finding in pool.map(lambda fault: look_for(fault, sound), faults):
            told(finding)
            findings.append(finding)
    return findings


def _passes_in(root: Path, test: str) -> bool:
    with copied(root) as copy:
        return _run_suite(copy, test)[0] == ""


def _run_suite(copy: Path, suite: str) -> tuple[str, str, str]:
    """Return the test that failed, how it failed, and pytest's output; empty texts if none did."""
    options = ["-x", "-v", "--no-header", "-p", "no:cacheprovider", "--color=no", "--tb=short"]
    done = _python(copy, "-m", "pytest", *options, suite, seconds=MAX_SECONDS)
    said = done.stdout[-4000:]
    told = [match for line in done.stdout.splitlines() if (match := _TELLING.match(line))]
    bad = [match[1] for match in told if match[2] in {"FAILED", "ERROR"}]
    if done.returncode == 0:
        return "", "", said
    if bad:
        return bad[0], FAILED, said
    begun = re.findall(r"^(tests/\S+?::\S+)", done.stdout, re.MULTILINE)
    if done.returncode in {2, 3, 4, 5} or not begun:
        raise PlantingError(f"{suite} could not be run:\n{said}")
    return begun[-1], NEVER_ENDED if done.returncode == _ENDED_BY_US else CRASHED, said


def _is_compiled(fault: Fault) -> bool:
    return any(edit.file.endswith((".pyx", ".pxd")) for edit in fault.edits)


def _compile(copy: Path) -> None:
    built = _python(copy, "setup.py", "-q", "build_ext", "--inplace", seconds=MAX_SECONDS)
    if built.returncode:
        raise PlantingError(f"does not compile:\n{built.stdout[-4000:]}")


_ENDED_BY_US = -signal.SIGKILL


def _python(copy: Path, *command: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy. After the time limit, kill it and all processes that it started."""
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, said)


HEAD = f"{'fault':26} {'s':>6}  {'verdict':12} found by"


def row(finding: Finding) -> str:
    """Return the lines of the table for one fault."""
    fault = finding.fault
    return f"{fault.name:26} {finding.seconds:6.1f}  {finding.verdict:12} {finding.test}"


def main() -> int:
    """Plant the requested faults and print the table. Returns 1 if a fault survived."""
    names = [fault.name for fault in PLANTED]
    parser = argparse.ArgumentParser(
        description="Plant faults in copies of the project, and check that the tests find them."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(names)}")
    parser.add_argument("--jobs", type=int, default=_JOBS, help="faults at a time (%(default)s)")
    wanted = parser.parse_args()
    if unknown := set(wanted.names) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    faults = [fault for fault in PLANTED if not wanted.names or fault.name in wanted.names]
    print(HEAD)

    def tell(finding: Finding) -> None:
        print(row(finding), flush=True)
        if wanted.names:
            print(finding.said)

    findings = look_for_all(faults, tell, jobs=wanted.jobs)
    found = sum(finding.is_found for finding in findings)
    print(f"{found} of {len(findings)} found")
    return 0 if found == len(findings) else 1


if __name__ == "__main__":
    sys.exit(main())
