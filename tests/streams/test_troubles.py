"""How often trouble is told, and of whom."""

from __future__ import annotations

from itertools import pairwise

from multielect.streams import _troubles as bounds
from multielect.streams._troubles import Troubles, partitions


def test_trouble_is_told_at_once_and_then_ever_more_seldom() -> None:
    troubles = Troubles()
    # Ten times a second, for ten minutes.
    times = [n / 10 for n in range(6_000)]
    told = [at for at in times if troubles.report("full", ["s0"], at) is not None]
    assert told[:7] == [0, 1, 3, 7, 15, 31, 63]
    assert {later - sooner for sooner, later in pairwise(told[6:])} == {60}


def test_all_whom_it_concerned_meanwhile_are_named() -> None:
    troubles = Troubles()
    assert troubles.report("full", ["s0"], 0.0) == ("s0",)
    assert troubles.report("full", ["s1", "s2"], 0.1) is None
    assert troubles.report("full", ["s2", "s3"], 0.2) is None
    assert troubles.report("other", ["s9"], 0.2) == ("s9",)
    assert troubles.report("full", ["s0"], 1.0) == ("s1", "s2", "s3", "s0")


def test_what_has_not_happened_for_long_is_news() -> None:
    troubles = Troubles()
    for second in range(184):
        troubles.report("full", ["s0"], float(second))
    at_s = 183.0 + bounds.FORGOTTEN_S + 1
    assert troubles.report("full", ["s2"], at_s) == ("s2",)
    assert troubles.report("full", ["s2"], at_s + bounds.FIRST_PAUSE_S) == ("s2",)


def test_kinds_and_names_are_bounded() -> None:
    troubles = Troubles()
    for number in range(3 * bounds.MAX_KINDS):
        troubles.report(number, ["s0"], 0.0)
    assert len(troubles._by_kind) == bounds.MAX_KINDS
    for number in range(2 * bounds.MAX_KEYS):
        troubles.report("full", [f"s{number}"], 0.0)
    told = troubles.report("full", [], 1.0)
    assert told is not None
    assert len(told) == bounds.MAX_KEYS


def test_few_are_named_and_many_counted() -> None:
    assert partitions(["s0"]) == "partition 's0'"
    assert partitions(["s0", "s1"]) == "partitions 's0' and 's1'"
    assert partitions(["s0", "s1", "s2"]) == "partitions 's0', 's1' and 's2'"
    many = partitions([f"s{number}" for number in range(4096)])
    assert many == "4096 partitions, such as 's0', 's1', 's2' and 's3'"
