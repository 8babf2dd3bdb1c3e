"""Starts the nodes, makes them fail, waits for the end of the stream, and collects what is left.

Rules of this file:
    * What is to happen is a `Plan`, made before anything runs; at least one node goes through
      unharmed to the end of the stream.
    * The next mishap waits until the last one is over, that is until every election is led
      again. Every wait is bounded, and says what it waited for when it gives up.
    * A node that ends when it should not is an error at once, with the end of its log.
    * However this ends, by itself or by an exception, no process and no file is left.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from multielect._clock import Clock

from .beliefs import BelievedTerm, NodeBeliefs, believed_terms, read_beliefs
from .checkpoint import CheckpointStore
from .leases import LeaseReader
from .node import NodeSpec
from .process import NodeProcess
from .takeover import Takeovers, after_lease_ends, after_release, release_times
from .verdict import Verdict, judge
from .view import NodeState, Snapshot, View

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from .stream import EventStream

_LOOK_SECONDS = 0.2
_PATIENCE_SECONDS = 20.0
_STOP_SECONDS = 15.0
_RATE_LOOKS = 10

FREEZE_AT, KILL_AT, STOP_AT = 0.15, 0.45, 0.75
"""When the mishaps happen, as parts of the stream's time."""


class DemoError(Exception):
    """The demo could not be carried through. The message says at what it failed."""


@dataclass(frozen=True)
class Plan:
    """What is to happen to which node; None where it is to happen to none."""

    nodes: list[str]
    frozen: str | None
    killed: str | None
    stopped: str | None

    @classmethod
    def make(cls, nodes: int, *, kill: bool = True, freeze: bool = True) -> Plan:
        """Return the plan for so many nodes, of which one at least stays to the end."""
        names = [f"node-{number}" for number in range(1, nodes + 1)]
        leaving = iter(names[:-1])
        return cls(
            nodes=names,
            frozen=names[-1] if freeze else None,
            killed=next(leaving, None) if kill else None,
            stopped=next(leaving, None),
        )


@dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        plan: what is to happen.
        url: of the Redis server.
        prefix: of everything that the run writes there.
        ttl: of the leases, in seconds.
        seconds: how long the stream lasts.
    """

    plan: Plan
    url: str
    prefix: str
    ttl: float
    seconds: float


@dataclass
class Freezing:
    """What came of the node that was frozen."""

    node: str
    led: int
    frozen_s: float
    late_commits: int
    late_refused: int
    takeovers: Takeovers


@dataclass
class Leaving:
    """What came of a node that was killed or stopped."""

    node: str
    led: int
    takeovers: Takeovers


@dataclass
class Result:
    """Everything that a run brought to light."""

    elections: int
    nodes: int
    all_led_ms: float = 0.0
    freezing: Freezing | None = None
    crash: Leaving | None = None
    release: Leaving | None = None
    stream_s: float = 0.0
    fenced_out: int = 0
    verdict: Verdict = field(init=False)


class Conductor:
    """Carries out one run. Use it once, on the main thread."""

    def __init__(
        self, settings: Settings, stream: EventStream, client: redis.Redis, view: View
    ) -> None:
        self._settings = settings
        self._plan = settings.plan
        self._stream = stream
        self._view = view
        self._store = CheckpointStore(client, settings.prefix, stream.keys)
        self._leases = LeaseReader(client, settings.prefix, stream.keys)
        self._now_ns = Clock().now_ns
        self._start_ns = 0
        self._folder = Path()
        self._processes: dict[str, NodeProcess] = {}
        self._states = dict.fromkeys(self._plan.nodes, NodeState.RUNNING)
        self._died_ns: dict[str, int] = {}
        self._looks: deque[tuple[int, int]] = deque(maxlen=_RATE_LOOKS)
        self._result = Result(elections=len(stream.keys), nodes=len(self._plan.nodes))

    def run(self) -> Result:
        """Run from the start of the nodes to the verdict.

        Raises:
            DemoError: if a node fails, or something does not happen in time.
            redis.RedisError: if the server fails.
        """
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="multielect-demo-"))
            self._folder = Path(folder)
            self._start_nodes(stack)
            self._wait_until_all_led()
            if self._plan.frozen:
                self._freeze(self._plan.frozen)
            if self._plan.killed:
                self._kill(self._plan.killed)
            if self._plan.stopped:
                self._stop(self._plan.stopped)
            self._finish()
            self._judge()
        return self._result

    def _start_nodes(self, stack: ExitStack) -> None:
        nodes, elections = self._plan.nodes, len(self._stream.keys)
        self._stream.save(self._folder / "events")
        for number, node in enumerate(nodes):
            spec = NodeSpec(
                url=self._settings.url,
                prefix=self._settings.prefix,
                node=node,
                ttl=self._settings.ttl,
                stream=str(self._folder / "events"),
                beliefs=str(self._beliefs_path(node)),
                own=(number, len(nodes)),
                span_ns=int(self._settings.seconds * 1e9),
                conductor=os.getpid(),
            )
            process = NodeProcess(spec, self._folder / f"{node}.log")
            stack.callback(process.close)
            self._processes[node] = process
        waiting = set(nodes)
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while waiting:
            waiting -= {
                node for node in waiting if self._processes[node].heard("ready") is not None
            }
            self._check_processes()
            if time.monotonic() > give_up:
                raise DemoError(f"{', '.join(sorted(waiting))} did not get ready")
            time.sleep(0.01)
        self._start_ns = self._now_ns()
        for process in self._processes.values():
            process.tell(str(self._start_ns))
        self._view.say(
            0.0, f"{len(nodes)} nodes share {elections:,} elections, and then stand for all"
        )

    def _wait_until_all_led(self) -> None:
        elections = self._result.elections
        self._watch(
            "a leader for every election", lambda _: len(self._first_elected()) == elections
        )
        all_led_ns = max(self._first_elected().values()) - self._start_ns
        self._result.all_led_ms = all_led_ns / 1e6
        self._say(f"all {elections:,} elections were led after {self._result.all_led_ms:,.0f} ms")
        for process in self._processes.values():
            process.tell("stand")

    def _first_elected(self) -> dict[int, int]:
        first: dict[int, int] = {}
        for term in self._terms():
            first[term.election] = min(term.elected_ns, first.get(term.election, term.elected_ns))
        return first

    def _freeze(self, node: str) -> None:
        self._watch_until(FREEZE_AT)
        process = self._processes[node]
        process.tell("freeze")
        (late,) = self._hear(process, "freezing")
        frozen_ns = self._now_ns()
        leases = self._leases.held_by(node)
        self._states[node] = NodeState.FROZEN
        self._say(
            f"{node} is frozen (SIGSTOP) while it leads {len(leases):,}, "
            f"with {late} commits about to be sent"
        )
        takeovers = self._watch_takeover(
            node, len(leases), lambda terms: after_lease_ends(leases, frozen_ns, terms)
        )
        process.thaw()
        frozen_s = (self._now_ns() - frozen_ns) / 1e9
        self._states[node] = NodeState.RUNNING
        refused, _committed = self._hear(process, "thawed")
        self._result.freezing = Freezing(node, len(leases), frozen_s, late, refused, takeovers)
        self._say(
            f"{node} goes on after {frozen_s:.1f} s and sends its {late} late commits: "
            f"{refused} refused"
        )

    def _kill(self, node: str) -> None:
        self._watch_until(KILL_AT)
        self._processes[node].kill()
        died_ns = self._died_ns[node] = self._now_ns()
        leases = self._leases.held_by(node)
        self._states[node] = NodeState.KILLED
        self._say(f"{node} is killed (kill -9) while it leads {len(leases):,}")
        takeovers = self._watch_takeover(
            node, len(leases), lambda terms: after_lease_ends(leases, died_ns, terms)
        )
        self._result.crash = Leaving(node, len(leases), takeovers)
        self._say(f"{node}'s elections are led again, {_described(takeovers)} after lease end")

    def _stop(self, node: str) -> None:
        self._watch_until(STOP_AT)
        stopping_ns = self._now_ns()
        self._processes[node].stop()
        self._states[node] = NodeState.STOPPING
        self._say(f"{node} is asked to stop (SIGTERM) and releases what it leads")
        self._watch(f"{node} to end", lambda _: self._processes[node].ended)
        self._states[node] = NodeState.STOPPED
        released = release_times(node, stopping_ns, self._terms())
        takeovers = self._watch_takeover(
            node, len(released), lambda terms: after_release(node, released, terms)
        )
        self._result.release = Leaving(node, len(released), takeovers)
        self._say(f"{node}'s elections are led again, {_described(takeovers)} after release")

    def _finish(self) -> None:
        events = len(self._stream)
        progress_ns, committed = self._now_ns(), -1
        stalled_ns = int((3 * self._settings.ttl + _PATIENCE_SECONDS) * 1e9)
        while committed < events:
            snapshot = self._look()
            if snapshot.committed > committed:
                progress_ns, committed = self._now_ns(), snapshot.committed
            elif self._now_ns() - progress_ns > stalled_ns:
                self._say(f"nothing was committed for {stalled_ns / 1e9:.0f} s: giving up")
                break
            time.sleep(_LOOK_SECONDS)
        self._result.stream_s = (self._now_ns() - self._start_ns) / 1e9
        for node, state in self._states.items():
            if state is NodeState.RUNNING:
                self._processes[node].stop()
                self._states[node] = NodeState.STOPPING
        give_up = time.monotonic() + _STOP_SECONDS
        while not all(process.ended for process in self._processes.values()):
            if time.monotonic() > give_up:
                raise DemoError(f"a node did not stop within {_STOP_SECONDS:.0f} s")
            self._check_processes()
            time.sleep(0.02)
        self._check_processes()

    def _judge(self) -> None:
        self._say("the stream has ended and all nodes are stopped; checking the journal")
        self._result.fenced_out = self._store.totals().refused
        self._result.verdict = judge(
            self._stream, self._store.journal(), self._store.epochs(), self._beliefs()
        )

    def _watch_until(self, part: float) -> None:
        at_ns = self._start_ns + int(part * self._settings.seconds * 1e9)
        while self._now_ns() < at_ns:
            self._look()
            time.sleep(min(_LOOK_SECONDS, max(0.0, (at_ns - self._now_ns()) / 1e9)))

    def _watch_takeover(
        self, node: str, led: int, measure: Callable[[list[BelievedTerm]], Takeovers]
    ) -> Takeovers:
        """Wait until the successors of `node` say so in all the elections that it led."""
        self._watch(
            f"new leaders in place of {node}",
            lambda snapshot: (
                not snapshot.leaderless
                and node not in snapshot.leads
                and len(measure(self._terms())) == led
            ),
        )
        return measure(self._terms())

    def _watch(self, what: str, done: Callable[[Snapshot], bool]) -> None:
        give_up = time.monotonic() + 2 * self._settings.ttl + _PATIENCE_SECONDS
        while True:
            # A look costs the machine something: none right after what is to be measured.
            time.sleep(_LOOK_SECONDS)
            if done(self._look()):
                return
            if time.monotonic() > give_up:
                raise DemoError(f"waited in vain for {what}{self._last_words()}")

    def _hear(self, process: NodeProcess, word: str) -> list[int]:
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while (said := process.heard(word)) is None:
            self._check_processes()
            if time.monotonic() > give_up:
                raise DemoError(f"{process.node} did not say {word!r} in time{self._last_words()}")
            time.sleep(0.001)
        return said

    def _look(self) -> Snapshot:
        self._check_processes()
        leads: dict[str, int] = {}
        leaders = self._leases.leaders()
        for leader in leaders:
            if leader is not None:
                leads[leader] = leads.get(leader, 0) + 1
        totals = self._store.totals()
        now_ns = self._now_ns()
        self._looks.append((now_ns, totals.events))
        first_ns, first_events = self._looks[0]
        snapshot = Snapshot(
            elapsed_s=(now_ns - self._start_ns) / 1e9,
            events=len(self._stream),
            committed=totals.events,
            per_second=(totals.events - first_events) / max(1e-3, (now_ns - first_ns) / 1e9),
            refused=totals.refused,
            leads=leads,
            leaderless=leaders.count(None),
            states=dict(self._states),
        )
        self._view.show(snapshot)
        return snapshot

    def _check_processes(self) -> None:
        for node, process in self._processes.items():
            status = process.exit_status
            if status is None or self._states[node] is NodeState.KILLED:
                continue
            ending = self._states[node] in {NodeState.STOPPING, NodeState.STOPPED}
            if status != 0 or not ending:
                raise DemoError(f"{node} ended by itself, status {status}{self._last_words()}")

    def _last_words(self) -> str:
        logs = {node: process.last_words() for node, process in self._processes.items()}
        return "".join(f"\nThe end of {node}'s log:\n{log}" for node, log in logs.items() if log)

    def _beliefs(self) -> list[NodeBeliefs]:
        return [
            believed_terms(
                node, read_beliefs(self._beliefs_path(node)), died_ns=self._died_ns.get(node)
            )
            for node in self._plan.nodes
        ]

    def _terms(self) -> list[BelievedTerm]:
        return [term for beliefs in self._beliefs() for term in beliefs.terms]

    def _beliefs_path(self, node: str) -> Path:
        return self._folder / f"{node}.beliefs"

    def _say(self, what: str) -> None:
        self._view.say((self._now_ns() - self._start_ns) / 1e9, what)


def _described(takeovers: Takeovers) -> str:
    p50, p99 = takeovers.percentile(50), takeovers.percentile(99)
    if p50 is None or p99 is None:
        return "none"
    return f"p50 {p50:,.0f} ms, p99 {p99:,.0f} ms"
