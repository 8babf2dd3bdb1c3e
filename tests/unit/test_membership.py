"""The membership: what members say of themselves, how answers are read, and who counts."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multielect._fleet.membership import Entry, counted, describe, pack, parse
from multielect._protocol.netstrings import netstring
from multielect.balance import Member


def answer(*entries: tuple[bytes, bytes, bytes, bytes], was_there: bool = True) -> bytes:
    words = [b"1700000000000", b"1" if was_there else b"0", b"0", b""]
    return b"".join(map(netstring, words + [word for entry in entries for word in entry]))


def entry(name: str, since_ms: int, join_delay_ms: int = 0) -> Entry:
    return Entry(Member(name, "1"), since_ms, join_delay_ms)


def names(entries: list[Entry], server_ms: int) -> set[str]:
    return {member.node_id for member in counted(entries, server_ms)[0]}


@pytest.mark.parametrize(
    "member",
    [
        Member("a", "1"),
        Member("a", "1", weight=0.0),
        Member("a", "1", weight=2.5, max_leases=7, labels=frozenset({"x", "ÿ y"})),
    ],
)
def test_what_a_member_says_is_what_the_others_read(member: Member) -> None:
    text = answer((b"a/1", b"900", b"17", describe(member, 1500)))
    (read,) = parse(text).entries
    assert read == Entry(member, 17, 1500, 900)


def test_an_answer_tells_the_time_and_whether_the_caller_was_there() -> None:
    membership = parse(answer(was_there=False))
    assert (membership.server_ms, membership.was_there, membership.entries) == (
        1_700_000_000_000,
        False,
        (),
    )


@pytest.mark.parametrize(
    "bad",
    [
        (b"a/1", b"900", b"17", b"no json"),
        (b"a/1", b"900", b"17", b"[]"),
        (b"a/1", b"900", b"17", b"{}"),
        (b"a/1", b"soon", b"17", b'{"weight":1}'),
        (b"a/1", b"-1", b"17", b'{"weight":1}'),
        (b"a/1", b"1" * 20, b"17", b'{"weight":1}'),
        (b"a/1", b"9" * 5000, b"17", b'{"weight":1}'),
        (b"a/1", b"900", b"-1", b'{"weight":1}'),
        (b"a/1", b"900", b"1" * 30, b'{"weight":1}'),
        (b"a/1", b"900", b"1e99", b'{"weight":1}'),
        (b"a/1", b"900", b"17", b'{"weight":-1}'),
        (b"a/1", b"900", b"17", b'{"weight":1,"labels":"one"}'),
        (b"\x00/1", b"900", b"17", b'{"weight":1}'),
        (b"", b"900", b"17", b'{"weight":1}'),
        (b"a/1", b"900", b"17", b'{"weight":1,"join_delay_ms":Infinity}'),
        (b"a/1", b"900", b"17", b'{"weight":1,"join_delay_ms":-5}'),
        (b"a/1", b"900", b"17", b'{"weight":1,"join_delay_ms":1e300}'),
        (b"a/1", b"900", b"17", b'{"weight":1' + b"0" * 400 + b"}"),
        (b"a/1", b"900", b"17", b"[" * 100_000),
    ],
)
def test_an_entry_that_makes_no_sense_is_left_out(bad: tuple[bytes, bytes, bytes, bytes]) -> None:
    good = (b"b/2", b"900", b"17", describe(Member("b", "2"), 0))
    membership = parse(answer(bad, good))
    assert [e.member.node_id for e in membership.entries] == ["b"]
    assert membership.malformed == (bad[0],)


@example(b"-3:")
@given(st.binary(max_size=60))
def test_any_answer_is_read_or_refused(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse(text)


def test_an_answer_that_is_cut_off_is_refused() -> None:
    text = answer((b"a/1", b"900", b"17", describe(Member("a", "1"), 0)))
    for length in range(len(text)):
        try:
            cut = parse(text[:length])
        except ValueError:
            continue
        assert cut.entries == ()


def test_words_are_packed_as_the_server_reads_them() -> None:
    assert pack(b"a", b"", b"\r\n") == b"$1\r\na\r\n$0\r\n\r\n$2\r\n\r\n\r\n"


# ---- who counts


def test_without_a_delay_all_count() -> None:
    entries = [entry("a", 0), entry("b", 999)]
    assert counted(entries, 1000)[1] is None
    assert names(entries, 1000) == {"a", "b"}


def test_who_joins_later_waits_for_its_delay() -> None:
    entries = [entry("a", 0, 1000), entry("b", 5000, 1000)]
    assert names(entries, 5999) == {"a"}
    assert counted(entries, 5999)[1] == 6000
    assert names(entries, 6000) == {"a", "b"}


def test_those_who_begin_together_count_at_once() -> None:
    entries = [entry("a", 0, 1000), entry("b", 300, 1000), entry("c", 1000, 1000)]
    assert names(entries, 1000) == {"a", "b"}


def test_when_the_eldest_leaves_the_next_counts_at_once() -> None:
    assert names([entry("b", 5000, 1000)], 5001) == {"b"}


ENTRIES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=6).map(
    lambda drawn: [entry(f"n{i}", s, d) for i, (s, d) in enumerate(drawn)]
)


@given(ENTRIES, st.integers(0, 60), st.integers(0, 20), st.data())
def test_who_counts_once_counts_for_as_long_as_it_stays(
    entries: list[Entry], now_ms: int, later_ms: int, data: st.DataObject
) -> None:
    there = [e for e in entries if e.since_ms <= now_ms]
    stay = [e for e in there if data.draw(st.booleans())]
    came = [e for e in entries if now_ms < e.since_ms <= now_ms + later_ms]
    before = names(there, now_ms)
    after = names(stay + came, now_ms + later_ms)
    assert before & {e.member.node_id for e in stay} <= after


@given(ENTRIES, st.integers(50, 90))
def test_somebody_counts(entries: list[Entry], now_ms: int) -> None:
    assert names(entries, now_ms)


@pytest.mark.parametrize("join_delay_ms", [0, 5000])
def test_who_was_there_before_the_servers_clock_was_set_back_counts(join_delay_ms: int) -> None:
    entries = [entry(name, since, join_delay_ms) for name, since in [("a", 9000), ("b", 19_000)]]
    assert names(entries, 1000) == {"a", "b"}
    # Beside one that came afterwards, which is now the eldest.
    assert names([*entries, entry("c", 900)], 1000) == {"a", "b", "c"}
