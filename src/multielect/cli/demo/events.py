"""Reads flight events from a CSV, or a zip of one.

Rules of this file:
    * Each aircraft is a partition, named by the column `tailnum`. Events keep the file's order.
    * Only the column `tailnum` is required. An event is its whole row, with all its columns.
    * Bad input is refused here. The error names the row and what was expected.
"""

from __future__ import annotations

import csv
import io
import zipfile
from array import array
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, TextIO

from .stream import EventStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PARTITION_COLUMN = "tailnum"
MAX_KEY_BYTES = 512

_FIELD_MARK = "\x1f"


class EventsError(Exception):
    """The events could not be read. The message says where and what was expected."""


def read_events(path: Path | None) -> EventStream:
    """Return the events in `path`, or those of the sample that comes with the package.

    The sample is the flights that left New York City from 1 to 7 January 2013, cut from the
    data set `nycflights13`, which is in the public domain (CC0).

    Raises:
        EventsError: if the file cannot be read or is not what is expected.
    """
    if path is None:
        sample = resources.files(__package__) / "sample" / "flights-week.csv.zip"
        with resources.as_file(sample) as unpacked:
            return read_events(unpacked)
    try:
        with _open_csv(path) as text:
            return _parse(text)
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, csv.Error) as error:
        raise EventsError(f"cannot read {path}: {error}") from error
    except EventsError as error:
        raise EventsError(f"{path}: {error}") from None


@contextmanager
def _open_csv(path: Path) -> Iterator[TextIO]:
    if not zipfile.is_zipfile(path):
        with path.open(encoding="utf-8-sig", newline="") as text:
            yield text
        return
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
        if len(names) != 1:
            found = f"{len(names)}: {', '.join(names[:3])}" if names else "none"
            raise EventsError(f"a zip must hold exactly one .csv file; found {found}")
        with archive.open(names[0]) as raw:
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")


def _parse(text: TextIO) -> EventStream:
    rows = csv.reader(text)
    header = next(rows, None)
    if header is None:
        raise EventsError("the file is empty; expected a CSV with a header")
    if PARTITION_COLUMN not in header:
        raise EventsError(
            f"no column {PARTITION_COLUMN!r}, which names the aircraft; "
            f"found {', '.join(map(repr, header[:8]))}{', ...' if len(header) > 8 else ''}"
        )
    column = header.index(PARTITION_COLUMN)
    numbers: dict[str, int] = {}
    partition_of = array("I")
    events: list[bytes] = []
    for key, event in _checked(rows, column, len(header)):
        partition_of.append(numbers.setdefault(key, len(numbers)))
        events.append(event)
    if not events:
        raise EventsError("the file has a header but no events")
    return EventStream.arrange(list(numbers), partition_of, events)


def _checked(rows: Iterable[list[str]], column: int, columns: int) -> Iterator[tuple[str, bytes]]:
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != columns:
            raise EventsError(f"row {number} has {len(row)} fields; expected {columns}")
        key = row[column]
        if not 1 <= len(key.encode()) <= MAX_KEY_BYTES:
            raise EventsError(
                f"row {number}: {PARTITION_COLUMN} must be 1 to {MAX_KEY_BYTES} bytes long, "
                f"not {len(key.encode())}"
            )
        yield key, _FIELD_MARK.join(row).encode()
