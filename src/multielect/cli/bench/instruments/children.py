"""Child processes: they run functions that must not share the parent's CPU time or memory.

Rules of this file:
    * A child and its parent exchange messages over a pipe. A child that fails sends the reason.
    * No child outlives a run. A child that waits for a message ends with its parent, and the end of
      the `with` block ends it in any case. Ctrl-C reaches only the parent, which decides.
    * A child is a new interpreter, without the parent's memory.
    * Children are not started by `multiprocessing`, because that starts one more process, which
      outlives the run.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from ..suite import BenchError

_END_S = 5.0
_PROGRAM = "from multielect.cli.bench.instruments.children import main; main()"


class Parent:
    """The parent, as a child sees it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def send(self, message: Any) -> None:  # noqa: ANN401
        """Send a message."""
        self._pipe.send(("message", message))

    def receive(self) -> Any:  # noqa: ANN401
        """Wait for the next message.

        Raises:
            EOFError: if the parent is gone. Do not catch it.
        """
        return self._pipe.recv()


class Child:
    """A function that runs in a child process. A context manager, which ends the process.

    The function must be importable by name. It is called with its `Parent` and `args`.
    """

    def __init__(self, name: str, target: Callable[..., None], *args: Any) -> None:  # noqa: ANN401
        """Start the process. Errors call it `name`."""
        self._name = name
        ours, theirs = socket.socketpair()
        with theirs:
            # In its own session, signals of the terminal reach only the parent.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._pipe = Connection(ours.detach())
        self.send(sys.path)
        self.send((target, args))

    @property
    def pid(self) -> int:
        """The process id, to stop or kill the child."""
        return self._process.pid

    def send(self, message: Any) -> None:  # noqa: ANN401
        """Send a message. If the child has died, nothing happens."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send(message)

    def receive(self, timeout_s: float) -> Any:  # noqa: ANN401
        """Wait for the next message.

        Raises:
            BenchError: if the child failed or has ended, or sends nothing in time.
        """
        try:
            if not self._pipe.poll(timeout_s):
                raise BenchError(f"{self._name} sent nothing for {timeout_s:.0f} seconds")
            kind, message = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise BenchError(f"{self._name} has ended") from None
        if kind == "failed":
            raise BenchError(f"{self._name} failed: {message}")
        return message

    def kill(self) -> None:
        """End it with SIGKILL, and return when it is dead."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process: by SIGTERM, and by SIGKILL if that does not help."""
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._pipe.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def main() -> None:
    """Run the parent's function in this child, which talks over the descriptor in `sys.argv`."""
    pipe = Connection(int(sys.argv[1]))
    # A child whose parent is gone ends without a message.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        sys.path[:] = pipe.recv()
        try:
            target, args = pipe.recv()
            target(Parent(pipe), *args)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        # The parent waits for a message, whatever the error is.
        except Exception as error:  # noqa: BLE001
            pipe.send(("failed", f"{type(error).__name__}: {error}"))
