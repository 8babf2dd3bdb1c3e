"""The conductor's end of a node process.

Rules of this file:
    * A node runs in its own session, so that Ctrl-C reaches only the conductor, which then decides
      in what order everything ends.
    * The lines of a node arrive through a thread and a queue, so nobody blocks on a pipe.
    * `close` leaves no process behind, whatever its state.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .node import NodeSpec

_NODE_MODULE = "multielect.cli.demo.node"
_LAST_WORDS_LINES = 12


class NodeProcess:
    """A node in a separate process."""

    def __init__(self, spec: NodeSpec, log: Path) -> None:
        """Start the process. It sends ``ready`` when it has loaded the events."""
        self.node = spec.node
        self._log = log
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _NODE_MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name=f"{self.node} says", daemon=True
        )
        self._reader.start()
        self.send(spec.to_line())

    def send(self, line: str) -> None:
        """Send one line to the node. If the node has died, nothing happens."""
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.write(line + "\n")
            pipe.flush()

    def received(self, word: str) -> list[int] | None:
        """Return the numbers after `word` if the node's next line begins so; None without a line.

        Raises:
            ValueError: if the line begins with another word.
        """
        try:
            said = self._said.get_nowait()
        except queue.Empty:
            return None
        first, *numbers = said.split()
        if first != word:
            raise ValueError(f"{self.node} said {said!r} where {word!r} was expected")
        return [int(number) for number in numbers]

    @property
    def ended(self) -> bool:
        """Whether the process has ended and was reaped."""
        return self._process.poll() is not None

    @property
    def exit_status(self) -> int | None:
        """The status it ended with, negative for a signal; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask the node to stop cleanly, and return at once."""
        self._process.send_signal(signal.SIGTERM)

    def thaw(self) -> None:
        """Let a process that stopped itself go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process with SIGKILL, and return when it is dead."""
        self._process.kill()
        self._process.wait()

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LAST_WORDS_LINES:])

    def close(self) -> None:
        """Make sure the process is dead, and close the pipes."""
        self.kill()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _read(self, pipe: IO[str]) -> None:
        for line in pipe:
            self._said.put(line.strip())
