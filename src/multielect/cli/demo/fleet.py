"""The processes of the nodes: starts, controls, watches and ends them.

Rules of this file:
    * A node that ends too early is an error at once. The error has the end of its log.
    * However a run ends, also by an exception, no process is left.
    * The nodes' beliefs are read from their files, which outlive them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

from .beliefs import BelievedTerm, NodeBeliefs, believed_terms, read_beliefs
from .node import NodeSpec
from .plan import Settings
from .process import NodeProcess
from .stream import EventStream
from .view import NodeState

PATIENCE_SECONDS = 20.0
"""How long to wait for what takes a moment, on a machine that may be busy."""

_STOP_SECONDS = 15.0
_LOOK_SECONDS = 0.01
_HEAR_SECONDS = 0.001


class DemoError(Exception):
    """The demo could not be completed. The message says why."""


class Fleet:
    """The nodes of one run. A context manager, at whose end all of them are dead."""

    def __init__(self, settings: Settings, stream: EventStream, folder: Path) -> None:
        """Save the events in `folder`, which takes all other files too."""
        self._settings = settings
        self._folder = folder
        self._processes: dict[str, NodeProcess] = {}
        self._waiting: set[str] = set()
        self._died_ns: dict[str, int] = {}
        self._start_ns = 0
        self.states: dict[str, NodeState] = {}
        stream.save(folder / "events")

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            process.close()

    def __getitem__(self, node: str) -> NodeProcess:
        """Return the process of a node."""
        return self._processes[node]

    def start(self, node: str) -> None:
        """Start a node, and return at once. The node waits for `begin`."""
        spec = NodeSpec(
            url=self._settings.url,
            prefix=self._settings.prefix,
            node=node,
            ttl=self._settings.ttl,
            stream=str(self._folder / "events"),
            beliefs=str(self._beliefs_path(node)),
            span_ns=int(self._settings.seconds * 1e9),
            conductor=os.getpid(),
        )
        self._processes[node] = NodeProcess(spec, self._folder / f"{node}.log")
        self._waiting.add(node)
        self.states[node] = NodeState.STARTING

    @property
    def is_ready(self) -> bool:
        """Whether all nodes that were started have loaded the events."""
        self._waiting -= {
            node for node in self._waiting if self._processes[node].received("ready") is not None
        }
        return not self._waiting

    def begin(self, start_ns: int) -> None:
        """Let all nodes begin that have not begun. The stream starts, or did, at `start_ns`."""
        for node, state in self.states.items():
            if state is NodeState.STARTING:
                self._processes[node].send(str(start_ns))
                self.states[node] = NodeState.RUNNING

    def wait_until_ready(self) -> None:
        """Wait until all nodes have loaded the events.

        Raises:
            DemoError: if one does not in time.
        """
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not self.is_ready:
            self.check()
            if time.monotonic() > give_up:
                raise DemoError(f"{', '.join(sorted(self._waiting))} did not get ready")
            time.sleep(_LOOK_SECONDS)

    def receive(self, node: str, word: str) -> list[int]:
        """Wait until a node sends this word, and return the numbers after it.

        Raises:
            DemoError: if it does not in time.
        """
        give_up = time.monotonic() + PATIENCE_SECONDS
        while (said := self._processes[node].received(word)) is None:
            self.check()
            if time.monotonic() > give_up:
                raise DemoError(f"{node} did not say {word!r} in time{self.last_words()}")
            time.sleep(_HEAR_SECONDS)
        return said

    def note_death(self, node: str, died_ns: int) -> None:
        """Record that a node was killed, and was dead by `died_ns`."""
        self._died_ns[node] = died_ns
        self.states[node] = NodeState.KILLED

    def end(self) -> None:
        """Stop all nodes that still run cleanly, and wait until all have ended.

        Raises:
            DemoError: if one does not end in time.
        """
        for node, state in self.states.items():
            if state is NodeState.RUNNING:
                self._processes[node].send("end")
                self.states[node] = NodeState.STOPPING
        give_up = time.monotonic() + _STOP_SECONDS
        while not all(process.ended for process in self._processes.values()):
            if time.monotonic() > give_up:
                raise DemoError(f"a node did not stop within {_STOP_SECONDS:.0f} s")
            self.check()
            time.sleep(_LOOK_SECONDS)
        self.check()

    def check(self) -> None:
        """Check that all nodes run that should.

        Raises:
            DemoError: if one does not.
        """
        for node, process in self._processes.items():
            status = process.exit_status
            if status is None or self.states[node] is NodeState.KILLED:
                continue
            ending = self.states[node] in {NodeState.STOPPING, NodeState.STOPPED}
            if status != 0 or not ending:
                raise DemoError(f"{node} ended by itself, status {status}{self.last_words()}")

    def last_words(self) -> str:
        """Return the ends of the nodes' logs, as lines that follow a message."""
        logs = {node: process.last_words() for node, process in self._processes.items()}
        return "".join(f"\nThe end of {node}'s log:\n{log}" for node, log in logs.items() if log)

    def beliefs(self) -> list[NodeBeliefs]:
        """Return what each node believed so far."""
        return [
            believed_terms(
                node, read_beliefs(self._beliefs_path(node)), died_ns=self._died_ns.get(node)
            )
            for node, state in self.states.items()
            if state is not NodeState.STARTING
        ]

    def terms(self) -> list[BelievedTerm]:
        """Return the terms of all nodes so far."""
        return [term for beliefs in self.beliefs() for term in beliefs.terms]

    def _beliefs_path(self, node: str) -> Path:
        return self._folder / f"{node}.beliefs"
