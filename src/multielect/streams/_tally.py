"""What a consumer has done, in numbers.

Rules of this file:
    * The flow counts. Programs read the numbers at any time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """What a consumer has done since it was made.

    Attributes:
        handled: entries that were handled and committed.
        batches: batches that were committed.
        failures: batches on which the handler failed.
        dead_letters: entries that went to the dead-letter stream.
        dropped: batches that were handled and not committed, as another node led by then.
    """

    handled: int = 0
    batches: int = 0
    failures: int = 0
    dead_letters: int = 0
    dropped: int = 0
