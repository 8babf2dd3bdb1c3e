"""Whatever happens, no promise is broken; and where one is, the story is found and told.

`simulate` is the same for as many seeds as one likes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from multielect import DemotionReason, Term
from multielect._callbacks.mailbox import Kind, Mailbox, TermEvent
from multielect._node.node import Node
from multielect.testing import _engine
from multielect.testing._clocks import LocalClock
from multielect.testing._scripts_model import Scripts

from . import replay
from .plan import EXCUSING_NOTHING, LOSES_DATA, Action, Plan, drawn
from .simulate import Report, simulate
from .story import Story

ROOT = Path(__file__).parents[2]
SEEDS = range(30)
LENGTH_MS = 30_000


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken(seed: int) -> None:
    report = simulate([seed], LENGTH_MS)
    assert report.broken is None, str(report.broken)
    assert report.overlaps == 0


def test_the_stories_are_eventful() -> None:
    told: list[int] = []
    report = simulate(range(300, 324), LENGTH_MS, told=lambda so_far: told.append(so_far.seeds))
    assert told == list(range(1, 25))
    assert report.broken is None, str(report.broken)
    assert set(report.faults) >= EXCUSING_NOTHING.keys()
    assert report.faults.keys() & LOSES_DATA
    assert set(report.demoted) >= {
        DemotionReason.EXPIRED,
        DemotionReason.LOST,
        DemotionReason.RESIGNED,
        DemotionReason.REMOVED,
        DemotionReason.STOPPED,
        DemotionReason.REBALANCED,
    }
    assert report.terms >= report.demoted.total() > 200
    assert report.excused > 0, "no fault had an effect that is excused"
    assert report.writes["made"] > 0
    assert report.writes["stale"] > 0
    assert report.happened > 20_000
    assert report.takeovers().keys() >= {"crash", "pause", "restart", "hold"}


def test_it_stops_after_enough_has_happened() -> None:
    report = simulate(range(1000), LENGTH_MS, max_events=1)
    assert report.seeds == 1
    assert report.happened > 1


def test_the_same_seed_gives_the_same_bytes() -> None:
    digests = [Story(drawn(seed, LENGTH_MS)).play().digest for seed in (3, 7, 7, 3)]
    assert digests == [*digests[:2], digests[1], digests[0]]
    assert digests[0] != digests[1]


def test_and_so_it_does_in_another_process() -> None:
    program = (
        "from tests.simulation.plan import drawn; from tests.simulation.story import Story;"
        f"print(Story(drawn(11, {LENGTH_MS})).play().digest)"
    )
    found = set()
    for hash_seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.strip())
    assert found == {Story(drawn(11, LENGTH_MS)).play().digest}


# ---- planted faults: each is found, and what is told of it is short and true


def found(seeds: Iterable[int], *promises: str, shrinks: bool = False) -> Report:
    report = simulate(seeds, LENGTH_MS, shrinks=shrinks)
    assert report.broken is not None, "the planted fault was not found"
    assert report.broken.outcome.broken is not None
    assert report.broken.outcome.broken.promise in promises
    return report


def plant_release_that_compares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_term(self: Scripts, leader_key: bytes, *_: bytes) -> bool:
        return self._store.find(leader_key) is not None

    monkeypatch.setattr(Scripts, "_is_term", is_term)


def test_a_release_that_compares_nothing_is_found_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as planted:
        plant_release_that_compares_nothing(planted)
        broken = found(range(40), "I1", "I4", shrinks=True).broken
        assert broken is not None
        assert len(broken.plan.actions) <= 6, str(broken)
        words = str(broken)
        assert "The shortest history found" in words
        assert broken.replay in words
        module, text = broken.replay.split(" '")[0], broken.plan.to_json()
        assert module == "python -m tests.simulation.replay"
        assert replay.main([text]) == 1
        assert str(broken.outcome.broken) in capsys.readouterr().out
    # Without the fault the same story breaks nothing.
    assert replay.main([text]) == 0
    assert "no promise broken" in capsys.readouterr().out


def test_a_release_that_compares_the_holder_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_term(self: Scripts, leader_key: bytes, _: bytes, holder: bytes, __: bytes) -> bool:
        return self._store.get(leader_key) == holder

    monkeypatch.setattr(Scripts, "_is_term", is_term)
    found(range(370, 450), "I1", "I4")


def test_a_leader_that_does_not_heed_a_newer_epoch_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Node, "learn_epoch", lambda *_: False)
    found(range(120, 130), "I7")


FALLEN_EPOCHS = {
    "the epoch of the loss": Plan(
        seed=84,
        nodes=1,
        keys=1,
        epochs="counter",
        actions=(
            Action(1, "reboot", -1, (1061,)),
            Action(1, "write", 0, (0, 1863)),
            Action(2206, "flush", -1),
        ),
        length_ms=6206,
    ),
    "one after it": Plan(
        seed=84,
        nodes=2,
        keys=4,
        epochs="counter",
        max_leases=3,
        split_percent=80,
        actions=(
            Action(166, "restart", 1, (1,)),
            Action(273, "write", 1, (2, 931)),
            Action(273, "pause", 1, (797,)),
            Action(1267, "flush", -1),
            Action(1371, "step-clock", -1, (700,)),
        ),
        length_ms=5371,
    ),
}


@pytest.mark.parametrize("which", FALLEN_EPOCHS)
def test_a_term_is_not_stale_for_an_older_one_whose_epoch_it_has_after_a_loss(which: str) -> None:
    """The counter begins again at 1: nothing is promised of epochs by counter after a loss."""
    assert broken_in(FALLEN_EPOCHS[which]) is None


def test_an_epoch_that_is_minted_after_the_lease_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is taken, and the epoch is that of the last time until the counter is raised."""
    sound = Scripts._mint
    behind: dict[bytes, int] = {}

    def mint(self: Scripts, epoch_key: bytes, *, by_time: bool) -> object:
        minted = sound(self, epoch_key, by_time=by_time)
        epoch = behind.get(epoch_key, minted)
        if isinstance(minted, int):
            behind[epoch_key] = minted
        return epoch

    monkeypatch.setattr(Scripts, "_mint", mint)
    found(range(40), "I2")


