"""The plot: the cost of a lease, and the time without a leader, for each number of leases.

Rules of this file:
    * Only this file needs matplotlib. Without it, the command says what to install, before anything
      is measured.
    * The plot shows what the JSON has, and nothing else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

_KINDS = (".svg", ".png")
_INCHES = (8.0, 5.0)


@dataclass(frozen=True)
class Half:
    """One half of a plot.

    Attributes:
        title: its title.
        quantity: the quantity that it shows.
        ending: the end of the labels of the cases that it shows.
    """

    title: str
    quantity: str
    ending: str


@dataclass(frozen=True)
class Drawing:
    """The plot of one suite.

    Attributes:
        suite: the name of the suite.
        along: the label of the horizontal axis, which has the sizes.
        up: the label of the vertical axis.
        halves: its two halves.
    """

    suite: str
    along: str
    up: str
    halves: tuple[Half, Half]


DRAWINGS = (
    Drawing(
        "refresh",
        "leases",
        "us a lease",
        (Half("wall", "wall", ""), Half("client CPU", "client CPU", "")),
    ),
    Drawing(
        "takeover",
        "elections",
        "ms without a leader, p99",
        (Half("clean stop", "p99", "clean stop"), Half("crash", "p99", "crash")),
    ),
)


def check_plot(path: Path, suites: Sequence[str]) -> None:
    """Check that a plot of these suites can be drawn and written to `path`.

    Raises:
        click.BadParameter: if it cannot.
    """
    drawn = [drawing.suite for drawing in DRAWINGS]
    if not set(drawn) & set(suites):
        raise click.BadParameter(
            f"there are plots of the suites {' and '.join(drawn)}: this run measures neither",
            param_hint="--plot",
        )
    if path.suffix.lower() not in _KINDS:
        raise click.BadParameter(
            f"a plot is an SVG or a PNG: the name {path.name} must end in .svg or .png",
            param_hint="--plot",
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise click.BadParameter(
            "needs matplotlib, which is not installed: pip install 'multielect[cli,plot]'",
            param_hint="--plot",
        )


def write_plot(path: Path, document: dict[str, Any]) -> str:
    """Draw the figures of a report. Returns a sentence for the user."""
    measured = [one for one in DRAWINGS if document["suites"].get(one.suite, {}).get("figures")]
    if not measured:
        names = " nor ".join(one.suite for one in DRAWINGS)
        return f"There is no plot in {path}: neither {names} was measured."
    # Slow to import, and not needed by anything else.
    from matplotlib.figure import Figure  # noqa: PLC0415

    width, height = _INCHES
    picture = Figure(figsize=(width, height * len(measured)), layout="constrained")
    parts = picture.subfigures(len(measured), 1, squeeze=False)[:, 0]
    for part, drawing in zip(parts, measured, strict=True):
        _draw(part, drawing, document["suites"][drawing.suite]["figures"])
    picture.savefig(path)
    return f"The plot is in {path}"


def _draw(part: Any, drawing: Drawing, figures: list[dict[str, Any]]) -> None:  # noqa: ANN401
    places = part.subplots(1, 2, sharey=True)
    for place, half in zip(places, drawing.halves, strict=True):
        for subject in dict.fromkeys(one["subject"] for one in figures):
            points = sorted(
                (one["size"], one["median"], one["low"], one["high"])
                for one in figures
                if one["subject"] == subject
                and one["quantity"] == half.quantity
                and one["case"].endswith(half.ending)
            )
            # A run that was interrupted may have no points.
            if points:
                sizes, medians, lows, highs = zip(*points, strict=True)
                place.plot(sizes, medians, marker="o", markersize=3, label=subject)
                place.fill_between(sizes, lows, highs, alpha=0.2)
        place.set(xscale="log", yscale="log", xlabel=drawing.along, title=half.title)
        place.grid(visible=True, which="major", alpha=0.3)
    places[0].set_ylabel(drawing.up)
    part.legend(*places[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
