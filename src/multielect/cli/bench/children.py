"""Functions in processes of their own: nodes, neighbours, whoever must not share our CPU or memory.

Rules of this file:
    * A child and its parent talk by messages over a pipe. A child that fails says why.
    * Nothing outlives a run: a child that listens ends with its parent, however that ends, and
      leaving the `with` block ends it in any case. Ctrl-C reaches the parent alone, which decides.
    * A child is a fresh interpreter: nothing that the parent has grown is in its memory.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from .suite import BenchError

_SPAWN = multiprocessing.get_context("spawn")
_END_S = 5.0


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
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_run, args=(target, theirs, args), daemon=True)
        # Ctrl-C must not reach it before it has said that it will not hear it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process, to stop or kill it."""
        assert self._process.pid is not None
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
        self._process.join()

    def close(self) -> None:
        """End it: by SIGTERM, and by SIGKILL if that does not help."""
        self._process.terminate()
        self._process.join(_END_S)
        if self._process.is_alive():
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


def _run(target: Callable[..., None], pipe: Connection, args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            target(Parent(pipe), *args)
        except (EOFError, BrokenPipeError):
            raise
        # Whatever it is, the parent is waiting for a word.
        except Exception as error:  # noqa: BLE001
            pipe.send(("failed", f"{type(error).__name__}: {error}"))
