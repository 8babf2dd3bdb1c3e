"""How even are the loads, how much do a join and a leave move, and how long does it take?

Fleets of several sizes share several numbers of keys, once with equal weights and once with random
weights. In each round a node joins and a random node leaves. For each change there are two
assignments: one from the current holders, and one from members and keys alone.

Rules of this file:
    * The same seed gives the same table, except for the times.
    * A join or a leave must move the share of that node, in whole keys. The columns of moves count
      the keys that moved beyond that share, in per cent of all keys. At most 5 is allowed.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from multielect.balance import Assignment, KeySet, Member, assign

ALLOWED_PERCENT = 5.0
WEIGHTS = {"equal": [1.0], "random": [0.5, 1.0, 1.0, 2.0, 4.0, 8.0]}


@dataclass
class Row:
    """The figures of one fleet.

    Attributes:
        keys: the number of keys.
        nodes: the number of nodes.
        weights: the kind of weights.
        spread: the difference between the load farthest above its share and the one farthest below,
            in keys.
        held_worst: the most that moved beyond the share, from the current holders.
        alone_mean: the mean that moved beyond the share, from members and keys alone.
        alone_worst: the most that moved beyond the share, from members and keys alone.
        new_ms: the median time of an assignment without holders.
        after_ms: the median time of an assignment after a join or a leave.
    """

    keys: int
    nodes: int
    weights: str
    spread: float
    held_worst: float
    alone_mean: float
    alone_worst: float
    new_ms: float
    after_ms: float

    @property
    def is_good(self) -> bool:
        """Whether loads are within one key of their shares, and moves within the bound."""
        # If there are few keys, 5 % of them is less than the one key that rounding may move.
        allowed = max(ALLOWED_PERCENT, 100 / self.keys)
        return self.held_worst <= allowed and self.spread < (2 if self.weights == "random" else 1.1)


def _beyond(before: Assignment, after: Assignment, share: float) -> float:
    """Return how many keys moved beyond `share`, in percent of all keys."""
    moved = len(after.moved_since(before))
    return 100 * max(0, moved - math.ceil(share)) / len(after.keys_given)


def _share(members: list[Member], subject: Member, keys: int) -> float:
    return keys * subject.weight / sum(member.weight for member in members)


def _spread(answer: Assignment) -> float:
    members, loads = list(answer.members), answer.loads
    off = [loads[m.holder] - _share(members, m, len(answer.keys_given)) for m in members]
    return max(off) - min(off)


def _measure(keys: KeySet, nodes: int, weights: str, rounds: int, seed: int) -> Row:
    chance = random.Random(f"{seed} {len(keys)} {nodes} {weights}")
    held, alone, spreads, new_ms, after_ms = [], [], [], [], []

    def fresh(name: str) -> Member:
        return Member(name, weight=chance.choice(WEIGHTS[weights]))

    for number in range(rounds):
        fleet = [fresh(f"node-{number}-{place}") for place in range(nodes - 1)]
        newcomer = fresh(f"newcomer-{number}")
        larger = [*fleet, newcomer]
        leaver = chance.choice(larger)
        smaller = [member for member in larger if member is not leaver]
        began = time.perf_counter()
        first = assign(fleet, keys)
        ended = time.perf_counter()
        joined = first.after(larger)
        after_ms.append((time.perf_counter() - ended) * 1000)
        new_ms.append((ended - began) * 1000)
        left = joined.after(smaller)
        joined_alone, left_alone = assign(larger, keys), assign(smaller, keys)
        spreads += [_spread(answer) for answer in (first, joined, left, joined_alone)]
        in_share = _share(larger, newcomer, len(keys))
        out_share = _share(larger, leaver, len(keys))
        held += [_beyond(first, joined, in_share), _beyond(joined, left, out_share)]
        alone += [
            _beyond(first, joined_alone, in_share),
            _beyond(joined_alone, left_alone, out_share),
        ]
    return Row(
        keys=len(keys),
        nodes=nodes,
        weights=weights,
        spread=max(spreads),
        held_worst=max(held),
        alone_mean=statistics.mean(alone),
        alone_worst=max(alone),
        new_ms=statistics.median(new_ms),
        after_ms=statistics.median(after_ms),
    )


def _tell(rows: list[Row], console: Console) -> None:
    table = Table(
        title="moved beyond the share by a join or a leave, in % of all keys",
        box=box.SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in ("keys", "nodes"):
        table.add_column(name, justify="right")
    table.add_column("weights")
    for name in ("spread", "held, worst", "alone, mean", "alone, worst", "new, ms", "after, ms"):
        table.add_column(name, justify="right")
    for row, following in zip_longest(rows, rows[1:]):
        table.add_row(
            f"{row.keys:,}",
            str(row.nodes),
            row.weights,
            f"{row.spread:.2f}",
            f"{row.held_worst:.2f}",
            f"{row.alone_mean:.2f}",
            f"{row.alone_worst:.2f}",
            f"{row.new_ms:.1f}",
            f"{row.after_ms:.1f}",
            end_section=following is None or following.keys != row.keys,
        )
    console.print(table)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--keys",
    "key_counts",
    multiple=True,
    type=click.IntRange(1),
    default=[10, 100, 1_000, 4_044, 20_000, 100_000],
    show_default=True,
    help="How many keys; give it again for another row.",
)
@click.option(
    "--nodes",
    "sizes",
    multiple=True,
    type=click.IntRange(2),
    default=[2, 8, 20, 64],
    show_default=True,
    help="How many nodes there are once one has joined.",
)
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def main(
    key_counts: tuple[int, ...],
    sizes: tuple[int, ...],
    rounds: int,
    seed: int,
    json_file: Path | None,
) -> None:
    """Check the loads and the moves of `multielect.balance` against their bounds.

    Exits with 0 only if all loads were the nodes' shares, rounded down or up, and if no join or
    leave moved more than the share of that node and 5 % of the keys, from the current holders.
    """
    rows = []
    for count in key_counts:
        keys = KeySet(f"partition-{number}" for number in range(count))
        # Large numbers of keys need fewer rounds.
        turns = max(2, min(rounds, rounds * 20_000 // count))
        rows += [
            _measure(keys, size, weights, turns, seed) for weights in WEIGHTS for size in sizes
        ]
    _tell(rows, Console())
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    sys.exit(0 if all(row.is_good for row in rows) else 1)


if __name__ == "__main__":
    main()
