"""multielect itself: an ordinary group that leads all its elections, and refreshes on command.

Rules of this file:
    * It is a real `ElectionGroup`, with its threads and its pump. Its TTL is so long that no lease
      is refreshed without a command.
    * A round ends with the pump's turn that has handled all answers. The pump records that time, so
      it does not matter when this process asks for it.
    * All CPU time of this process counts, except that of the thread that measures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from multielect import ElectionGroup, MultielectError
from multielect._node.interface import node_of
from multielect._runtime.clock import Clock

from ..suite import BenchError
from .contenders import Contender, Cost

NAME = "multielect"
TTL_S = 6 * 3600.0
KEY = "election-{:07d}"

_NS = 1_000_000_000
_MIN_LOOK_S, _MAX_LOOK_S = 0.0002, 0.01
_SETTLED_S = 0.002
_SETTLING_S = 0.05
_MAX_S = 600.0


class Group:
    """A group with `leases` elections. `acquire` starts it."""

    def __init__(self, url: str, prefix: str, leases: int, *, ttl_s: float = TTL_S) -> None:
        """Add the elections."""
        self._errors: list[MultielectError] = []
        self._clock = Clock()
        self.leases = leases
        self.group = ElectionGroup(url, prefix=prefix, ttl=ttl_s, on_error=self._errors.append)
        self.probe = node_of(self.group).probe()
        self.group.add_many(KEY.format(number) for number in range(leases))
        self._look_s = _MIN_LOOK_S

    def acquire(self) -> Cost:
        """Start the group. Returns the cost until it leads all its elections.

        Raises:
            BenchError: if it does not within ten minutes.
        """
        return self._until(self.group.start, lambda: self.probe.leading == self.leases)

    def refresh(self) -> Cost:
        """Refresh all leases at once. Returns the cost until the core has handled the last reply.

        Raises:
            BenchError: if that takes ten minutes, or the group lost a lease.
        """
        cost = self._until(self.probe.refresh_all, lambda: True)
        # The group may have lost a lease and acquired it again within the round.
        if self.group.counters.demoted or self._errors:
            raise BenchError(f"leases were lost: {self._why()}")
        return cost

    def _until(self, begin: Callable[[], None], is_so: Callable[[], bool]) -> Cost:
        cpu_s = time.process_time()
        began_ns = self._clock.now_ns()
        begin()
        own_s = time.thread_time()
        give_up_ns = began_ns + int(_MAX_S * _NS)
        while (ended_ns := self.probe.quiet_since_ns) is None or not is_so():
            if self._clock.now_ns() > give_up_ns:
                raise BenchError(f"not done after {_MAX_S:.0f} seconds: {self._why()}")
            time.sleep(self._look_s)
        looking_s = time.thread_time() - own_s
        client_s = time.process_time() - cpu_s - looking_s
        wall_s = (ended_ns - began_ns) / _NS
        self._look_s = min(max(_MIN_LOOK_S, wall_s / 20), _MAX_LOOK_S)
        return Cost(wall_s, client_s)

    @property
    def errors(self) -> list[str]:
        """The errors that were reported so far."""
        return [str(error) for error in self._errors]

    def _why(self) -> str:
        return str(self._errors[-1]) if self._errors else "no error was reported"


@contextmanager
def led(url: str, prefix: str, leases: int) -> Iterator[Group]:
    """Give a group that leads all its elections and has no other work left."""
    group = Group(url, prefix, leases)
    try:
        group.acquire()
        settle()
        yield group
    finally:
        # The caller removes all keys at once, so the group need not release its leases.
        group.group.stop(0)


def settle() -> None:
    """Return when this process uses no more CPU: callbacks run after their terms began."""
    until_s = time.monotonic() + _MAX_S
    while time.monotonic() < until_s:
        before_s = time.process_time()
        time.sleep(_SETTLING_S)
        if time.process_time() - before_s < _SETTLED_S:
            return


class Ours(Contender):
    """A group that leads all its elections, as a contender."""

    name = NAME

    def __init__(self, group: Group) -> None:
        """Measure this group."""
        self._group = group
        self.leases = group.leases

    def refresh(self) -> Cost:
        """Refresh all leases."""
        return self._group.refresh()

    def close(self) -> None:
        """Do nothing, as the caller that made the group ends it."""
