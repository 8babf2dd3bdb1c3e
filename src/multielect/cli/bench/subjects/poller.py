"""The poller: a small model of how most other libraries take leases over.

Rules of this file:
    * It sends SET NX for each key once in a third of the TTL, which is how often a lock is usually
      refreshed. The keys are spread over that time. Keys that are due at once share a pipeline.
    * It receives no announcements, and does not know when a lease ends.
    * The comparison favours it: it refreshes nothing, mints no epoch, knows the leader's keys, and
      that leader releases all of them in one command.
"""

from __future__ import annotations

import time

import redis

from multielect._protocol.keys import group_layout
from multielect._runtime.clock import Clock

from ..instruments.children import Parent
from .ours import KEY

NAME = "a poller at TTL/3"
LEADER = "leader"

_SLICES = 32


def names_of(prefix: str, size: int) -> list[bytes]:
    """Return the leader keys of `size` elections."""
    layout = group_layout(prefix)
    return [layout.leader_key(KEY.format(number).encode()) for number in range(size)]


def sliced(names: list[bytes]) -> list[list[bytes]]:
    """Return the names that are due at each moment of a round. A moment may have none."""
    return [names[first::_SLICES] for first in range(_SLICES)]


def poll(parent: Parent, url: str, ttl_s: float) -> None:
    """Poll for the keys that the parent sends until all are won. Then send when, in nanoseconds."""
    with redis.Redis.from_url(url) as client:
        while True:
            poller = Poller(client, parent.receive(), ttl_s=ttl_s, round_s=ttl_s / 3)
            poller.go_round()
            parent.send("ready")
            while not poller.has_all:
                poller.go_round()
            parent.receive()
            parent.send(poller.won_ns)


class Poller:
    """Polls for some keys, round after round.

    Attributes:
        won_ns: when the reply arrived by which the poller won each key.
    """

    def __init__(
        self, client: redis.Redis, names: list[bytes], *, ttl_s: float, round_s: float
    ) -> None:
        """Poll for each of `names` once in `round_s` seconds, for leases of `ttl_s` seconds."""
        self.won_ns: dict[bytes, int] = {}
        self._client = client
        self._count = len(names)
        self._slices = sliced(names)
        self._ttl_ms = round(1000 * ttl_s)
        self._step_s = round_s / _SLICES
        self._due_s = time.monotonic()
        self._now_ns = Clock().now_ns

    @property
    def has_all(self) -> bool:
        """Whether the poller has won all keys."""
        return len(self.won_ns) == self._count

    def go_round(self) -> None:
        """Try once for each key that is not won yet, a round after the last attempt."""
        for names in self._slices:
            time.sleep(max(0.0, self._due_s - time.monotonic()))
            self._due_s += self._step_s
            self._try([name for name in names if name not in self.won_ns])

    def _try(self, names: list[bytes]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.set(name, "poller/0", nx=True, px=self._ttl_ms)
        answers = pipeline.execute()
        now_ns = self._now_ns()
        for name, is_won in zip(names, answers, strict=True):
            if is_won:
                self.won_ns[name] = now_ns
