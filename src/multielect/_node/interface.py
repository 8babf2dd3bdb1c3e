"""What the rest of the package may ask of the node behind a group or an elector.

Rules of this file:
    * Fences, stream consumers, simulated worlds and benchmarks reach a node through `node_of` only,
      and use nothing of it but `NodeInterface`.
    * Users see none of this: what they may ask is in `base`.
"""

from __future__ import annotations

from typing import Any, Protocol

from .._protocol.keys import KeyLayout
from ..errors import MultielectError
from .base import BaseElectionGroup, BaseElector
from .environment import Environment
from .probe import Probe


class NodeInterface(Protocol):
    """A node, as the rest of the package sees it. Any thread.

    Attributes:
        layout: where the keys of its elections lie.
        environment: what it runs in.
    """

    layout: KeyLayout
    environment: Environment

    @property
    def is_running(self) -> bool:
        """Whether the node was started, was not stopped and has not failed, in this process."""

    def report(self, error: MultielectError) -> None:
        """Log an error and have it told through `on_error`."""

    def probe(self) -> Probe:
        """Return what measures the node."""


def node_of(base: BaseElectionGroup[Any] | BaseElector[Any]) -> NodeInterface:
    """Return the node behind a group or an elector."""
    return base._node
