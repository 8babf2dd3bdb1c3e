"""Checks the model of the lease protocol with spin, and checks that spin finds planted faults.

    make model                      # the table, in a minute or two on one core
    make model ARGS=--long          # larger bounds as well
    make model ARGS='--only RELEASE_WITHOUT_EPOCH'      # with the shortest history that shows it

Rules of this file:
    * A run that should find nothing must search all states. If spin stops before, the run fails.
    * A fault that spin does not find is a failure. So is a documented limit of the protocol that
      spin cannot show any more, as its documentation is then out of date.
    * Only one process runs at a time, with at most `MAX_MB` of memory.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

MODEL = Path(__file__).parent / "lease.pml"
MAX_MB = 1000
MAX_SECONDS = 600
DEEPEST = 200_000

HOLDS, CAUGHT, SHOWN = "holds", "caught", "as stated"


@dataclass(frozen=True)
class Question:
    """One run of spin.

    Attributes:
        name: its name on the command line.
        about: what it searches, for the table.
        defines: the macros that are defined in the model.
        expected: whether the invariants must hold, or one of them must be broken.
    """

    name: str
    about: str
    defines: tuple[str, ...]
    expected: str = HOLDS


def _fault(about: str, *defines: str) -> Question:
    return Question(defines[-1], about, ("GRANTS=2", "LIVES=1", *defines), CAUGHT)


def _limit(about: str, *defines: str) -> Question:
    return Question(defines[-1], about, ("GRANTS=2", "LIVES=1", *defines), SHOWN)


SOUND = (
    Question("lease", "3 grants, no crash", ("GRANTS=3", "LIVES=1")),
    Question("crash", "2 grants, kill -9 and a new incarnation", ("GRANTS=2", "LIVES=2")),
    Question("fence", "2 grants, fenced writes", ("GRANTS=2", "LIVES=1", "FENCE")),
    Question(
        "flush",
        "2 grants, FLUSHALL, fenced writes",
        ("GRANTS=2", "LIVES=1", "WIRE=1", "FLUSH", "FENCE"),
    ),
    Question(
        "orphan",
        "2 grants, an orphaned primary that elects, leaders that write",
        ("GRANTS=2", "LIVES=1", "WIRE=1", "TTL=2", "DRIFT=0", "ORPHAN"),
    ),
)

NOT_NEEDED = (
    Question(
        "REFRESH_COMPARES_NOTHING",
        "a refresh extends whoever's lease stands there",
        ("GRANTS=2", "LIVES=1", "REFRESH_COMPARES_NOTHING"),
    ),
)

LONG = (
    Question("lease and crash", "3 grants", ("GRANTS=3", "LIVES=2")),
    Question("finer time", "2 grants, TTL 6", ("GRANTS=2", "LIVES=1", "TTL=6", "DRIFT=1")),
    Question("flush, longer", "2 grants, FLUSHALL", ("GRANTS=2", "LIVES=1", "FLUSH")),
)

FAULTS = (
    _fault("deadline counted from the reply, not from the send", "ANCHOR_AT_REPLY"),
    _fault("no margin for clocks that are wrong", "NO_MARGIN"),
    _fault("a margin for one of the two clocks", "MARGIN_FOR_ONE_CLOCK"),
    _fault("a clock that stops while the machine is suspended", "CLOCK_STOPS"),
    _fault("is_leader is a boolean that a thread keeps", "CACHED_BOOLEAN"),
    _fault("a refresh counts though the deadline has passed", "REFRESH_REVIVES"),
    _fault("a reply counts for another term than asked", "NO_SERIAL"),
    _fault("an acquire whose reply was lost is taken for won", "ADOPT_LOST_ACQUIRE"),
    _fault("one's own lease is taken over under the old epoch", "ADOPT_OLD_EPOCH"),
    _fault("the epoch is minted after the lease, apart from it", "EPOCH_APART"),
    _fault("two processes with one holder value", "SHARED_HOLDER"),
    _fault("release compares nothing", "RELEASE_COMPARES_NOTHING"),
    _fault("release compares the holder alone", "RELEASE_WITHOUT_EPOCH"),
    _fault("release is sent before the term has ended", "RELEASE_BEFORE_END"),
    _fault("a grant compares nothing", "GRANT_COMPARES_NOTHING"),
    _fault("a grant compares the holder alone", "GRANT_WITHOUT_EPOCH"),
    _fault("a grant is sent before the term has ended", "GRANT_BEFORE_END"),
    _fault("the successor leads by the grant, without an acquire", "GRANT_IS_A_TERM"),
    _fault("the fence compares nothing", "FENCE", "FENCE_COMPARES_NOTHING"),
    _fault("epochs are counted only, and FLUSHALL comes", "FLUSH", "EPOCHS_BY_COUNTER"),
    _fault("a leader that is refused by its fence leads on", "ORPHAN", "NEWER_EPOCH_IGNORED"),
    _fault("an acquire does not say above which epoch", "ORPHAN", "FLOOR_NOT_SENT"),
    _fault("an epoch that is not above the newest is led by", "ORPHAN", "STALE_EPOCH_LED"),
)

LIMITS = (
    _limit("a late acquire of its own makes a leader's epoch old", "OWN_EPOCH_IS_NEWEST"),
    _limit("FLUSHALL lets two believe until a deadline", "FLUSH", "ONE_LEADER_AFTER_FLUSH"),
    _limit("two terms in a ms, and FLUSHALL: an epoch twice", "FLUSH", "TWO_TERMS_A_TICK"),
)

_INVARIANTS = (
    (r"floor|refused|got==0", "I7"),
    (r"counter>granted|>begun|order>minted", "I2"),
    (r"n>=fence", "I3"),
    (r"epoch==counter", "own epoch"),
    (r"key==", "I4"),
    (r"\(\(?node\[0\].*&&.*node\[1\]", "I1"),
)


@dataclass(frozen=True)
class Answer:
    """The result of a run.

    Attributes:
        question: the run.
        broken: the invariant that was broken; empty if none was.
        states: the number of states that were searched.
        whole: whether these are all states.
        seconds: the time of the search, without the compiler.
        memory_mb: the memory of the search.
        history: the shortest path to the broken invariant, with a line for each step.
    """

    question: Question
    broken: str
    states: int
    whole: bool
    seconds: float
    memory_mb: float
    history: tuple[str, ...]

    @property
    def is_as_expected(self) -> bool:
        """Whether the invariants held, or one was broken, as expected."""
        if self.question.expected == HOLDS:
            return self.whole and not self.broken
        return bool(self.broken)

    @property
    def verdict(self) -> str:
        """The verdict for the table."""
        if self.is_as_expected:
            told = self.question.expected
            return f"{told}: {self.broken}" if self.broken else told
        if self.broken:
            return f"BROKEN: {self.broken}"
        return "NOT FOUND" if self.whole else "CUT OFF"


def missing() -> str:
    """Return a program that is not installed; an empty text if all are."""
    return next((name for name in ("spin", "gcc") if shutil.which(name) is None), "")


def ask(question: Question) -> Answer:
    """Let spin search all states, until one breaks an invariant.

    Raises:
        RuntimeError: if spin or the compiler fails.
    """
    with tempfile.TemporaryDirectory(prefix="multielect-model-") as name:
        folder = Path(name)
        shutil.copy(MODEL, folder)
        defines = [f"-D{define}" for define in question.defines]
        _run(["spin", "-a", *defines, MODEL.name], folder)
        # A depth-first search of all states needs less memory. Breadth-first search finds the
        # shortest history.
        way = ["-O2"] if question.expected == HOLDS else ["-O0", "-DBFS"]
        options = ["-DSAFETY", "-DNOREDUCE", f"-DMEMLIM={MAX_MB}"]
        _run(["gcc", "-w", *way, *options, "-o", "pan", "pan.c"], folder)
        told = _run(["./pan", f"-m{DEEPEST}"], folder)
        violated = re.search(r"assertion violated (.*) \(at depth", told)
        history = ""
        if violated:
            history = _run(["spin", "-t", *defines, MODEL.name], folder)
    return Answer(
        question=question,
        broken=_invariant(violated[1]) if violated else "",
        states=int(_number(r"(\d+) states, stored", told)),
        whole="error" not in told.replace("errors: 0", "") and "Search not completed" not in told,
        seconds=_number(r"elapsed time ([\d.]+) seconds", told),
        memory_mb=_number(r"([\d.]+)\s+total actual memory", told),
        history=tuple(
            line.strip() for line in history.partition("\nspin:")[0].splitlines() if line.strip()
        ),
    )


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=MAX_SECONDS, check=False
    )
    # spin and its search program exit with other codes than 0 if they find something.
    said = done.stdout + done.stderr
    failed = command[0] == "gcc" and done.returncode
    if failed or done.returncode < 0 or "syntax error" in said or "Error: undeclared" in said:
        raise RuntimeError(f"{command[0]} failed:\n{said[-2000:]}")
    return said


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    return float(found[1]) if found else 0.0


def _invariant(assertion: str) -> str:
    return next((name for pattern, name in _INVARIANTS if re.search(pattern, assertion)), assertion)


def row(answer: Answer) -> str:
    """Return one line of the table."""
    question = answer.question
    return (
        f"{question.name:26} {question.about:56} {answer.states:>11,} "
        f"{answer.seconds:6.1f} {answer.memory_mb:6.0f}  {answer.verdict}"
    )


HEAD = f"{'model or fault':26} {'':56} {'states':>11} {'s':>6} {'MB':>6}  verdict"


def main() -> int:
    """Do the runs and print the table. Returns 1 if one result is not as expected."""
    parser = argparse.ArgumentParser(description="Check the model of the lease protocol.")
    parser.add_argument("--long", action="store_true", help="larger bounds as well: some minutes")
    parser.add_argument("--only", metavar="NAME", help="one run, with its history")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the answers there")
    wanted = parser.parse_args()
    if missing():
        print(f"{missing()} is not installed (Debian: apt-get install spin gcc)")
        return 2
    questions = [*SOUND, *(LONG if wanted.long else ()), *FAULTS, *LIMITS, *NOT_NEEDED]
    if wanted.only:
        questions = [each for each in (*questions, *LONG) if each.name == wanted.only][:1]
        if not questions:
            parser.error(f"there is no {wanted.only}")
    print(HEAD)
    answers = []
    for question in questions:
        answers.append(ask(question))
        print(row(answers[-1]), flush=True)
        if wanted.only:
            print("\n".join(answers[-1].history))
    wrong = sum(not answer.is_as_expected for answer in answers)
    print(f"{len(answers) - wrong} of {len(answers)} are as expected")
    if wanted.json:
        wanted.json.write_text(json.dumps([asdict(answer) for answer in answers], indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