def broken_in(plan: Plan) -> str | None:
    """Return which promise a story breaks."""
    broken = Story(plan).play().broken
    return None if broken is None else broken.promise


def test_a_fence_that_compares_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    actions = (
        Action(500, "write", 0, (0, 3000)),
        Action(600, "crash", 0, (100,)),
        Action(2500, "write", 0, (0, 0)),
    )
    plan = Plan(seed=1, nodes=1, keys=1, actions=actions, length_ms=5000)
    outcome = Story(plan).play()
    assert outcome.broken is None
    assert outcome.writes == {"made": 1, "stale": 1}
    monkeypatch.setattr(Scripts, "_epoch_of", lambda *_: -1)
    assert broken_in(plan) == "I3"


def test_clocks_that_are_wrong_by_more_than_the_margin_are_found() -> None:
    for ppm, promise in ((40_000, None), (80_000, "I4")):
        drifts = (ppm, -ppm, -ppm, -ppm)
        assert broken_in(Plan(seed=1, drifts=drifts, length_ms=5000)) == promise


def test_a_clock_that_stops_while_its_process_does_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = LocalClock.follow
    story = Story(
        Plan(seed=1, nodes=1, actions=(Action(800, "pause", 0, (1500,)),), length_ms=9000)
    )
    nodes = {actor.node.clock: actor.node for actor in story.checker.actors}

    def follow(self: LocalClock, world_ns: int) -> None:
        if self in nodes and nodes[self].is_stopped:
            self._base_world_ns += world_ns - self._world_ns
        sound(self, world_ns)

    monkeypatch.setattr(LocalClock, "follow", follow)
    outcome = story.play()
    assert outcome.broken is not None
    assert outcome.broken.promise in {"I1", "I4"}


def test_an_election_that_nobody_leads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound_acquire, sound_refresh = Scripts.acquire, Scripts.refresh

    def acquire(self: Scripts, keys: Sequence[bytes], words: Sequence[bytes]) -> object:
        return sound_acquire(self, keys, [words[0], b"9000000", *words[2:]])

    def refresh(self: Scripts, keys: Sequence[bytes], words: Sequence[bytes]) -> object:
        return sound_refresh(self, keys, [words[0], b"9000000"])

    actions = (Action(100, "crash", 0, (100,)), Action(2000, "heal"))
    plan = Plan(seed=1, nodes=1, actions=actions, length_ms=9000)
    assert broken_in(plan) is None
    monkeypatch.setattr(Scripts, "acquire", acquire)
    monkeypatch.setattr(Scripts, "refresh", refresh)
    assert broken_in(plan) == "I5"


def test_an_end_that_is_not_told_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound: Callable[..., bool] = Mailbox.put

    def put(self: Mailbox[Term], term_event: TermEvent[Term]) -> bool:
        if term_event.kind is Kind.END and term_event.subject.reason is DemotionReason.RESIGNED:
            return False
        return sound(self, term_event)

    monkeypatch.setattr(Mailbox, "put", put)
    found(range(20), "I6")


def test_a_forked_child_that_acts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_engine.SimulatedEngine, "forsake", lambda _: None)
    assert broken_in(Plan(seed=1, actions=(Action(1000, "fork", 0),), length_ms=3000)) == "I1"
