"""Events keep file order, by aircraft, and bad input is refused with what was expected."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from multielect.cli.demo.events import EventsError, read_events

if TYPE_CHECKING:
    from pathlib import Path

CSV = "flight,tailnum\n1,N1\n2,N2\n3,N1\n"


def test_the_sample_is_one_week() -> None:
    stream = read_events(None)

    assert len(stream) == 6_099
    assert len(stream.keys) == len(set(stream.keys)) == 2_049
    assert stream.keys[0] == "N14228"
    assert stream.event(0) == b"2013-01-01T10:00:00Z\x1f515\x1fUA\x1f1545\x1fN14228\x1fEWR\x1fIAH"


def test_events_of_an_aircraft_keep_file_order(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(CSV)

    stream = read_events(path)

    assert stream.keys == ["N1", "N2"]
    assert [stream.count(partition) for partition in (0, 1)] == [2, 1]
    assert [stream.event(slot) for slot in range(3)] == [b"1\x1fN1", b"3\x1fN1", b"2\x1fN2"]
    assert list(stream.positions) == [0, 2, 1]
    assert list(stream.partition_of) == [0, 1, 0]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(CSV.replace("\n", "\r\n").encode(), id="Windows line ends"),
        pytest.param(CSV.replace("1,N1", '"1","N1"').encode(), id="quotes"),
        pytest.param((CSV + "\n").encode(), id="empty last line"),
        pytest.param(CSV.rstrip().encode(), id="no last line end"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True], ids=["csv", "zip"])
def test_any_csv_will_do(tmp_path: Path, content: bytes, zipped: bool) -> None:
    path = tmp_path / "events"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("README.md", "not the events")
            archive.writestr("events.CSV", content)
    else:
        path.write_bytes(content)

    stream = read_events(path)

    assert stream.keys == ["N1", "N2"]
    assert stream.payload == b"1\x1fN13\x1fN12\x1fN2"


@pytest.mark.parametrize("zipped", [False, True], ids=["csv", "zip"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "events"
    content = "tailnum\nN1\n".encode("utf-8-sig")
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("events.csv", content)
    else:
        path.write_bytes(content)

    assert read_events(path).keys == ["N1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("flight,tailnum\n", "a header but no events"),
        ("flight,plane\n1,N1\n", "no column 'tailnum'.*found 'flight', 'plane'"),
        (CSV + "4\n", "row 5 has 1 fields; expected 2"),
        (CSV + "4,N1,5\n", "row 5 has 3 fields; expected 2"),
        (CSV + "4,\n", "row 5: tailnum must be 1 to 512 bytes long, not 0"),
        (CSV + "4," + "é" * 257 + "\n", "not 514"),
        (b"tailnum\n\xff\xfe\n", "cannot read"),
        ("tailnum\n" + "x" * 200_000, "cannot read.*field larger"),
    ],
)
def test_bad_content_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "events.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(EventsError, match=message) as refusal:
        read_events(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("names", "found"), [(["a.txt"], "found none"), (["a.csv", "b.csv"], "found 2: a.csv, b.csv")]
)
def test_a_zip_must_hold_one_csv(tmp_path: Path, names: list[str], found: str) -> None:
    path = tmp_path / "events.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, CSV)

    with pytest.raises(EventsError, match=f"exactly one .csv file; {found}"):
        read_events(path)


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("events.csv", CSV * 100)
    whole = bytearray(path.read_bytes())
    whole[60] ^= 0xFF
    path.write_bytes(whole)

    with pytest.raises(EventsError, match="cannot read"):
        read_events(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EventsError, match="No such file"):
        read_events(tmp_path / "nowhere.csv")
