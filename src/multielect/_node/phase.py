"""How far a node is in its life, and what it may still be asked to do.

Rules of this file:
    * A node is started once, may drain, is stopped once, and may fail. Nothing leads back, but
      where a start did not succeed.
    * In a forked child, and in a simulated process that has died, a node is over from the start.
    * What would change something is refused with a `ClosedError` when the node is over.
"""

from __future__ import annotations

import os

from ..errors import ClosedError, MultielectError
from .environment import Environment


class Phase:
    """What has become of one node. Any thread may read; the node alone writes.

    Attributes:
        started: whether it was started, whatever became of it.
        draining: whether it stands for nothing any more.
        stopped: whether it was stopped.
        fault: the fault of ours that ended it.
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
        """Whether the process of the node is another one than this, or has died."""
        return self.is_forked or self._environment.has_died

    @property
    def is_running(self) -> bool:
        """Whether the node was started, was not stopped and has not failed, in this process."""
        return self.started and not self.stopped and self.fault is None and not self.is_elsewhere

    def check_process(self) -> None:
        """Raise `ClosedError` in a forked child, which must touch nothing of its parent's.

        It may even have inherited the core's mutex, or the condition for those who wait, as
        another thread was holding it.
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
                "this node drains, or has drained: it stands for nothing any more. Make a new one"
                " to stand for election again"
            )

    def check_started(self) -> None:
        """Raise `ClosedError` if the node is over, or has not begun."""
        self.check_open()
        if not self.started:
            raise ClosedError(
                "this node was not started: call start() before you wait, or enter its with block"
            )
