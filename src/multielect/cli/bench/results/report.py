"""The report: a table for each suite, and everything as JSON.

Rules of this file:
    * 79 columns are enough, on a terminal and in a pipe.
    * Each figure is a median. Half of the distance between its quartiles follows, in per cent. A
      ratio is the median of the ratios of single rounds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from ..suite import Suite
from .findings import Findings, Quantity
from .spread import Bound, Spread, number

COLUMNS = 79
_SUBJECT_COLUMNS = 27


def print_machine(console: Console, machine: Mapping[str, str]) -> None:
    """Print the description of the machine."""
    for name, what in machine.items():
        _print(console, f"{name:<12}{what}", "            ")
    label = (
        "Each figure is the median of all rounds. The per cent behind it is half of the distance"
        " between the quartiles. A ratio is computed within each round, and its median is shown."
    )
    _print(console, label, "")


def print_suite(console: Console, suite: Suite, findings: Findings) -> None:
    """Print the findings of one suite."""
    console.print(Text(f"\n{suite.name}: {suite.question}", style="bold"), soft_wrap=True)
    if findings.series:
        mark = "±" if console.encoding.lower().startswith("utf") else "+-"
        for line in _table(findings, mark):
            console.print(Text(line), soft_wrap=True)
    for name, why in findings.not_measured.items():
        _print(console, f"{name}: not measured: {why}", "  ")
    if findings.versions:
        those = ", ".join(f"{name} {version}" for name, version in findings.versions.items())
        _print(console, f"Versions of the other libraries: {those}.", "")
    for note in findings.notes:
        _print(console, note, "")
    verdicts = findings.verdicts()
    if verdicts:
        console.print()
    for label, bound, median, holds in verdicts:
        style = "" if holds else "red"
        for line in _verdict(label, bound, median, holds=holds):
            console.print(Text(line, style=style), soft_wrap=True)


def to_json(
    machine: Mapping[str, str], found: Iterable[tuple[Suite, Findings]], **beside: object
) -> dict[str, Any]:
    """Return the whole report for JSON, with the facts `beside` it."""
    return {
        "machine": dict(machine),
        **beside,
        "suites": {
            suite.name: {"question": suite.question, **findings.to_json()}
            for suite, findings in found
        },
    }


def _verdict(label: str, bound: Bound, median: float, *, holds: bool) -> Iterable[str]:
    reached = f"to reach: {bound} - reached {number(median)}{'' if holds else ', NO'}"
    if len(label) + 2 + len(reached) > COLUMNS:
        yield from textwrap.wrap(label, COLUMNS)
        label = ""
    yield label + reached.rjust(COLUMNS - len(label))


def _table(findings: Findings, mark: str) -> Iterable[str]:
    """Yield the lines of the table: a block a case, a row a subject, a column a quantity."""
    cells = {
        (key.case, key.subject, _head(key.quantity)): _cell(values, mark)
        for key, values in findings.series.items()
    }
    for one in findings.comparisons:
        values = findings.rounds_of(one)
        if one.column is not None and values:
            head = tuple(one.column.split(", ", 1))
            cells[one.over.case, one.over.subject, head] = _cell(values, mark)
    heads = list(dict.fromkeys(head for _, _, head in cells))
    widths = [max(len(text) for (_, _, h), text in cells.items() if h == head) for head in heads]
    widths = [max(width, *map(len, head)) for width, head in zip(widths, heads, strict=True)]
    for part in (0, 1):
        titles = (head[part].rjust(width) for head, width in zip(heads, widths, strict=True))
        yield " " * _SUBJECT_COLUMNS + "  ".join(titles).rstrip()
    for case in dict.fromkeys(case for case, _, _ in cells):
        yield case.label
        for subject in dict.fromkeys(s for c, s, _ in cells if c == case):
            row = (
                cells.get((case, subject, head), "").rjust(width)
                for head, width in zip(heads, widths, strict=True)
            )
            yield f"  {subject:<{_SUBJECT_COLUMNS - 2}}" + "  ".join(row).rstrip()


def _head(quantity: Quantity) -> tuple[str, ...]:
    return quantity.name, quantity.unit


def _cell(values: list[float], mark: str) -> str:
    spread = Spread.of(values)
    if len(values) == 1:
        return number(spread.median)
    return f"{number(spread.median)} {mark}{spread.percent:.0f}%"


def _print(console: Console, label: str, indent: str) -> None:
    for line in textwrap.wrap(label, COLUMNS, subsequent_indent=indent):
        console.print(Text(line), soft_wrap=True)
