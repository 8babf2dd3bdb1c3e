"""How a command ends when it is interrupted.

Rules of this file:
    * SIGTERM and Ctrl-C both end a command without a traceback.
    * A second signal does not interrupt the clean-up after the first one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

INTERRUPTED = 130
"""The exit status of a command that was interrupted."""

_ENDINGS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the first SIGTERM or Ctrl-C within the block raise `KeyboardInterrupt`."""
    before = {number: signal.signal(number, _interrupt) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
