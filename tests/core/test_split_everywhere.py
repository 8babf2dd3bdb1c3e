"""Real servers' replies, cut at every byte: whatever the pieces, the same comes of them.

The replies were recorded on a real server, over RESP3 and RESP2; see `proof.fuzz.recording`.
"""

from __future__ import annotations

import itertools

import pytest
from proof.fuzz.recording import FORMS, Cut, recorded, told_again

from multielect._core.records import Report
from multielect._protocol.scripts import WITH_FLAGS

SHORT = 40
"""Up to which place replies are cut in three, at every pair of places."""


def whole(data: bytes) -> list[bytes]:
    return [data]


def cut_at(*places: int) -> Cut:
    def cut(data: bytes) -> list[bytes]:
        ends = [0, *(place for place in places if place < len(data)), len(data)]
        return [data[a:b] for a, b in itertools.pairwise(ends) if a < b]

    return cut


def longest(form: str) -> int:
    return max(len(data) for turn in recorded(form) for data in turn)


@pytest.mark.parametrize("form", FORMS)
def test_the_story_has_every_script_and_every_announcement(form: str) -> None:
    outcome = told_again(form, whole)
    sent = b"".join(part for part in outcome if isinstance(part, bytes))
    for name, script in vars(WITH_FLAGS).items():
        # Their answers are those of the scripts that they stand for.
        assert (script.body in sent) != name.startswith("expiring_"), name
    said = b"".join(data for turn in recorded(form) for data in turn)
    for words in (b"5:grant", b"5:claim", b"1:/", b"5:you/1", b"-NOSCRIPT", b"-OOM", b"-READONLY"):
        assert words in said
    reports = [part for part in outcome if isinstance(part, Report)]
    error_reports = {refused[:2] for report in reports for refused in report.errors}
    assert {request for request, _ in error_reports} >= {"acquire", "refresh", "membership"}


@pytest.mark.parametrize("form", FORMS)
def test_cut_in_two_at_every_byte(form: str) -> None:
    expected = told_again(form, whole)
    for place in range(1, longest(form)):
        assert told_again(form, cut_at(place)) == expected, place


@pytest.mark.parametrize("form", FORMS)
def test_cut_in_three_at_every_pair_of_bytes(form: str) -> None:
    expected = told_again(form, whole)
    for first in range(1, SHORT):
        for second in range(first + 1, SHORT):
            assert told_again(form, cut_at(first, second)) == expected, (first, second)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_cut_into_pieces_of_one_size(form: str, size: int) -> None:
    expected = told_again(form, whole)
    assert told_again(form, lambda data: cut_at(*range(size, len(data), size))(data)) == expected
