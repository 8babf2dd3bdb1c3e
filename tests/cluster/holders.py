"""Processes that hold leases on a cluster, and tell what became of them.

    python -m tests.cluster.holders URL PREFIX FIRST COUNT TTL

Rules of this file:
    * A holder stands for elections that no other holder stands for: so each term that ends before
      the stop is a lease that was lost.
    * It answers each line of its input with a line of JSON. It stops when its input ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from typing import Any

from tests.diary import until

from multielect import DemotionReason, ElectionGroup, Term

MARGIN_S = 60.0


class Holder:
    """A process that stands for `count` elections, from number `first` on."""

    def __init__(self, url: str, prefix: str, first: int, count: int, ttl_s: float) -> None:
        self.count = count
        words = [url, prefix, str(first), str(count), str(ttl_s)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.holders", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self) -> dict[str, Any]:
        """Return what it leads and lost until now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def wait_led(self, within_s: float = MARGIN_S) -> None:
        """Wait until it leads all its elections."""
        until(lambda: self.ask()["led"] == self.count, within_s)

    def stop(self) -> None:
        """Have it release all, and end it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(MARGIN_S)
        finally:
            self._process.kill()
            self._process.wait()


def main(url: str, prefix: str, first: int, count: int, ttl_s: float) -> None:
    """Hold the leases, and answer until the input ends."""
    ended: Counter[str] = Counter()
    errors: Counter[str] = Counter()

    def demoted(_: Term, reason: DemotionReason) -> None:
        ended[reason.name] += 1

    group = ElectionGroup(
        url,
        prefix=prefix,
        ttl=ttl_s,
        on_demoted=demoted,
        on_error=lambda error: errors.update([type(error).__name__]),
    )
    group.add_many([f"{number:07}" for number in range(first, first + count)])
    with group:
        for _ in sys.stdin:
            seen = {
                "led": group.health.leading,
                "ended": dict(ended),
                "errors": dict(errors),
                "counters": asdict(group.counters),
            }
            sys.stdout.write(json.dumps(seen) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _, its_url, its_prefix, its_first, its_count, its_ttl = sys.argv
    main(its_url, its_prefix, int(its_first), int(its_count), float(its_ttl))
