"""Runs the fuzzers, one on each core, and reports the results.

Rules of this file:
    * The numbers of executions are those that the programs counted, not those that were requested.
    * An input that breaks something is kept with the error. It ends only its own run.
    * Inputs that broke something once are kept in `found/`. They are tried first.
    * A run with a given seed begins with the seed inputs alone. Even so, two such runs differ a
      little, because memory addresses also guide the fuzzer.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .build import HERE, TARGETS, Program, build
from .recording import seeds

SHARES = {"replies": 95, "exchanges": 5}
"""How many of 100 executions each fuzzer gets. An exchange takes about thirty times as long."""

MAX_INPUT_BYTES = {"replies": 1000, "exchanges": 700}
MAX_MB = 512
SLOWEST_S = 10
_POLL_S = 0.2
_INTERRUPTED = {72, -signal.SIGINT, -signal.SIGTERM}
"""The exit statuses of a run that somebody ended. The first is libFuzzer's own."""
_BROKEN = re.compile(r"does not hold: .*|runtime error: .*|ERROR: AddressSanitizer: .*|ERROR: .*")


@dataclass(frozen=True)
class Crash:
    """An input that broke something.

    Attributes:
        target: the fuzzer.
        what: the message of the check or the sanitizer.
        data: the input.
        kept: the file with the input.
    """

    target: str
    what: str
    data: bytes
    kept: Path


@dataclass(frozen=True)
class Covered:
    """The coverage that a fuzzer has reached; all 0 without libFuzzer."""

    edges: int = 0
    all_edges: int = 0
    features: int = 0


@dataclass(frozen=True)
class Report:
    """The results of a campaign.

    Attributes:
        compiler: the compiler of the fuzzers.
        guided: whether coverage guided them.
        executions: the number of inputs that each fuzzer tried.
        covered: the coverage of the core that each fuzzer reached.
        crashes: the inputs that broke something.
        seconds: the time of all runs, without the build.
    """

    compiler: str
    guided: bool
    executions: dict[str, int]
    covered: dict[str, Covered]
    crashes: list[Crash]
    seconds: float

    @property
    def total(self) -> int:
        """The number of inputs that were tried."""
        return sum(self.executions.values())

    @property
    def per_second(self) -> float:
        """Inputs a second, over all cores."""
        return self.total / self.seconds if self.seconds else 0.0


@dataclass
class _Worker:
    """One run of the program."""

    target: str
    process: subprocess.Popen[bytes]
    log: Path
    crash_prefix: Path
    counter: Path
    crashes: list[Crash] = field(default_factory=list)

    def count(self) -> int:
        with self.counter.open("rb") as file:
            return int(struct.unpack("=Q", file.read(8))[0])

    def end(self) -> None:
        """Collect the inputs that broke something."""
        if self.process.returncode == 0:
            return
        if self.process.returncode in _INTERRUPTED:
            raise InterruptedError(f"the run of {self.target} was ended from outside")
        what = _what_broke(self.log.read_text("utf-8", "replace"))
        kept = sorted(self.crash_prefix.parent.glob(f"{self.crash_prefix.name}*"))
        for path in kept:
            self.crashes.append(Crash(self.target, what, path.read_bytes(), path))
        if not kept:
            self.crashes.append(Crash(self.target, what, b"", self.log))


