"""What a log is given, on a clock of the test's own: one line a kind, ever more seldom."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from multielect._logging.throttle import MAX_KINDS, MAX_S, QUIET_S, Line, Report, Throttle


class Story:
    """A throttle, the time, and the lines that came."""

    def __init__(self) -> None:
        self.throttle = Throttle()
        self.now_s = 1_000.0
        self.lines: list[tuple[float, Line]] = []

    def report(
        self, text: str = "it broke", *, who: str = "orders/a", kind: str = "kind", **more: object
    ) -> None:
        report = Report(who, logging.WARNING, kind, text, **more)  # type: ignore[arg-type]
        self._keep(self.throttle.add(report, self.now_s))

    def sum(self, amount: int, *, who: str = "orders/a") -> None:
        report = Report(who, logging.INFO, "sum", lambda n: f"{n:,} terms began", amount, 1.0)
        self._keep(self.throttle.add(report, self.now_s))

    def pass_time(self, seconds: float) -> None:
        """Let time pass as a writer does, who comes when something is due."""
        until_s = self.now_s + seconds
        while (due_s := self.throttle.next_s()) is not None and due_s <= until_s:
            self.now_s = max(self.now_s, due_s)
            self._keep(self.throttle.due(self.now_s))
        self.now_s = until_s

    @property
    def texts(self) -> list[str]:
        return [f"{line.who}: {line.text}" for _, line in self.lines]

    def _keep(self, lines: list[Line]) -> None:
        self.lines += [(self.now_s, line) for line in lines]


@pytest.fixture
def story() -> Story:
    return Story()


def test_the_first_of_a_kind_is_told_at_once(story: Story) -> None:
    story.report()
    assert story.texts == ["orders/a: it broke"]


def test_those_that_follow_are_counted_ever_more_seldom(story: Story) -> None:
    for _ in range(6_000):
        story.report()
        story.pass_time(0.01)
    times = [round(at_s - 1_000, 2) for at_s, _ in story.lines]
    assert times == [0, 1, 3, 7, 15, 31]
    assert story.texts[:3] == [
        "orders/a: it broke",
        "orders/a: it broke (100 more in 1.0 s, 101 in all)",
        "orders/a: it broke (200 more in 2.0 s, 301 in all)",
    ]


def test_the_pauses_between_two_lines_have_an_end(story: Story) -> None:
    for _ in range(20_000):
        story.report()
        story.pass_time(1)
    pauses = [later - sooner for (sooner, _), (later, _) in pairwise(story.lines)]
    assert max(pauses) == MAX_S
    assert len(story.lines) < 100


def test_no_line_is_lost_and_none_comes_twice(story: Story) -> None:
    for _ in range(500):
        story.report()
        story.pass_time(0.3)
    story.pass_time(MAX_S)
    assert len(set(story.texts)) == len(story.texts)
    assert "500 in all" in story.texts[-1]


def test_another_kind_is_told_at_once(story: Story) -> None:
    for number in range(5):
        story.report(kind=f"kind {number}", text=f"it broke {number}")
    assert len(story.lines) == 5


def test_what_befalls_many_groups_is_one_kind(story: Story) -> None:
    for number in range(100):
        story.report(who=f"orders/{number:02}")
    story.pass_time(1)
    assert story.texts == [
        "orders/00: it broke",
        (
            "99 groups (orders/01, orders/02, orders/03 and 96 more): it broke"
            " (99 more in 1.0 s, 100 in all)"
        ),
    ]


def test_amounts_are_summed_up_while_they_settle(story: Story) -> None:
    for _ in range(100):
        story.sum(10)
        story.pass_time(0.005)
    assert story.lines == []
    story.pass_time(1)
    assert story.texts == ["orders/a: 1,000 terms began"]
    story.pass_time(5)
    for _ in range(7):
        story.sum(1)
        story.pass_time(0.005)
    assert len(story.lines) == 1, "it settles anew"
    story.pass_time(1)
    assert story.texts[1:] == ["orders/a: 7 terms began (in 6.5 s; 1,007 in all)"]


def test_a_kind_that_was_quiet_is_forgotten(story: Story) -> None:
    story.report()
    story.pass_time(QUIET_S - 1)
    assert story.throttle.knows("kind", story.now_s)
    story.pass_time(1)
    assert not story.throttle.knows("kind", story.now_s)
    story.report()
    assert story.texts == ["orders/a: it broke"] * 2


def test_what_comes_once_a_minute_for_hours_is_not_a_line_a_minute(story: Story) -> None:
    for _ in range(600):
        story.report()
        story.pass_time(59)
    assert len(story.lines) < 150


def test_a_traceback_is_told_with_the_first_alone(story: Story) -> None:
    for number in range(10):
        story.report(cause=ValueError(str(number)))
    story.pass_time(1)
    causes = [line.cause for _, line in story.lines]
    assert [str(cause) for cause in causes] == ["0", "None"]


def test_kinds_without_end_are_told_together(story: Story) -> None:
    for number in range(10 * MAX_KINDS):
        story.report(kind=f"kind {number}", text=f"it broke {number}")
    assert len(story.lines) == MAX_KINDS + 1
    story.pass_time(1)
    assert len(story.lines) == MAX_KINDS + 2


def test_flush_tells_all_that_waits(story: Story) -> None:
    story.report()
    story.report()
    story.sum(3)
    lines = story.throttle.flush(story.now_s)
    assert [line.text for line in lines] == [
        "it broke (1 more in 0.0 s, 2 in all)",
        "3 terms began",
    ]
    assert story.throttle.flush(story.now_s) == []
    assert story.throttle.next_s() is None
