"""Parts of the proof that take long, on a scale that does not: they hold, and fill tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
from proof.part import QUICK
from proof.parts import PARTS

from multielect.embedded import bundled_binary

MIN_SCALE = replace(QUICK, simulated_events=1000, machine_examples=1, chaos_rounds=2)


@pytest.mark.skipif(bundled_binary() is None, reason="the server that is bundled is not installed")
@pytest.mark.parametrize("name", ["simulation", "machine", "chaos"])
def test_a_part_holds_and_has_all_of_its_tables(name: str) -> None:
    said: list[str] = []
    part = PARTS[name](MIN_SCALE, lambda _done, _total, now="": said.append(now))
    assert part.ok, part.trouble
    assert part.summary
    assert said
    for table in part.tables:
        assert table.rows
        assert all(len(row) == len(table.head) for row in table.rows)
