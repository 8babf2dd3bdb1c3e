"""A diary in which a test waits for one entry and goes on from there.

Rules of this file:
    * Waiting ends the moment the entry is there. A bound is generous, as machines are busy: a
      test that means a time compares times.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.diary import WITHIN_S, Diary, Entry

from multielect import MultielectError


class Record(Diary):
    """What one node told."""

    def of(self, key: str) -> list[Entry]:
        """Return what was told of one election."""
        return [entry for entry in list(self.entries) if entry.key == key]

    def wait_elected(self, key: str, *, above: int = 0, within_s: float = WITHIN_S) -> Entry:
        """Return the first term of `key` that began with an epoch above `above`."""
        return self._wait_entry(
            lambda entry: entry.key == key and entry.reason is None and entry.epoch > above,
            within_s,
        )

    def wait_demoted(self, key: str, *, above: int = 0, within_s: float = WITHIN_S) -> Entry:
        """Return the first term of `key` that ended with an epoch above `above`."""
        return self._wait_entry(
            lambda entry: entry.key == key and entry.reason is not None and entry.epoch > above,
            within_s,
        )

    def wait_error(self, kind: type[MultielectError], words: str) -> MultielectError:
        """Return the first error of this kind whose message holds `words`."""

        def fitting() -> list[MultielectError]:
            return [each for each in self.errors if isinstance(each, kind) and words in str(each)]

        with self._changed:
            assert self._changed.wait_for(fitting, WITHIN_S), f"{words!r} not in {self.errors}"
            return fitting()[0]

    def _wait_entry(self, fits: Callable[[Entry], bool], within_s: float) -> Entry:
        def fitting() -> list[Entry]:
            return [entry for entry in self.entries if fits(entry)]

        with self._changed:
            assert self._changed.wait_for(fitting, within_s), (
                f"not told: {self.entries}, errors: {self.errors}"
            )
            return fitting()[0]
