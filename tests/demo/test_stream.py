"""A saved stream is the same stream, digests tell every change, and replay is even."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from multielect.cli.demo.stream import Replay, handle

from .examples import stream_of

if TYPE_CHECKING:
    from pathlib import Path


def test_a_stream_survives_being_saved(tmp_path: Path) -> None:
    stream = stream_of("abacbcca")
    stream.save(tmp_path / "events")

    opened = type(stream).open(tmp_path / "events")

    assert opened.keys == stream.keys
    assert opened.partition_of == stream.partition_of
    assert opened.starts == stream.starts
    assert opened.positions == stream.positions
    slots = range(len(stream))
    assert [opened.event(slot) for slot in slots] == [stream.event(slot) for slot in slots]
    assert [opened.digests(partition) for partition in range(3)] == [
        stream.digests(partition) for partition in range(3)
    ]


def test_the_digest_after_each_event_is_that_of_handling_it() -> None:
    stream = stream_of("aba")
    first = handle(b"a0", 0)

    assert stream.digests(0) == [0, first, handle(b"a2", first)]
    assert stream.digests(1) == [0, handle(b"b1", 0)]


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([b"one", b"three"], id="left out"),
        pytest.param([b"one", b"two", b"two", b"three"], id="repeated"),
        pytest.param([b"two", b"one", b"three"], id="moved"),
        pytest.param([b"one", b"2", b"three"], id="altered"),
    ],
)
def test_a_digest_tells_what_was_handled_otherwise(events: list[bytes]) -> None:
    def digest(handled: list[bytes]) -> int:
        result = 0
        for event in handled:
            result = handle(event, result)
        return result

    assert digest(events) != digest([b"one", b"two", b"three"])


@pytest.mark.parametrize(
    ("now_ns", "available"),
    [(99, 0), (100, 1), (349, 1), (350, 2), (1_099, 4), (1_100, 4), (99_999, 4)],
)
def test_events_become_available_evenly(now_ns: int, available: int) -> None:
    replay = Replay(events=4, start_ns=100, span_ns=1_000)

    assert replay.available(now_ns) == available
