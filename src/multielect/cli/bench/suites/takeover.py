"""How long are elections without a leader, after a clean stop and after a crash?

Rules of this file:
    * Leader and successor are separate processes that read the same clock. After a clean stop the
      time counts from the end of the leader's term. After SIGKILL it counts from the end of each
      lease at the server, because no other node can lead before. One figure ends when the
      successor's term begins, and another when its callback runs.
    * Each round also measures how a poller takes elections over: see `poller`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import NamedTuple

from multielect import DemotionReason, ElectionGroup, Term
from multielect._node.interface import node_of
from multielect._runtime.clock import Clock

from ...demo.leases import LeaseReader
from ..instruments.children import Child, Parent
from ..results.findings import Case, Comparison, Key, Quantity
from ..results.percentiles import P99, Tail
from ..results.spread import Bound
from ..subjects import poller
from ..subjects.contenders import in_turns
from ..subjects.ours import KEY, NAME, settle
from ..suite import Bench, BenchError

TOLD = Quantity("to callback", "p99, ms")
CLEAN, CRASH = "clean stop", "crash"
BOUNDED_SIZE, MAX_MS = 10_000, 100

_QUICK, _FULL = (10_000,), (1, 1_000, 10_000)
_QUICK_TTL_S, _FULL_TTL_S = 1.2, 3.0
_FULL_ROUNDS = 7
_READY_S = 120.0
_LOOK_S = 0.005
_LEASE_ENDS = 10
"""At how many different times the leases of the poller's leader end, over a third of the TTL."""


class Takeover:
    """Percentiles of the time without a leader."""

    name = "takeover"
    question = "How long are elections without a leader?"

    def run(self, bench: Bench) -> None:
        """Stop and kill leaders, at every size, in every round."""
        scale, findings = bench.scale, bench.findings
        ttl_s = scale.pick(quick=_QUICK_TTL_S, full=_FULL_TTL_S)
        sizes = scale.sizes_or(quick=_QUICK, full=_FULL)
        rounds = scale.rounds or scale.pick(quick=1, full=_FULL_ROUNDS)
        _compare(bench, sizes)
        findings.notes.append(
            f"TTL {ttl_s:g} s. After a crash the time counts from the end of each lease. The poller"
            f" sends SET NX for each of its keys every third of the TTL, spread over that time. The"
            f" leader before it stops as fast as possible: one DEL removes all its keys."
        )
        bench.progress.begin(rounds * len(sizes) * 2)
        with ExitStack() as stack:
            whom: list[Pair | Polled] = [Pair(bench, ttl_s, stack), Polled(bench, ttl_s, stack)]
            for number in range(rounds):
                for size in in_turns(sizes, number):
                    for who in in_turns(whom, number):
                        label = f"round {number + 1} of {rounds}, {size:,}, {who.name}"
                        bench.progress.step(label)
                        who.measure(bench, size)
                        bench.server.clear()


def case_of(size: int, how: str) -> Case:
    """Return the case of `size` elections whose leader ends as `how` says."""
    return Case(f"{size:,} elections, {how}" if size > 1 else f"1 election, {how}", size)


def _compare(bench: Bench, sizes: tuple[int, ...]) -> None:
    for size in sizes:
        for how in (CLEAN, CRASH):
            case = case_of(size, how)
            own, other = Key(case, NAME, P99), Key(case, poller.NAME, P99)
            label = f"p99, {poller.NAME} against {NAME}, {case.label}"
            bench.findings.compare(Comparison(label, other, own, column="p99, times ours"))
            if size == BOUNDED_SIZE:
                label = f"without a leader, p99, ms, {case.label}"
                bench.findings.expect(label, own, Bound(at_most=MAX_MS))


class Begun(NamedTuple):
    """When a term began, and when its callback ran."""

    began_ns: int
    told_ns: int


def gaps_ns(
    ends_ns: Mapping[str, int], begun: Mapping[str, Begun], until: Callable[[Begun], int]
) -> list[int]:
    """Return how long each election had no leader, for those whose last term's end is known.

    Raises:
        BenchError: if fewer than half of the ends are known, as the machine was too busy.
    """
    if not begun or 2 * len(ends_ns) < len(begun):
        raise BenchError(f"only {len(ends_ns):,} of {len(begun):,} leases were seen to end")
    return [until(begun[key]) - end_ns for key, end_ns in ends_ns.items()]


