"""The poller: a small model of how most other libraries take leases over.

Rules of this file:
    * It tries each key by SET NX once in a third of the TTL, like a lock that is refreshed so
      often. The keys are spread over that time. Those of one moment go out in one pipeline.
    * It knows nothing of announcements, or of the end of a lease.
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
    """Return the keys in Redis of so many elections."""
    layout = group_layout(prefix)
    return [layout.leader_key(KEY.format(number).encode()) for number in range(size)]


def sliced(names: list[bytes]) -> list[list[bytes]]:
    """Return those that are tried at each moment of a round, some of them none."""
    return [names[first::_SLICES] for first in range(_SLICES)]


def poll(parent: Parent, url: str, ttl_s: float) -> None:
    """Try for the keys that the parent names, until all are had; tell when each was, in ns."""
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
    """Tries for some keys, round after round.

    Attributes:
        won_ns: when the answer was here that a key is ours.
    """

    def __init__(
        self, client: redis.Redis, names: list[bytes], *, ttl_s: float, round_s: float
    ) -> None:
        """Try for each of `names` once in `round_s`, for leases of `ttl_s`."""
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
        """Whether there is nothing left to try for."""
        return len(self.won_ns) == self._count

    def go_round(self) -> None:
        """Try once for each that is not had yet, each a round after the last time."""
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
