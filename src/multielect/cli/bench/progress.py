"""The progress of a run: a bar on a terminal, otherwise one line for each suite.

Rules of this file:
    * The progress goes to stderr, so that the table can go into a pipe.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

_COLUMNS = 44


class Progress:
    """Shows how far a suite is. A context manager."""

    def __init__(self, console: Console) -> None:
        """Prepare to show the progress on `console`."""
        self._console = console
        self._suite = ""
        self._task: TaskID | None = None
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def enter_suite(self, name: str, question: str) -> None:
        """Show that a suite begins."""
        self._suite = name
        self._end_task()
        if not self._console.is_terminal:
            self._console.print(f"{name}: {question}", soft_wrap=True)
            return
        self._task = self._bars.add_task(self._label("beginning"), total=None)

    def begin(self, steps: int) -> None:
        """Set the number of steps of the suite."""
        if self._task is not None:
            self._bars.update(self._task, total=steps, completed=0)

    def step(self, what: str) -> None:
        """Show the next step. The previous step, if there was one, is done."""
        if self._task is not None:
            begun = bool(self._bars.tasks[-1].fields.get("begun"))
            self._bars.update(
                self._task, description=self._label(what), advance=int(begun), begun=True
            )

    def say(self, what: str) -> None:
        """Show what the suite does, without counting a step."""
        if self._task is not None:
            self._bars.update(self._task, description=self._label(what))

    def _label(self, what: str) -> str:
        return f"{self._suite}: {what}"[:_COLUMNS].ljust(_COLUMNS)

    def _end_task(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()
