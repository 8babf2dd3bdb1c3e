"""A program in a process of its own, that a test may stop, freeze and kill.

Rules of this file:
    * No process outlives the context that started it.
    * Waiting is for a line that the process tells, within a bound.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tests.diary import WITHIN_S

if TYPE_CHECKING:
    from typing_extensions import Self

PROGRAM = Path(__file__).with_name("candidate.py")

Line = dict[str, Any]


class Program:
    """Runs a program that tells lines of JSON and obeys words, until the context ends."""

    def __init__(self, *command: str, cwd: Path | None = None) -> None:
        """Keep Python's arguments; entering the context starts the process."""
        self._command = [sys.executable, *command]
        self._cwd = cwd
        self._changed = threading.Condition()
        self._lines: list[Line] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs."""
        return self._process.poll()

    def say(self, word: str) -> None:
        """Give it a command, one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def freeze(self) -> None:
        """Have it stop itself by SIGSTOP; returns once it stands still."""
        self.say("freeze")
        self._wait_frozen()

    def interrupt(self) -> None:
        """Stop it by SIGSTOP, wherever it is; returns once it stands still."""
        os.kill(self._process.pid, signal.SIGSTOP)
        self._wait_frozen()

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it by SIGKILL; returns once it is gone."""
        self._process.kill()
        self._process.wait()

    def wait_end(self) -> int:
        """Return its exit status, once it ends."""
        status = self._process.wait(WITHIN_S)
        self._reader.join()
        return status

    def lines(self, what: str) -> list[Line]:
        """Return what it has told under this name."""
        with self._changed:
            return [line for line in self._lines if line["what"] == what]

    def wait(
        self, what: str, fits: Callable[[Line], bool] = lambda _: True, within_s: float = WITHIN_S
    ) -> Line:
        """Return the first line of this name that fits."""

        def find() -> Line | None:
            return next((line for line in self._lines if line["what"] == what and fits(line)), None)

        with self._changed:
            self._changed.wait_for(find, within_s)
            found = find()
            assert found is not None, f"it told no {what!r} that fits, but {self._lines}"
            return found

    def _wait_frozen(self) -> None:
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it ended instead of standing still"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            with self._changed:
                self._lines.append(json.loads(text))
                self._changed.notify_all()


class Candidate(Program):
    """Runs `candidate.py`, which stands for one election."""

    def __init__(self, url: str, *, prefix: str, key: str, ttl: float) -> None:
        """Keep what to stand for; entering the context starts the process."""
        super().__init__(str(PROGRAM), url, prefix, key, str(ttl))

    def beliefs(self) -> list[tuple[int, int]]:
        """Return when it believed for certain that it leads, from and to."""
        return [(line["from_ns"], line["to_ns"]) for line in self.lines("believed")]


def overlaps(
    some: list[tuple[int, int]], others: list[tuple[int, int]]
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the pairs of intervals that share an instant."""
    return [
        (one, other) for one in some for other in others if one[0] < other[1] and other[0] < one[1]
    ]
