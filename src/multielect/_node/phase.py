"""The phase of a node, and what the node may still be asked to do in it.

Rules of this file:
    * A node is started once, may drain, is stopped once, and may fail. It never goes back to an
      earlier phase, except when a start did not succeed.
    * In a forked child, and in a simulated process that has died, a node is over.
    * When the node is over, a call that would change something raises `ClosedError`.
"""

from __future__ import annotations

import os

from ..errors import ClosedError, MultielectError
from .environment import Environment


class Phase:
    """The phase of one node. Any thread may read it; only the node writes it.

    Attributes:
        started: whether the node was started.
        draining: whether the node drains or has drained.
        stopped: whether the node was stopped.
        fault: the fault of multielect that ended it; None if there was none.
    """

    def __init__(self, environment: Environment) -> None:
        """Begin as a node that was not started."""
        self._environment = environment
        self._pid = os.getpid()
        self.started = False
        self.draining = False
        self.stopped = False
        self.fault: MultielectError | None = None

    @property
    def is_forked(self) -> bool:
        """Whether the node belongs to the parent of this process."""
        return os.getpid() != self._pid

    @property
    def is_elsewhere(self) -> bool:
        """Whether the node belongs to another process, or to a simulated one that has died."""
        return self.is_forked or self._environment.has_died

    @property
    def is_running(self) -> bool:
        """Whether the node was started, was not stopped and has not failed, in this process."""
        return self.started and not self.stopped and self.fault is None and not self.is_elsewhere

    def check_process(self) -> None:
        """Raise `ClosedError` in a forked child, which must not use its parent's node.

        Another thread may have held the core's mutex, or the node's condition, during the fork.
        """
        if self.is_forked:
            raise ClosedError(
                f"this node belongs to process {self._pid}: a forked child must make its own"
            )

    def check_open(self) -> None:
        """Raise `ClosedError` if the node is over."""
        self.check_process()
        if self._environment.has_died:
            raise ClosedError("this node's process has died: make a new one")
        if self.fault is not None:
            raise ClosedError(f"this node has failed, make a new one: {self.fault}")
        if self.stopped:
            raise ClosedError("this node was stopped: make a new one to stand for election again")

    def check_campaigning(self) -> None:
        """Raise `ClosedError` if the node is over, or has begun to drain."""
        self.check_open()
        if self.draining:
            raise ClosedError(
                "this node drains, or has drained, and campaigns for nothing any more: make a new"
                " one to stand for election again"
            )

    def check_started(self) -> None:
        """Raise `ClosedError` if the node is over, or has not begun."""
        self.check_open()
        if not self.started:
            raise ClosedError(
                "this node was not started: call start() before you wait, or enter its with block"
            )
