"""The sampler sees what `is_leader` says, whatever the callbacks said."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import pytest

from multielect.cli.demo.beliefs import BeliefLog, Kind, read_beliefs
from multielect.cli.demo.sampler import Sampler

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Handle:
    """An election as the sampler sees it."""

    is_leader: bool = False
    epoch: int = 0


class Rig:
    """A sampler whose clock moves on by one at each reading."""

    def __init__(self, folder: Path, elections: int) -> None:
        self.path = folder / "beliefs"
        self.handles = [Handle() for _ in range(elections)]
        readings = count(1)
        self.sampler = Sampler(
            BeliefLog(self.path, 1000), enumerate(self.handles), lambda: next(readings)
        )

    def seen(self) -> list[tuple[str, int, int, int]]:
        return [
            (Kind(found.kind).name, found.election, found.epoch, found.belief_ns)
            for found in read_beliefs(self.path)
        ]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, 2)


def test_a_term_is_bounded_by_the_readings_around_its_looks(rig: Rig) -> None:
    handle = rig.handles[1]
    rig.sampler.look_at_all()  # the clock says 1 before and 2 after
    handle.is_leader, handle.epoch = True, 7
    rig.sampler.look_at_all()  # 3 and 4
    rig.sampler.look_at_all()  # 5 and 6
    handle.is_leader = False
    rig.sampler.look_at_all()  # 7 and 8

    assert rig.seen() == [("SEEN_LEADING", 1, 7, 4), ("LAST_SEEN_LEADING", 1, 7, 5)]


def test_a_new_epoch_is_a_new_term(rig: Rig) -> None:
    handle = rig.handles[0]
    handle.is_leader, handle.epoch = True, 7
    rig.sampler.look_at_all()  # 1 and 2
    handle.epoch = 9
    rig.sampler.look_at_all()  # 3 and 4

    assert rig.seen() == [
        ("SEEN_LEADING", 0, 7, 2),
        ("LAST_SEEN_LEADING", 0, 7, 1),
        ("SEEN_LEADING", 0, 9, 4),
    ]


def test_closing_looks_once_more_and_ends_all_sightings(rig: Rig) -> None:
    rig.sampler.start()
    rig.handles[0].is_leader, rig.handles[0].epoch = True, 7
    rig.sampler.close()

    assert [found[:3] for found in rig.seen()] == [
        ("SEEN_LEADING", 0, 7),
        ("LAST_SEEN_LEADING", 0, 7),
    ]


def test_all_of_many_elections_are_looked_at(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 600)
    for number, handle in enumerate(rig.handles):
        handle.is_leader, handle.epoch = True, number + 1
    rig.sampler.look_at_all()

    assert [found[1:3] for found in rig.seen()] == [(number, number + 1) for number in range(600)]
