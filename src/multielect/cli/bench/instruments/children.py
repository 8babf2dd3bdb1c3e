"""Functions in processes of their own: nodes, neighbours, whoever must not share our CPU or memory.

Rules of this file:
    * A child and its parent talk by messages over a pipe. A child that fails says why.
    * Nothing outlives a run: a child that listens ends with its parent, however that ends, and
      leaving the `with` block ends it in any case. Ctrl-C reaches the parent alone, which decides.
    * A child is a fresh interpreter: nothing that the parent has grown is in its memory.
    * Not a process of multiprocessing's: those bring one more, which outlives the run a little.
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

    def tell(self, message: Any) -> None:  # noqa: ANN401
        """Send a message."""
        self._pipe.send(("told", message))

    def hear(self) -> Any:  # noqa: ANN401
        """Wait for the next message.

        Raises:
            EOFError: when the parent is gone: let it pass.
        """
        return self._pipe.recv()

    @property
    def has_said(self) -> bool:
        """Whether `hear` would not wait: there is a message, or the parent is gone."""
        return self._pipe.poll()


class Child:
    """A function that runs in a process of its own. A context manager that ends it.

    The function must be importable by name. It is called with its `Parent` and `args`.
    """

    def __init__(self, name: str, target: Callable[..., None], *args: Any) -> None:  # noqa: ANN401
        """Start it. `name` is what errors call it."""
        self._name = name
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: what the terminal says is for the parent to hear.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._pipe = Connection(ours.detach())
        self.tell(sys.path)
        self.tell((target, args))

    @property
    def pid(self) -> int:
        """Its process, to stop or kill it."""
        return self._process.pid

    def tell(self, message: Any) -> None:  # noqa: ANN401
        """Send a message. A child that has died hears nothing."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._pipe.send(message)

    def hear(self, timeout_s: float) -> Any:  # noqa: ANN401
        """Wait for the next message.

        Raises:
            BenchError: if it failed, has ended, or says nothing in time.
        """
        try:
            if not self._pipe.poll(timeout_s):
                raise BenchError(f"{self._name} said nothing for {timeout_s:.0f} seconds")
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
        """End it: by SIGTERM, and by SIGKILL if that does not help."""
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
    """Be a child: run the function that the parent names, over the descriptor that it gives."""
    pipe = Connection(int(sys.argv[1]))
    # Lost with its parent, it ends in silence.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        sys.path[:] = pipe.recv()
        try:
            target, args = pipe.recv()
            target(Parent(pipe), *args)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        # Whatever it is, the parent is waiting for a word.
        except Exception as error:  # noqa: BLE001
            pipe.send(("failed", f"{type(error).__name__}: {error}"))