def run(
    executions: int,
    *,
    targets: Iterable[str] = TARGETS,
    workers: int | None = None,
    seed: int | None = None,
    program: Program | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Fuzz until `executions` inputs have been tried.

    Args:
        executions: the number of inputs of all fuzzers together.
        targets: the fuzzers. `SHARES` says how many executions each of them gets.
        workers: the number of processes; None for the number of cores.
        seed: the seed of one worker, which uses no inputs of earlier runs. With None, a run
            continues from the inputs that earlier runs have found.
        program: the program; None to build the best one.
        on_progress: called now and then with the number of inputs so far.

    Raises:
        RuntimeError: if something is not installed; see `missing`.
        BuildError: if a compiler fails.
        InterruptedError: if a run is ended from outside, so that its results are incomplete.
    """
    wanted = tuple(targets)
    built = program or build(wanted)
    count = 1 if seed is not None else workers or os.cpu_count() or 1
    executed: dict[str, int] = {}
    covered: dict[str, Covered] = {}
    crashes: list[Crash] = []
    began = time.monotonic()
    for target in wanted:
        course = _Course.prepared(built, target, keeps=seed is None)
        crashes += course.try_again()
        share = executions * SHARES[target] // sum(SHARES[each] for each in wanted)
        before = sum(executed.values())
        started = [
            course.start(-(-share // count), seed or worker, worker=worker)
            for worker in range(count)
        ]
        _wait_for(started, lambda done, before=before: on_progress(before + done))  # type: ignore[misc]
        executed[target] = sum(worker.count() for worker in started)
        covered[target] = _covered(started)
        crashes += [crash for worker in started for crash in worker.crashes]
        on_progress(sum(executed.values()))
    seconds = time.monotonic() - began
    return Report(
        built.compiler.command, built.compiler.guided, executed, covered, crashes, seconds
    )


def replay(target: str, inputs: list[Path], program: Program | None = None) -> str:
    """Try each input once. Returns the first error; an empty text if there is none.

    Raises:
        RuntimeError: if something is not installed; see `missing`.
        BuildError: if a compiler fails.
    """
    return _replay(program or build((target,)), target, inputs)


def found(target: str) -> list[Path]:
    """Return the inputs that broke something once."""
    return sorted((HERE / "found" / target).glob("*"))


@dataclass(frozen=True)
class _Course:
    """The program and the folder of one fuzzer's runs."""

    program: Program
    target: str
    folder: Path

    @classmethod
    def prepared(cls, program: Program, target: str, *, keeps: bool) -> _Course:
        """Write the seed inputs into the folder. Removes those of earlier runs unless `keeps`."""
        folder = program.folder / (target if keeps else f"{target}-anew")
        if not keeps:
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("corpus", "seeds", "broken"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(seeds()[target]):
            (folder / "seeds" / f"{number:03}").write_bytes(data)
        return cls(program, target, folder)

    def try_again(self) -> list[Crash]:
        """Try the inputs that broke something before."""
        crashes = []
        for path in found(self.target):
            what = _replay(self.program, self.target, [path])
            if what:
                crashes.append(Crash(self.target, f"again: {what}", path.read_bytes(), path))
        return crashes

    def start(self, share: int, number: int, *, worker: int = 0) -> _Worker:
        """Start a run of `share` executions with `number` as its seed."""
        prefix = self.folder / "broken" / f"{time.time_ns()}-{worker}-"
        counter = self.folder / f"count-{worker}"
        counter.write_bytes(bytes(mmap.PAGESIZE))
        log = self.folder / f"log-{worker}"
        # libFuzzer would prefer short inputs, but the seeds are better.
        limits = ("-len_control=0", f"-rss_limit_mb={MAX_MB}", f"-timeout={SLOWEST_S}")
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    *(str(self.program.path), f"-runs={share}", f"-seed={number + 1}", *limits),
                    *(f"-max_len={MAX_INPUT_BYTES[self.target]}", f"-dict={HERE / 'resp.dict'}"),
                    *(f"-artifact_prefix={prefix}", str(self.folder / "corpus")),
                    str(self.folder / "seeds"),
                ],
                env={**self.program.environment(self.target), "FUZZ_COUNT": str(counter)},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return _Worker(self.target, process, log, prefix, counter)


def _wait_for(workers: list[_Worker], on_progress: Callable[[int], None]) -> None:
    try:
        while any(worker.process.poll() is None for worker in workers):
            on_progress(sum(worker.count() for worker in workers))
            time.sleep(_POLL_S)
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
    for worker in workers:
        worker.end()


def _covered(workers: list[_Worker]) -> Covered:
    edges = all_edges = features = 0
    for worker in workers:
        said = worker.log.read_text("utf-8", "replace")
        for reached in re.finditer(r"cov: (\d+) ft: (\d+)", said):
            edges, features = max(edges, int(reached[1])), max(features, int(reached[2]))
        counters = re.search(r"Loaded \d+ modules\s+\((\d+) inline", said)
        all_edges = max(all_edges, int(counters[1]) if counters else 0)
    return Covered(edges, all_edges, features)


def _replay(program: Program, target: str, inputs: list[Path]) -> str:
    done = subprocess.run(
        [str(program.path), f"-artifact_prefix={program.folder}/again-", *map(str, inputs)],
        env=program.environment(target),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return "" if done.returncode == 0 else _what_broke(done.stdout + done.stderr)


def _what_broke(said: str) -> str:
    broken = _BROKEN.search(said)
    return broken[0] if broken else f"ended: {said.strip()[-300:]}"
