"""Hypothesis finds no story that breaks a promise, and does find one where a promise is broken."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import Phase, settings

from multielect.testing._scripts_model import Scripts

from .checker import BrokenPromiseError
from .machine import QUICK, explore


def test_no_promise_is_broken() -> None:
    explore(QUICK)


def test_a_grant_of_what_another_holds_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Scripts.acquire

    def acquire(self: Scripts, keys: Sequence[bytes], words: Sequence[bytes]) -> object:
        self._store.delete(keys[0])
        return sound(self, keys, words)

    monkeypatch.setattr(Scripts, "acquire", acquire)
    with pytest.raises(BrokenPromiseError):
        explore(settings(QUICK, max_examples=50, phases=[Phase.generate]))
