"""What a group told its callbacks, kept in order, for tests that wait for it.

Rules of this file:
    * It is written by callbacks of any thread or loop, and read by the test's.
    * Waiting is for an event and has an end; the end is generous, for a busy machine.
    * `terms` holds every election's entries against invariant I6: each begin is followed by
      one end, of the same epoch, and epochs rise.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from multielect import DemotionReason, MultielectError, Term

WITHIN_S = 20.0
"""How long to wait for what takes a fraction of a second."""


@dataclass(frozen=True)
class Entry:
    """A term begun (`reason` None) or ended."""

    key: str
    epoch: int
    reason: DemotionReason | None
    at_ns: int
    term: Term


class Diary:
    """Callbacks that write down what they are told."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.errors: list[MultielectError] = []
        self._changed = threading.Condition()

    def elected(self, term: Term) -> None:
        assert term.began_ns is not None
        self._write(Entry(term.key, term.epoch, None, term.began_ns, term))

    def demoted(self, term: Term, reason: DemotionReason) -> None:
        assert term.ended_ns is not None
        assert term.reason is reason
        self._write(Entry(term.key, term.epoch, reason, term.ended_ns, term))

    def error(self, error: MultielectError) -> None:
        with self._changed:
            self.errors.append(error)
            self._changed.notify_all()

    def elections(self) -> list[Entry]:
        return [entry for entry in list(self.entries) if entry.reason is None]

    def demotions(self) -> list[Entry]:
        return [entry for entry in list(self.entries) if entry.reason is not None]

    def told(self, key: str) -> list[DemotionReason | None]:
        """Return what became of one election's terms: None for each that began."""
        return [entry.reason for entry in list(self.entries) if entry.key == key]

    def wait_for(self, condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
        """Wait until the condition holds; it is looked at with each entry."""
        with self._changed:
            assert self._changed.wait_for(condition, within_s), f"in vain; told: {self.entries}"

    def terms(self) -> dict[str, list[int]]:
        """Return the epochs of each election, having checked that begins and ends are pairs."""
        epochs: dict[str, list[int]] = {}
        open_terms: dict[str, int] = {}
        for entry in list(self.entries):
            if entry.reason is None:
                assert entry.key not in open_terms, f"begun twice: {entry}"
                open_terms[entry.key] = entry.epoch
                seen = epochs.setdefault(entry.key, [])
                assert not seen or seen[-1] < entry.epoch, f"the epoch did not rise: {entry}"
                seen.append(entry.epoch)
            else:
                assert open_terms.pop(entry.key, None) == entry.epoch, f"ended unbegun: {entry}"
        return epochs

    def _write(self, entry: Entry) -> None:
        with self._changed:
            self.entries.append(entry)
            self._changed.notify_all()


def until(condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    """Wait until the condition holds, of which no event tells."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def check_no_overlap(*diaries: Diary) -> None:
    """Hold what all nodes believed against I1 and I2."""
    terms: dict[str, list[tuple[int, int, int]]] = {}
    for diary in diaries:
        begun = {(e.key, e.epoch): e.at_ns for e in diary.elections()}
        for end in diary.demotions():
            began_ns = begun[end.key, end.epoch]
            terms.setdefault(end.key, []).append((end.epoch, began_ns, end.at_ns))
    for key, found in terms.items():
        found.sort()
        for (epoch, _, ended_ns), (next_epoch, began_ns, _) in itertools.pairwise(found):
            assert epoch < next_epoch, key
            assert ended_ns <= began_ns, f"{key} had two leaders at once"
