"""The sampler: reads `is_leader` from outside the callbacks, all the time.

Rules of this file:
    * It trusts only `is_leader`. If that were a cached flag, the sampler would show it.
    * It reads a few hundred elections at a time, with a pause in between. So it costs a few per
      cent of a core, however many elections there are.
    * It reads the clock before and after each look. beliefs.py says what each reading proves.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from multielect._runtime.clock import Clock

from .beliefs import BeliefLog, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ELECTIONS_A_LOOK = 256
_PAUSE_SECONDS = 0.003


class Watched(Protocol):
    """The part of an election that the sampler reads."""

    @property
    def is_leader(self) -> bool:
        """Whether this node leads now."""

    @property
    def epoch(self) -> int:
        """The fencing token."""


class Sampler:
    """A thread that records when each election was first and last seen to be led here."""

    def __init__(
        self,
        log: BeliefLog,
        elections: Iterable[tuple[int, Watched]],
        now_ns: Callable[[], int] | None = None,
    ) -> None:
        """Prepare to look at these elections, each with its number."""
        self._log = log
        self._now_ns = now_ns or Clock().now_ns
        self._watched = list(elections)
        self._seen: dict[int, _Sighting] = {}
        self._looking = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking, after one last look at everything. Returns when that is done."""
        self._ended.set()
        self._thread.join()
        self.look_at_all()
        for election in list(self._seen):
            self._forget(election)

    def look_at_all(self) -> None:
        """Look at every election once. Any thread."""
        for first in range(0, len(self._watched), _ELECTIONS_A_LOOK):
            self._look(first)

    def _run(self) -> None:
        while not self._ended.wait(_PAUSE_SECONDS):
            for first in range(0, len(self._watched), _ELECTIONS_A_LOOK):
                self._look(first)
                if self._ended.wait(_PAUSE_SECONDS):
                    return

    def _look(self, first: int) -> None:
        with self._looking:
            some = self._watched[first : first + _ELECTIONS_A_LOOK]
            before_ns = self._now_ns()
            found = [watched.epoch if watched.is_leader else 0 for _, watched in some]
            after_ns = self._now_ns()
            for (election, _), epoch in zip(some, found, strict=True):
                sighting = self._seen.get(election)
                if sighting is not None and sighting.epoch != epoch:
                    self._forget(election)
                    sighting = None
                if not epoch:
                    continue
                if sighting is None:
                    sighting = self._seen[election] = _Sighting(epoch)
                    self._log.write(
                        Kind.SEEN_LEADING, election, epoch, belief_ns=after_ns, written_ns=after_ns
                    )
                sighting.last_ns = before_ns

    def _forget(self, election: int) -> None:
        sighting = self._seen.pop(election)
        self._log.write(
            Kind.LAST_SEEN_LEADING,
            election,
            sighting.epoch,
            belief_ns=sighting.last_ns,
            written_ns=self._now_ns(),
        )


class _Sighting:
    __slots__ = ("epoch", "last_ns")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.last_ns = 0
