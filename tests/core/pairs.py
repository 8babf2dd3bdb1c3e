"""That terms begin and end in pairs, as the core tells it."""

from __future__ import annotations

from .rig import Happening


def check_pairs(happenings: list[Happening]) -> None:
    """See that each term that begins ends once, under its epoch, before the next begins."""
    open_terms: dict[str, Happening] = {}
    for happening in happenings:
        if happening.reason is None:
            assert happening.key not in open_terms, "a term began before the last one ended"
            open_terms[happening.key] = happening
        else:
            began = open_terms.pop(happening.key)
            assert began.epoch == happening.epoch, "another term ended than had begun"
            assert began.at_ns <= happening.at_ns
