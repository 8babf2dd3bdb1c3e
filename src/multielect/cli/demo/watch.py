"""The watch: reads the state of the run, shows it, and waits.

Rules of this file:
    * Every wait is bounded, and goes on to read the state. So it notices a node that dies.
    * A look costs CPU time, so there is none right after an event that is measured.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from multielect._runtime.clock import Clock

from .checkpoint import CheckpointStore
from .fleet import PATIENCE_SECONDS, DemoError, Fleet
from .leases import LeaseReader
from .plan import Settings
from .view import Snapshot, View

LOOK_SECONDS = 0.2

_RATE_LOOKS = 10


class Watch:
    """Looks at one run, from the start of its stream on."""

    def __init__(
        self,
        settings: Settings,
        fleet: Fleet,
        *,
        events: int,
        store: CheckpointStore,
        leases: LeaseReader,
        view: View,
    ) -> None:
        """Begin now, with a stream of so many events."""
        self._settings = settings
        self._events = events
        self._fleet = fleet
        self._store = store
        self._leases = leases
        self._view = view
        self._looks: deque[tuple[int, int]] = deque(maxlen=_RATE_LOOKS)
        self.now_ns = Clock().now_ns
        self.start_ns = self.now_ns()

    def say(self, what: str) -> None:
        """Show that something happened."""
        self._view.say((self.now_ns() - self.start_ns) / 1e9, what)

    def until_part(self, part: float) -> None:
        """Look again and again until that part of the stream's time has passed."""
        at_ns = self.start_ns + int(part * self._settings.seconds * 1e9)
        while self.now_ns() < at_ns:
            self.look()
            time.sleep(min(LOOK_SECONDS, max(0.0, (at_ns - self.now_ns()) / 1e9)))

    def until(self, what: str, done: Callable[[Snapshot], bool]) -> None:
        """Look again and again until `done` returns True.

        Args:
            what: the condition, for the error message.
            done: called with the state of the run after each look.

        Raises:
            DemoError: if `done` does not return True in time.
        """
        if not self.sees(done):
            raise DemoError(f"timed out waiting for {what}{self._fleet.last_words()}")

    def sees(self, done: Callable[[Snapshot], bool]) -> bool:
        """Look until `done` returns True. Returns whether it did in time."""
        give_up = time.monotonic() + 2 * self._settings.ttl + PATIENCE_SECONDS
        while True:
            time.sleep(LOOK_SECONDS)
            if done(self.look()):
                return True
            if time.monotonic() > give_up:
                return False

    def look(self) -> Snapshot:
        """Read the state of the run, and show it.

        Raises:
            DemoError: if a node ended that should not.
        """
        self._fleet.check()
        leads: dict[str, int] = {}
        leaders = self._leases.leaders()
        for leader in leaders:
            if leader is not None:
                leads[leader] = leads.get(leader, 0) + 1
        totals = self._store.totals()
        now_ns = self.now_ns()
        self._looks.append((now_ns, totals.events))
        first_ns, first_events = self._looks[0]
        snapshot = Snapshot(
            elapsed_s=(now_ns - self.start_ns) / 1e9,
            events=self._events,
            committed=totals.events,
            per_second=(totals.events - first_events) / max(1e-3, (now_ns - first_ns) / 1e9),
            refused=totals.refused,
            leads=leads,
            leaderless=leaders.count(None),
            states=dict(self._fleet.states),
        )
        self._view.show(snapshot)
        return snapshot
