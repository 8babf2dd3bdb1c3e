"""The mishaps of the fleet and their results: a freeze, a join, a crash, a clean stop.

Rules of this file:
    * The next mishap waits until the last one is over: every election is led again, and every
      running node leads its share.
    * If the fleet is not balanced in time after a change, the verdict reports it and the run goes
      on. If the successors of a node do not take over in time, that is an error.
"""

from __future__ import annotations

from collections.abc import Callable

from .beliefs import BelievedTerm
from .fleet import Fleet
from .leases import LeaseReader
from .plan import FREEZE_AT, JOIN_AT, KILL_AT, STOP_AT
from .result import Change, Crash, Freezing, Result
from .takeover import Moves, Takeovers, after_lease_ends, moves_since
from .view import NodeState, Snapshot
from .watch import Watch


class Mishaps:
    """Causes the mishaps of a fleet, one after another, and records their results in a `Result`."""

    def __init__(self, fleet: Fleet, watch: Watch, leases: LeaseReader, result: Result) -> None:
        self._fleet = fleet
        self._watch = watch
        self._leases = leases
        self._result = result

    def freeze(self, node: str) -> None:
        """Stop a process until its leases are gone, and then let it go on."""
        self._watch.until_part(FREEZE_AT)
        process = self._fleet[node]
        process.send("freeze")
        (late,) = self._fleet.receive(node, "freezing")
        frozen_ns = self._watch.now_ns()
        leases = self._leases.held_by(node)
        self._fleet.states[node] = NodeState.FROZEN
        self._watch.say(
            f"{node} is frozen (SIGSTOP) while it leads {len(leases):,}, "
            f"with {late} commits about to be sent"
        )
        takeovers = self._takeover(
            node, len(leases), lambda terms: after_lease_ends(leases, frozen_ns, terms)
        )
        thawed_ns = self._watch.now_ns()
        process.thaw()
        self._fleet.states[node] = NodeState.RUNNING
        refused, _committed = self._fleet.receive(node, "thawed")
        frozen_s = (thawed_ns - frozen_ns) / 1e9
        self._result.freezing = Freezing(node, len(leases), frozen_s, late, refused, takeovers)
        self._watch.say(
            f"{node} goes on after {frozen_s:.1f} s and sends its {late} late commits: "
            f"{refused} refused"
        )
        self._result.back = self._change(node, self._share(), thawed_ns, comes=True)
        self._note(f"{node} has its share back", self._result.back)

    def join(self, node: str) -> None:
        """Start one node more."""
        self._watch.until_part(JOIN_AT)
        self._fleet.start(node)
        self._watch.until(f"{node} to be ready", lambda _: self._fleet.is_ready)
        joined_ns = self._watch.now_ns()
        self._fleet.begin(self._watch.start_ns)
        self._watch.say(f"{node} joins")
        self._result.join = self._change(node, self._share(), joined_ns, comes=True)
        self._note(f"{node} has its share", self._result.join)

    def kill(self, node: str) -> None:
        """Kill a process."""
        self._watch.until_part(KILL_AT)
        self._fleet[node].kill()
        died_ns = self._watch.now_ns()
        self._fleet.note_death(node, died_ns)
        leases = self._leases.held_by(node)
        self._watch.say(f"{node} is killed (kill -9) while it leads {len(leases):,}")
        takeovers = self._takeover(
            node, len(leases), lambda terms: after_lease_ends(leases, died_ns, terms)
        )
        self._result.crash = Crash(node, len(leases), takeovers)
        self._watch.say(
            f"{node}'s elections are led again, {_described(takeovers)} after lease end"
        )

    def stop(self, node: str) -> None:
        """Stop a node, which first hands over all its elections."""
        self._watch.until_part(STOP_AT)
        led = self._leases.leaders().count(node)
        stopping_ns = self._watch.now_ns()
        self._fleet[node].stop()
        self._fleet.states[node] = NodeState.STOPPING
        self._watch.say(f"{node} is asked to stop (SIGTERM): it drains the {led:,} that it leads")
        self._watch.until(f"{node} to end", lambda _: self._fleet[node].ended)
        self._fleet.states[node] = NodeState.STOPPED
        self._result.stop = self._change(node, led, stopping_ns, comes=False)
        self._note(f"{node} has stopped", self._result.stop)

    def _share(self) -> int:
        running = [state for state in self._fleet.states.values() if state is NodeState.RUNNING]
        return self._result.elections // len(running)

    def _takeover(
        self, node: str, led: int, measure: Callable[[list[BelievedTerm]], Takeovers]
    ) -> Takeovers:
        """Wait until the successors of `node` say so in all the elections that it led."""
        takeovers = Takeovers([])

        def are_led_again(snapshot: Snapshot) -> bool:
            nonlocal takeovers
            if is_balanced(snapshot):
                takeovers = measure(self._fleet.terms())
            return len(takeovers) == led

        self._watch.until(f"new leaders in place of {node}", are_led_again)
        return takeovers

    def _change(self, node: str, least: int, since_ns: int, *, comes: bool) -> Change:
        """Wait until the fleet is balanced again, and return what moved for that."""
        moves: Moves | None = None

        def is_over(snapshot: Snapshot) -> bool:
            nonlocal moves
            if not is_balanced(snapshot):
                return False
            moves = moves_since(since_ns, self._fleet.terms())
            # The server may know of a move before the callbacks on both sides have told of it.
            return not moves.unfinished and moves.leads == snapshot.leads

        is_settled = self._watch.sees(is_over)
        if moves is None:
            moves = moves_since(since_ns, self._fleet.terms())
        return Change(node, least, moves, is_balanced=is_settled, comes=comes)

    def _note(self, what: str, change: Change) -> None:
        self._watch.say(
            f"{what if change.is_balanced else 'shares stay uneven'}: {change.moves.moved:,} "
            f"elections moved ({change.least:,} at the least), {_described(change.takeovers)} "
            "without a leader"
        )


def is_balanced(snapshot: Snapshot) -> bool:
    """Return whether all elections are led, and every running node leads its share (±1)."""
    running = {node for node, state in snapshot.states.items() if state is NodeState.RUNNING}
    share = (sum(snapshot.leads.values()) + snapshot.leaderless) // len(running)
    return (
        not snapshot.leaderless
        and snapshot.leads.keys() <= running
        and all(share <= snapshot.leads.get(node, 0) <= share + 1 for node in running)
    )


def _described(takeovers: Takeovers) -> str:
    p50, p99 = takeovers.percentile(50), takeovers.percentile(99)
    if p50 is None or p99 is None:
        return "none"
    return f"p50 {p50:,.0f} ms, p99 {p99:,.0f} ms"
