"""The judge of benchmarks/streams.py, held against runs with one thing wrong that was planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from .judge import Commit, Findings, Verdict, judge

Processed = dict[str, list[tuple[str, int]]]


@dataclass
class Run:
    """What is known of a run of two partitions and three nodes, of which c was killed.

    Node a hands p over to b after entry 2; c is killed with entry 1 of q processed, not committed.
    """

    given: dict[str, int] = field(default_factory=lambda: {"p": 5, "q": 3})
    committed: dict[str, list[Commit]] = field(
        default_factory=lambda: {
            "p": [*(Commit(n, 7, "a") for n in range(3)), Commit(3, 9, "b"), Commit(4, 9, "b")],
            "q": [Commit(0, 4, "c"), Commit(1, 6, "a"), Commit(2, 6, "a")],
        }
    )
    processed: Processed = field(
        default_factory=lambda: {
            "a": [("p", 0), ("p", 1), ("p", 2), ("q", 1), ("q", 2)],
            "b": [("p", 3), ("p", 4)],
            "c": [("q", 0), ("q", 1)],
        }
    )
    disturbed: set[str] = field(default_factory=lambda: {"c"})
    verdict: Verdict = field(default_factory=lambda: Verdict("a run", joins=5, leaves=4, kills=1))

    def judged(self) -> Verdict:
        found = judge(self.given, self.committed, self.processed, self.disturbed)
        return replace(self.verdict, found=found)


def test_a_sound_run_is_good() -> None:
    verdict = Run().judged()
    assert verdict.wrong == []
    assert verdict.found == Findings(processed_twice=1, nodes=3)


def lose_the_last(run: Run) -> None:
    run.committed["p"].pop()


def lose_one_in_between(run: Run) -> None:
    del run.committed["p"][1]


def lose_a_partition(run: Run) -> None:
    del run.committed["q"]


def commit_twice(run: Run) -> None:
    run.committed["p"].insert(2, run.committed["p"][1])


def swap(run: Run) -> None:
    first, second, *_ = run.committed["p"]
    run.committed["p"][:2] = second, first


def let_an_older_epoch_in(run: Run) -> None:
    run.committed["p"][-1] = Commit(4, 8, "a")


def share_an_epoch(run: Run) -> None:
    run.committed["p"][-1] = Commit(4, 9, "c")


def make_one_up(run: Run) -> None:
    run.committed["p"].append(Commit(5, 9, "b"))


def make_a_partition_up(run: Run) -> None:
    run.committed["r"] = [Commit(0, 9, "b")]


def process_twice_on_one_node(run: Run) -> None:
    run.processed["b"].append(("p", 3))


def process_twice_on_two_nodes(run: Run) -> None:
    run.processed["b"].append(("p", 2))


def disturb_nobody(run: Run) -> None:
    run.disturbed.clear()


def stop_uncleanly(run: Run) -> None:
    run.verdict.unclean_stops = 1


def lose_a_term(run: Run) -> None:
    run.verdict.lost_terms = 1


def change_too_little(run: Run) -> None:
    run.verdict.leaves -= 1


def spare_the_nodes(run: Run) -> None:
    run.verdict.min_kills = 2


def have_one_node_do_it_all(run: Run) -> None:
    run.committed = {
        key: [Commit(n, 9, "a") for n in range(count)] for key, count in run.given.items()
    }


def end_too_late(run: Run) -> None:
    run.verdict.errors.append("not all was consumed in time")


@pytest.mark.parametrize(
    ("plant", "wrong"),
    [
        (lose_the_last, "1 lost"),
        (lose_one_in_between, "1 lost"),
        (lose_a_partition, "3 lost"),
        (commit_twice, "1 committed twice"),
        (swap, "1 out of order"),
        (let_an_older_epoch_in, "1 by an older epoch"),
        (share_an_epoch, "1 epochs of two nodes"),
        (make_one_up, "1 never put in"),
        (make_a_partition_up, "1 never put in"),
        (process_twice_on_one_node, "1 processed twice undisturbed"),
        (process_twice_on_two_nodes, "1 processed twice undisturbed"),
        (disturb_nobody, "1 processed twice undisturbed"),
        (stop_uncleanly, "1 unclean stops"),
        (lose_a_term, "1 terms lost, as nodes or Redis had no time to run"),
        (change_too_little, "only 9 joins, leaves and kills of 10"),
        (spare_the_nodes, "only 1 kills of 2"),
        (have_one_node_do_it_all, "only 1 nodes committed anything"),
        (end_too_late, "not all was consumed in time"),
    ],
    ids=lambda planted: planted.__name__ if callable(planted) else "",
)
def test_what_is_planted_is_found_and_nothing_else(
    plant: Callable[[Run], None], wrong: str
) -> None:
    run = Run()
    plant(run)
    assert run.judged().wrong == [wrong]
