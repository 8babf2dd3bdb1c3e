"""The server's own limit: one native `PEXPIRE` for each lease, unchecked, in one pipeline.

Rules of this file:
    * No other command of the server extends leases faster. No program may refresh its leases like
      this, because it would extend the leases of others too.
    * All bytes are packed beforehand. They are sent and received as fast as the socket allows.
"""

from __future__ import annotations

from ..instruments.raw import RawConnection, packed
from ..suite import BenchError
from .contenders import Contender, Cost, Stopwatch

NAME = "native PEXPIRE, no check"

_HOLDER = b"node-0123456789ab/0123456789abcdef"
_LEASE_MS = 6 * 3_600_000


class Floor(Contender):
    """Leases that are extended without a check of their holders."""

    name = NAME

    def __init__(self, url: str, prefix: str, leases: int) -> None:
        """Take `leases` leases."""
        self.leases = leases
        keys = [
            b"%s:{%d}:election-%07d:leader" % (prefix.encode(), n % 256, n) for n in range(leases)
        ]
        self._data = b"".join(packed(b"PEXPIRE", key, b"%d" % _LEASE_MS) for key in keys)
        self._connection = RawConnection(url)
        taking = (packed(b"SET", key, _HOLDER, b"PX", b"%d" % _LEASE_MS) for key in keys)
        self._exchange(b"".join(taking), b"+OK\r\n")

    def refresh(self) -> Cost:
        """Extend all leases.

        Raises:
            BenchError: if a lease has expired.
        """
        watch = Stopwatch()
        self._exchange(self._data, b":1\r\n")
        return watch.cost()

    def _exchange(self, data: bytes, answer: bytes) -> None:
        mark = answer[1:2]
        left, good = len(answer) * self.leases, 0

        def is_done(received: bytes) -> bool:
            nonlocal left, good
            left -= len(received)
            good += received.count(mark)
            return left <= 0

        self._connection.exchange(data, is_done)
        if left or good != self.leases:
            raise BenchError(f"only {good:,} of {self.leases:,} answers were {answer!r}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
