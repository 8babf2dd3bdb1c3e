"""Runs the fuzzers, as many at once as there are cores, and says what came of it.

Rules of this file:
    * What is counted is what the program itself counted, not what it was asked for.
    * An input that breaks something is kept, with what it broke, and ends its own run only.
    * What has been found once, and kept under `found/`, is tried before anything new.
    * A run from a number that is given begins with the seeds alone. Where it gets to differs a
      little all the same: addresses guide it as well.
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
"""How many of 100 executions go where: an exchange is some thirty times the work."""

MAX_INPUT_BYTES = {"replies": 1000, "exchanges": 700}
MAX_MB = 512
SLOWEST_S = 10
_POLL_S = 0.2
_INTERRUPTED = {72, -signal.SIGINT, -signal.SIGTERM}
"""What a run ends with that was told to: the first is libFuzzer's own."""
_BROKEN = re.compile(r"does not hold: .*|runtime error: .*|ERROR: AddressSanitizer: .*|ERROR: .*")


@dataclass(frozen=True)
class Crash:
    """An input that broke something.

    Attributes:
        target: what was fuzzed.
        what: what it broke, in the words of whoever noticed.
        data: the input.
        kept: where it was written.
    """

    target: str
    what: str
    data: bytes
    kept: Path


@dataclass(frozen=True)
class Covered:
    """What a target's inputs have reached: nothing is known of it without libFuzzer."""

    edges: int = 0
    all_edges: int = 0
    features: int = 0


@dataclass(frozen=True)
class Report:
    """What came of a campaign.

    Attributes:
        compiler: what it was built with.
        guided: whether coverage guided it.
        executions: of each target, how many inputs were tried.
        covered: of each target, what they reached in the core.
        crashes: what was broken.
        seconds: for all of it, without building.
    """

    compiler: str
    guided: bool
    executions: dict[str, int]
    covered: dict[str, Covered]
    crashes: list[Crash]
    seconds: float

    @property
    def total(self) -> int:
        """How many inputs were tried."""
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
        """Keep what it broke."""
        if self.process.returncode == 0:
            return
        if self.process.returncode in _INTERRUPTED:
            raise InterruptedError(f"somebody ended the run of {self.target}")
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
    """Fuzz until so many inputs have been tried.

    Args:
        executions: how many, over all targets.
        targets: what to fuzz; they share the executions out as `SHARES` says.
        workers: how many processes at once; as many as there are cores if None.
        seed: where chance begins: one worker, and nothing kept from earlier runs. Without it, what
            earlier runs have reached is where this one begins.
        program: what was built; the best there is, built now, if None.
        on_progress: told now and then how many have been tried.

    Raises:
        RuntimeError: when something is not installed; see `missing`.
        BuildError: when a compiler fails.
        InterruptedError: when somebody ended a run from outside: nothing is known of its rest.
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
    """Try inputs, each once. Returns what one of them breaks; nothing if all is well.

    Raises:
        RuntimeError: when something is not installed; see `missing`.
        BuildError: when a compiler fails.
    """
    return _replay(program or build((target,)), target, inputs)


def found(target: str) -> list[Path]:
    """Return the inputs that broke something once."""
    return sorted((HERE / "found" / target).glob("*"))


@dataclass(frozen=True)
class _Course:
    """Where one target is run, and with what."""

    program: Program
    target: str
    folder: Path

    @classmethod
    def prepared(cls, program: Program, target: str, *, keeps: bool) -> _Course:
        """Return one with its seeds; where it begins anew, with nothing else."""
        folder = program.folder / (target if keeps else f"{target}-anew")
        if not keeps:
            shutil.rmtree(folder, ignore_errors=True)
        for name in ("corpus", "seeds", "broken"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(seeds()[target]):
            (folder / "seeds" / f"{number:03}").write_bytes(data)
        return cls(program, target, folder)

    def try_again(self) -> list[Crash]:
        """Try what has been found before."""
        crashes = []
        for path in found(self.target):
            what = _replay(self.program, self.target, [path])
            if what:
                crashes.append(Crash(self.target, f"again: {what}", path.read_bytes(), path))
        return crashes

    def start(self, share: int, number: int, *, worker: int = 0) -> _Worker:
        """Start a run of `share` executions; `number` is where its chance begins."""
        prefix = self.folder / "broken" / f"{time.time_ns()}-{worker}-"
        counter = self.folder / f"count-{worker}"
        counter.write_bytes(bytes(mmap.PAGESIZE))
        log = self.folder / f"log-{worker}"
        # The seeds are worth more than what is short.
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
