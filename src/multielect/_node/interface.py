"""The interface of the node behind a group or an elector, for the rest of the package.

Rules of this file:
    * Fences, stream consumers, simulated worlds and benchmarks reach a node only through `node_of`,
      and use only `NodeInterface`.
    * Users see none of this. `base` has the interface for users.
"""

from __future__ import annotations

from typing import Any, Protocol

from .._protocol.keys import KeyLayout
from ..errors import MultielectError
from .base import BaseElectionGroup, BaseElector
from .environment import Environment
from .probe import Probe


class NodeInterface(Protocol):
    """A node, as the rest of the package sees it. Any thread may use it.

    Attributes:
        layout: the key names of its elections.
        environment: its environment.
    """

    layout: KeyLayout
    environment: Environment

    @property
    def is_running(self) -> bool:
        """Whether the node was started, was not stopped and has not failed, in this process."""

    def report(self, error: MultielectError) -> None:
        """Log an error and report it through `on_error`."""

    def probe(self) -> Probe:
        """Return a probe, which measures the node."""


def node_of(base: BaseElectionGroup[Any] | BaseElector[Any]) -> NodeInterface:
    """Return the node behind a group or an elector."""
    return base._node
