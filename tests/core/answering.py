"""A server for one core, in bytes: the model of Redis at the end of one connection.

Rules of this file:
    * It answers what it is given, in whatever pieces, at once.
    * A rival takes leases in its name where a test says so.
"""

from __future__ import annotations

from collections import Counter

from multielect._runtime.clock import Clock
from multielect.testing._model import RedisModel, Session


class AnsweringServer:
    """The model of Redis, and a connection to it."""

    def __init__(self, clock: Clock) -> None:
        self.model = RedisModel(clock)
        self._replies: list[bytes] = []
        self._session = Session(self.model, self._replies.append)

    @property
    def asked(self) -> Counter[str]:
        """How often each script was asked for, of late."""
        return Counter(batch.request for batch in self.model.batches)

    def leases(self) -> dict[bytes, bytes]:
        """Return who holds which leader key."""
        found = {key: self.model.get(key) for key in self.model.dump() if key.endswith(b":leader")}
        return {key: holder for key, holder in found.items() if holder is not None}

    def answer(self, data: bytes) -> bytes:
        """Return the replies to the batches that are whole."""
        self._session.receive(data)
        replies = b"".join(self._replies)
        self._replies.clear()
        return replies

    def forget_unread(self) -> None:
        """Forget half a batch, as when its connection is lost."""
        self._session = Session(self.model, self._replies.append)