class Pair:
    """Two processes with a group each. One leads, and the other takes its elections over."""

    name = NAME

    def __init__(self, bench: Bench, ttl_s: float, stack: ExitStack) -> None:
        """Start the processes. `stack` ends them."""
        self._url, self._ttl_s, self._stack = bench.server.url, ttl_s, stack
        self._count = 0
        self._leader, self._other = self._start(), self._start()

    def _start(self) -> tuple[str, Child]:
        self._count += 1
        name = f"node-{self._count}"
        return name, self._stack.enter_context(Child(name, stand, self._url, name, self._ttl_s))

    def measure(self, bench: Bench, size: int) -> None:
        """Stop one process and kill the other. Each time the remaining process takes over."""
        prefix = bench.server.fresh_prefix()
        keys = [KEY.format(number) for number in range(size)]
        (_, first), (name, second) = self._leader, self._other
        self._say(first, prefix, size, "lead")
        self._say(second, prefix, size, "stand by")
        first.send("stop")
        ends_ns = first.receive(_READY_S)
        self._add(bench, case_of(size, CLEAN), ends_ns, second)

        self._say(first, prefix, size, "stand by")
        # By then leases have been refreshed, so that they end at different times.
        time.sleep(self._ttl_s / 2)
        reader = LeaseReader(bench.server.client, prefix, keys)
        second.kill()
        leases = reader.held_by(name)
        ends_ns = {keys[number]: lease.ends_ns for number, lease in leases.items()}
        self._add(bench, case_of(size, CRASH), ends_ns, first)
        first.send("end")
        first.receive(_READY_S)
        self._other = self._start()

    def _say(self, child: Child, prefix: str, size: int, role: str) -> None:
        child.send((prefix, size, role))
        child.receive(_READY_S)

    def _add(self, bench: Bench, case: Case, ends_ns: dict[str, int], successor: Child) -> None:
        successor.send("took")
        begun: dict[str, Begun] = successor.receive(_READY_S)
        tail = Tail.of(gaps_ns(ends_ns, begun, lambda term: term.began_ns))
        told = Tail.of(gaps_ns(ends_ns, begun, lambda term: term.told_ns))
        tail.add_to(bench.findings, case, NAME)
        bench.findings.add(case, NAME, TOLD, told.p99)


class Polled:
    """A process that polls for leases, and takes them over when they end."""

    name = poller.NAME

    def __init__(self, bench: Bench, ttl_s: float, stack: ExitStack) -> None:
        """Start the process. `stack` ends it."""
        self._ttl_s = ttl_s
        self._child = stack.enter_context(Child("the poller", poller.poll, bench.server.url, ttl_s))
        self._now_ns = Clock().now_ns

    def measure(self, bench: Bench, size: int) -> None:
        """Delete leases, and then let others expire. Each time the poller takes them over."""
        client, period_s = bench.server.client, self._ttl_s / 3
        for how in (CLEAN, CRASH):
            prefix = bench.server.fresh_prefix()
            keys = [KEY.format(number) for number in range(size)]
            names = poller.names_of(prefix, size)
            # The leases outlast the poller's first round. Their TTL does not matter to a poller.
            _take(bench, names, 1000 * self._ttl_s * (1000 if how == CLEAN else 1.2))
            # No process refreshes these leases, so their ends are known from the beginning.
            leases = LeaseReader(client, prefix, keys).held_by(poller.LEADER)
            ends_ns = {keys[number]: lease.ends_ns for number, lease in leases.items()}
            self._child.send(names)
            self._child.receive(_READY_S)
            if how == CLEAN:
                # The leases end at a random moment of the poller's round.
                time.sleep(random.uniform(0, period_s))  # noqa: S311
                ends_ns = dict.fromkeys(keys, self._now_ns())
                client.delete(*names)
            self._child.send("took")
            won_ns: dict[bytes, int] = self._child.receive(_READY_S)
            begun = {
                key: Begun(won_ns[name], won_ns[name])
                for key, name in zip(keys, names, strict=True)
            }
            tail = Tail.of(gaps_ns(ends_ns, begun, lambda term: term.began_ns))
            tail.add_to(bench.findings, case_of(size, how), poller.NAME)


def _take(bench: Bench, names: list[bytes], last_ms: float) -> None:
    """Set leases as a leader has them that refreshed each of them within a third of the TTL."""
    pipeline = bench.server.client.pipeline(transaction=False)
    for number, name in enumerate(names):
        left_ms = last_ms * (1 - number % _LEASE_ENDS / _LEASE_ENDS / 3)
        pipeline.set(name, f"{poller.LEADER}/0", px=round(left_ms))
    pipeline.execute()


def stand(parent: Parent, url: str, name: str, ttl_s: float) -> None:
    """Run a group for each message of the parent, and report when its terms began and ended."""
    while True:
        prefix, size, role = parent.receive()
        diary = _Diary()
        group = ElectionGroup(
            url,
            prefix=prefix,
            ttl=ttl_s,
            node_id=name,
            on_elected=diary.elected,
            on_demoted=diary.demoted,
        )
        group.add_many(KEY.format(number) for number in range(size))
        _stand(parent, group, diary, role)


def _stand(parent: Parent, group: ElectionGroup, diary: _Diary, role: str) -> None:
    size = len(group)
    group.start()
    try:
        if role == "lead":
            probe = node_of(group).probe()
            _wait_until(lambda: probe.leading == size)
        else:
            _wait_until(lambda: group.counters.checks >= size)
        settle()
        parent.send("ready")
        while (word := parent.receive()) == "took":
            _wait_until(lambda: len(diary.begun) == size)
            parent.send(diary.begun)
        group.stop(_READY_S if word == "stop" else 0)
        parent.send(diary.ended_ns)
    finally:
        group.stop(0)


class _Diary:
    """The times at which the terms of one node began and ended. Any thread may add to it."""

    def __init__(self) -> None:
        self.begun: dict[str, Begun] = {}
        self.ended_ns: dict[str, int] = {}
        self._now_ns = Clock().now_ns

    def elected(self, term: Term) -> None:
        assert term.began_ns is not None
        self.begun[term.key] = Begun(term.began_ns, self._now_ns())

    def demoted(self, term: Term, _reason: DemotionReason) -> None:
        assert term.ended_ns is not None
        self.ended_ns[term.key] = term.ended_ns


def _wait_until(is_so: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + _READY_S / 2
    while not is_so():
        if time.monotonic() > give_up_s:
            raise TimeoutError("not all elections were led, or met")
        time.sleep(_LOOK_S)
