"""A picture: what refreshing a lease costs, against how many leases there are.

Rules of this file:
    * matplotlib is needed here and only here. Without it, it is said what to install before
      anything is measured.
    * It draws what JSON has, and nothing else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

_KINDS = (".svg", ".png")
_INCHES = (8.0, 5.0)
_SUITE = "refresh"
_QUANTITIES = ("wall", "client CPU")


def check_plot(path: Path, suites: Sequence[str]) -> None:
    """See that a picture of what these suites measure can be drawn there.

    Raises:
        click.BadParameter: where it cannot.
    """
    if _SUITE not in suites:
        raise click.BadParameter(
            f"a picture is drawn of suite {_SUITE}, which is not measured", param_hint="--plot"
        )
    if path.suffix.lower() not in _KINDS:
        raise click.BadParameter(
            f"a picture is an SVG or a PNG: {path.name} ends in neither .svg nor .png",
            param_hint="--plot",
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise click.BadParameter(
            "needs matplotlib, which is not installed: pip install 'multielect[cli,plot]'",
            param_hint="--plot",
        )


def write_plot(path: Path, told: dict[str, Any]) -> str:
    """Draw what was measured; returns what to say of it."""
    figures = told["suites"].get(_SUITE, {}).get("figures", [])
    if not figures:
        return f"Nothing is drawn in {path}: suite {_SUITE} was not measured."
    # Slow to import, and not needed by anything else.
    from matplotlib.figure import Figure  # noqa: PLC0415

    picture = Figure(figsize=_INCHES, layout="constrained")
    for place, quantity in zip(picture.subplots(1, 2, sharey=True), _QUANTITIES, strict=True):
        subjects = dict.fromkeys(one["subject"] for one in figures)
        for subject in subjects:
            points = sorted(
                (one["size"], one["median"], one["low"], one["high"])
                for one in figures
                if one["subject"] == subject and one["quantity"] == quantity
            )
            sizes, medians, lows, highs = zip(*points, strict=True)
            place.plot(sizes, medians, marker="o", markersize=3, label=subject)
            place.fill_between(sizes, lows, highs, alpha=0.2)
        place.set(xscale="log", yscale="log", xlabel="leases", title=quantity)
        place.grid(visible=True, which="major", alpha=0.3)
    picture.axes[0].set_ylabel("us a lease")
    picture.legend(
        *picture.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    picture.savefig(path)
    return f"The picture is in {path}"
