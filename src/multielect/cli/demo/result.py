"""The results of a run, for the report."""

from __future__ import annotations

from dataclasses import dataclass, field

from .takeover import Moves, Takeovers
from .verdict import Verdict


@dataclass
class Freezing:
    """The results of the freeze of a node."""

    node: str
    led: int
    frozen_s: float
    late_commits: int
    late_refused: int
    takeovers: Takeovers


@dataclass
class Crash:
    """The results of the kill of a node."""

    node: str
    led: int
    takeovers: Takeovers


@dataclass
class Change:
    """The results of a planned change of the fleet: a node came, came back, or left.

    Attributes:
        node: the node.
        least: how many elections had to move: the share of the node that came, or all elections
            of the node that left.
        moves: the elections that moved.
        is_balanced: whether every running node led its share afterwards.
        comes: whether the node came, and did not leave.
    """

    node: str
    least: int
    moves: Moves
    is_balanced: bool
    comes: bool

    @property
    def takeovers(self) -> Takeovers:
        """How long each election that moved had no leader."""
        return self.moves.takeovers

    @property
    def is_idle(self) -> bool:
        """Whether the node came and was given nothing, though it has a share."""
        return self.comes and self.least > 0 and self.given == 0

    @property
    def given(self) -> int:
        """How many elections the node itself was given."""
        return self.moves.to[self.node]


@dataclass
class Result:
    """The results of a run."""

    elections: int
    nodes: int
    all_led_ms: float = 0.0
    even_ms: float = 0.0
    freezing: Freezing | None = None
    back: Change | None = None
    join: Change | None = None
    crash: Crash | None = None
    stop: Change | None = None
    stream_s: float = 0.0
    fenced_out: int = 0
    verdict: Verdict = field(init=False)

    @property
    def changes(self) -> list[Change]:
        """All planned changes."""
        return [change for change in (self.back, self.join, self.stop) if change is not None]
