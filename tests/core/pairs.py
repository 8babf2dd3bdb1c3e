"""That terms begin and end in pairs, as the core tells it."""

from __future__ import annotations

from .rig import TermEvent


def check_pairs(term_events: list[TermEvent]) -> None:
    """See that each term that begins ends once, under its epoch, before the next begins."""
    open_terms: dict[str, TermEvent] = {}
    for term_event in term_events:
        if term_event.reason is None:
            assert term_event.key not in open_terms, "a term began before the last one ended"
            open_terms[term_event.key] = term_event
        else:
            began = open_terms.pop(term_event.key)
            assert began.epoch == term_event.epoch, "another term ended than had begun"
            assert began.at_ns <= term_event.at_ns
