"""What the user sees during the run: a live picture on a terminal, otherwise plain lines.

Rules of this file:
    * A view only shows what it receives. Both forms show each event once, in order.
    * 80 columns are enough, and only text goes into a pipe.
"""

from __future__ import annotations

import enum
import textwrap
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console, RenderableType

COLUMNS = 79
"""How wide text may be, so that it also fits where the last column wraps."""

_EVENT_INDENT = " " * 10
_PLAIN_SECONDS = 2.0
_BAR_COLUMNS = 30


class NodeState(enum.Enum):
    """The state of a node, with the text that is shown."""

    STARTING = "starting"
    RUNNING = "running"
    FROZEN = "frozen (SIGSTOP)"
    STOPPING = "draining (SIGTERM)"
    STOPPED = "stopped"
    KILLED = "killed (kill -9)"


@dataclass(frozen=True)
class Snapshot:
    """The state of the run.

    Attributes:
        elapsed_s: the seconds since the start.
        events: the number of all events.
        committed: the number of committed events.
        per_second: the events that were committed a second, lately.
        refused: the commits that the fence has refused.
        leads: how many elections each node leads, from the leader keys at the server.
        leaderless: how many elections have no leader.
        states: the state of each node.
    """

    elapsed_s: float
    events: int
    committed: int
    per_second: float
    refused: int
    leads: dict[str, int]
    leaderless: int
    states: dict[str, NodeState]


class View(ABC):
    """Shows a run. A context manager, which must be entered before anything is shown."""

    @abstractmethod
    def say(self, elapsed_s: float, what: str) -> None:
        """Show that something happened."""

    @abstractmethod
    def show(self, snapshot: Snapshot) -> None:
        """Show the state of the run."""

    def __enter__(self) -> View:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return


class PlainView(View):
    """Prints a line for each event, and the state of the run every two seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = 0.0

    def say(self, elapsed_s: float, what: str) -> None:
        """Print one line, or a few if it is long."""
        _print_event(self._console, elapsed_s, what)

    def show(self, snapshot: Snapshot) -> None:
        """Print one line, unless there was one within the last two seconds."""
        if snapshot.elapsed_s < self._next_s:
            return
        self._next_s = snapshot.elapsed_s + _PLAIN_SECONDS
        leads = ", ".join(f"{snapshot.leads.get(node, 0):,}" for node in snapshot.states)
        self._console.print(
            f"{snapshot.elapsed_s:6.1f} s  {snapshot.committed:,} of {snapshot.events:,} events, "
            f"{snapshot.per_second:,.0f}/s; led: {leads}",
            soft_wrap=True,
        )


class LiveView(View):
    """Draws a picture a few times a second, below the events so far."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=5, transient=True)

    def __enter__(self) -> View:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, elapsed_s: float, what: str) -> None:
        """Print above the picture."""
        _print_event(self._console, elapsed_s, what)

    def show(self, snapshot: Snapshot) -> None:
        """Draw the picture anew."""
        self._live.update(picture(snapshot))


def view_for(console: Console) -> View:
    """Return a live view for a terminal, or a plain one."""
    return LiveView(console) if console.is_terminal else PlainView(console)


def _print_event(console: Console, elapsed_s: float, what: str) -> None:
    lines = textwrap.wrap(what, COLUMNS - len(_EVENT_INDENT))
    console.print(Text(f"{elapsed_s:6.1f} s  ").append(lines[0], style="bold"), soft_wrap=True)
    for line in lines[1:]:
        console.print(Text(_EVENT_INDENT).append(line, style="bold"), soft_wrap=True)


def picture(snapshot: Snapshot) -> RenderableType:
    """Return the picture of a snapshot, for a terminal."""
    elections = max(1, sum(snapshot.leads.values()) + snapshot.leaderless)
    nodes = Table.grid(padding=(0, 2, 0, 0))
    nodes.add_column(min_width=10)
    nodes.add_column(width=_BAR_COLUMNS)
    nodes.add_column(justify="right", width=7)
    nodes.add_column(min_width=18)
    for node, state in snapshot.states.items():
        led = snapshot.leads.get(node, 0)
        style = "green" if state is NodeState.RUNNING else "red"
        nodes.add_row(
            node,
            ProgressBar(total=elections, completed=led, width=_BAR_COLUMNS, complete_style=style),
            f"{led:,}",
            Text(state.value, style=style),
        )
    nodes.add_row("", "", f"{snapshot.leaderless:,}", "without a leader")
    nodes.add_row(
        "events",
        ProgressBar(total=snapshot.events, completed=snapshot.committed, width=_BAR_COLUMNS),
        f"{100 * snapshot.committed // snapshot.events} %",
        f"{snapshot.per_second:,.0f}/s",
    )
    figures = (
        f"{snapshot.elapsed_s:.0f} s   {snapshot.committed:,} of {snapshot.events:,} events "
        f"committed   {snapshot.refused:,} late commits refused"
    )
    return Group(Text(), nodes, Text(figures, style="dim"))
