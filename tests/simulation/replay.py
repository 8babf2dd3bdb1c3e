"""Tells one story again: `python -m tests.simulation.replay PLAN`, as a failure says it."""

from __future__ import annotations

import sys

from .plan import Plan
from .shrinking import describe
from .story import Story


def main(words: list[str]) -> int:
    """Tell the story of a plan, given as JSON; 1 if it breaks a promise."""
    (text,) = words
    plan = Plan.from_json(text)
    outcome = Story(plan).play()
    lines = [describe(plan), "", *outcome.history, "", str(outcome.broken or "no promise broken")]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
