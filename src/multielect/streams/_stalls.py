"""Which handlers are stuck: handlers that run while none of them returns.

Rules of this file:
    * No clock: the caller passes the time.
    * Handlers that are at work and return now and then are not stuck, however busy they are.
"""

from __future__ import annotations


class Stalls:
    """The batches at handlers, and when a handler returned last.

    Attributes:
        at_handlers: how many batches are at a handler.
        returns: how often a handler has returned or raised.
    """

    def __init__(self) -> None:
        self.at_handlers = 0
        self.returns = 0
        self._seen_returns = 0
        self._last_return_s = 0.0

    def are_stuck(self, now_s: float, stall_s: float) -> bool:
        """Return whether handlers run, and none has returned for `stall_s`. Call it regularly."""
        if self.returns != self._seen_returns or not self.at_handlers:
            self._seen_returns, self._last_return_s = self.returns, now_s
        return now_s - self._last_return_s >= stall_s
