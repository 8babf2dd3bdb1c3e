"""How far the checkpoints are behind the ends of their streams.

Rules of this file:
    * A lag says whether its number is exact or an estimate.
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
        is_exact: whether `entries` is exact. An estimate is the number of entries ever added, less
            the number processed: entries that were deleted or trimmed before they were read count
            too. On servers before 7.0 the estimate is the length of the stream. If the key holds
            no stream, it is 0.
        checkpoint: the id of the last entry processed; None if no node has led the partition yet.
        last_id: the id of the last entry added.
    """

    entries: int
    is_exact: bool
    checkpoint: str | None
    last_id: str

    @property
    def behind_ms(self) -> int:
        """Milliseconds between the last entry processed and the last entry added, by their ids.

        0 if there is nothing to process. If nothing was processed yet, the time since 1970.
        """
        if self.entries == 0 or self.checkpoint is None:
            return 0 if self.entries == 0 else id_numbers(self.last_id)[0]
        return max(0, id_numbers(self.last_id)[0] - id_numbers(self.checkpoint)[0])


def lag_of(reply: Sequence[Any], start: str) -> Lag:
    """Return the lag of one partition, from the reply of `stream_lag.lua`."""
    checkpoint, read, length, first, last, added = reply
    known, first, last = checkpoint.decode() or None, first.decode(), last.decode()
    if length < 0:
        return Lag(0, is_exact=False, checkpoint=known, last_id=last)
    if known is None:
        # No node has led the partition yet, so nothing was processed.
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
    """Divide keys into portions for one script each."""
    for at in range(0, len(keys), MAX_PER_SCRIPT):
        yield keys[at : at + MAX_PER_SCRIPT]
