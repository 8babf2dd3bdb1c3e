"""What is logged while Redis is away: ten groups, a thousand elections each, a server killed.

    python -m tests.integration.outage --seconds 60

Rules of this file:
    * The server is a real one, killed and started again on the same socket.
    * All that `multielect` logs from the first start to the last stop counts.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time

from tests.diary import until

from multielect import ElectionGroup
from multielect.embedded import EmbeddedServer

GROUPS = 10
ELECTIONS = 1_000
WITHIN_S = 60.0


class Lines(logging.Handler):
    """Keeps what is logged, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.began = time.monotonic()
        self.lines: list[tuple[float, str, str]] = []
        self.tracebacks = 0

    def emit(self, record: logging.LogRecord) -> None:
        at_s = record.created - time.time() + time.monotonic() - self.began
        self.tracebacks += record.exc_info is not None
        self.lines.append((at_s, record.levelname, record.getMessage()))

    @property
    def texts(self) -> list[str]:
        return [text for _, _, text in self.lines]

    def logger(self, name: str) -> logging.Logger:
        """Return a logger that keeps its lines here."""
        made = logging.Logger(name, logging.DEBUG)  # noqa: LOG001  # nobody else's
        made.addHandler(self)
        return made


def log_of_an_outage(
    server: EmbeddedServer, seconds: float, *, ttl: float, balance: bool = False
) -> Lines:
    """Return what is logged by groups whose server goes away for so long."""
    lines = Lines()
    logger = lines.logger("outage")
    groups = [
        ElectionGroup(
            server.url,
            prefix=f"outage-{number}",
            node_id="node",
            ttl=ttl,
            balance=balance,
            logger=logger,
        )
        for number in range(GROUPS)
    ]
    for group in groups:
        group.add_many(f"k{number}" for number in range(ELECTIONS))

    def lead_all() -> bool:
        return all(len(group.led) == ELECTIONS for group in groups)

    try:
        for group in groups:
            group.start()
        until(lead_all, WITHIN_S)
        os.kill(server.pid, signal.SIGKILL)
        time.sleep(seconds)
        assert not any(group.led for group in groups)
        server.stop()
        server.start()
        until(lead_all, WITHIN_S)
    finally:
        for group in groups:
            group.stop()
    return lines


def main() -> None:
    """Print the log of an outage, and how many lines it has."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--ttl", type=float, default=10.0)
    parser.add_argument("--balance", action="store_true")
    given = parser.parse_args()
    with EmbeddedServer() as server:
        found = log_of_an_outage(server, given.seconds, ttl=given.ttl, balance=given.balance)
    for at_s, level, text in found.lines:
        print(f"{at_s:8.3f} {level:<7} {text}")  # noqa: T201
    print(f"{len(found.lines)} lines, {len(set(found.texts))} of them different")  # noqa: T201


if __name__ == "__main__":
    main()
