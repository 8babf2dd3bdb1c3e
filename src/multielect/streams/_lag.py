"""How far behind the checkpoints are.

Rules of this file:
    * What is exact says so; what is counted from afar says that too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ._entries import FIRST_ID, NEW_ONLY, id_numbers

MAX_PER_SCRIPT = 100


@dataclass(frozen=True)
class Lag:
    """How much of a partition's stream is not processed yet.

    Attributes:
        entries: how many entries follow the checkpoint.
        is_exact: whether that is exact. Where it is not, it was counted from what was ever added
            and what was processed, and entries that were deleted or trimmed before they were
            read are counted too; or, on servers before 7.0, it is the length of the stream; or
            the key holds no stream, and it is 0.
        checkpoint: the id of the last entry processed; None if nobody has led the partition yet.
        last_id: the id of the last entry added.
    """

    entries: int
    is_exact: bool
    checkpoint: str | None
    last_id: str

    @property
    def behind_ms(self) -> int:
        """Milliseconds between the last entry processed and the last added, by their ids.

        0 where there is nothing to process; the time since 1970 where nothing was processed yet.
        """
        if self.entries == 0 or self.checkpoint is None:
            return 0 if self.entries == 0 else id_numbers(self.last_id)[0]
        return max(0, id_numbers(self.last_id)[0] - id_numbers(self.checkpoint)[0])


def lag_of(reply: Sequence[Any], start: str) -> Lag:
    """Work out the lag from what `stream_lag.lua` tells of one partition."""
    checkpoint, read, length, first, last, added = reply
    known, first, last = checkpoint.decode() or None, first.decode(), last.decode()
    if length < 0:
        return Lag(0, is_exact=False, checkpoint=known, last_id=last)
    if known is None:
        # Nobody has led it yet, and nobody could have processed anything.
        entries = 0 if start == NEW_ONLY else length
        return Lag(entries, start in (NEW_ONLY, FIRST_ID), None, last)
    if not length or id_numbers(known) >= id_numbers(last):
        return Lag(0, is_exact=True, checkpoint=known, last_id=last)
    if id_numbers(known) < id_numbers(first):
        return Lag(length, is_exact=True, checkpoint=known, last_id=last)
    if read >= 0 and added >= 0:
        return Lag(
            min(max(added - read, 0), length), is_exact=False, checkpoint=known, last_id=last
        )
    return Lag(length, is_exact=False, checkpoint=known, last_id=last)


def chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Divide keys into as many as one script serves."""
    for at in range(0, len(keys), MAX_PER_SCRIPT):
        yield keys[at : at + MAX_PER_SCRIPT]
