"""Plays a plan in a simulated world, with somebody who checks.

Rules of this file:
    * An action that does not fit any more (the election was removed, the node is dead) does
      nothing: a plan that was cut short can be told all the same.
    * A node that dies comes back under another incarnation. Who stands for nothing any more, and
      who resigned, stands again when all is healed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from multielect import ClosedError, DemotionReason, Election, Term
from multielect._protocol.keys import group_layout
from multielect._protocol.netstrings import netstring
from multielect.fencing._writes import Write, Writer, packed
from multielect.testing import Refusal, SimulatedWorld

from .checker import Actor, BrokenPromiseError, Checker
from .plan import LOSES_DATA, Action, Plan, healed_within_ms

PREFIX = "sim"
BUCKETS = 4
REFUSALS = ("LOADING", "BUSY", "MISCONF", "OOM")
STOP_TIMEOUT_S = 5.0


@dataclass
class Outcome:
    """What came of a story.

    Attributes:
        plan: what was played.
        broken: the promise that was broken, if one was.
        digest: what tells this history from any other.
        history: its last lines.
        happened: how many things happened.
        faults: how many of each kind were injected.
        terms: how many terms began.
        demoted: how many ended, for each reason.
        excused: how often more than one believed, where that is excused.
        writes: what became of the fenced writes.
        takeovers_ms: how long elections were without a leader, for each kind of fault.
    """

    plan: Plan
    broken: BrokenPromiseError | None
    digest: str
    history: list[str]
    happened: int
    faults: Counter[str]
    terms: int
    demoted: Counter[DemotionReason]
    excused: int
    writes: Counter[str]
    takeovers_ms: dict[str, list[float]]


class Story:
    """A plan, being played."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.world = SimulatedWorld(
            seed=plan.seed,
            redis_version=(6, 2) if plan.old_server else (7, 0),
            latency=(plan.latency_us[0] / 1e6, plan.latency_us[1] / 1e6),
        )
        self.layout = group_layout(PREFIX, BUCKETS)
        self.keys = [b"k%d" % number for number in range(plan.keys)]
        self.checker = Checker(self.world, self.layout, self.keys, plan.ttl_ms, plan.epochs)
        self.faults: Counter[str] = Counter()
        self.takeovers_ms: dict[str, list[float]] = {}
        self._leaderless: dict[str, tuple[str, int]] = {}
        self._actors: dict[int, Actor] = {}
        self._coming: set[int] = set()
        self._pid = os.getpid()
        if plan.drifts:
            self.world.server.drift(plan.drifts[0])
        for number in range(plan.nodes):
            self._begin(number)

    def play(self) -> Outcome:
        """Let it all happen."""
        broken = None
        for action in self.plan.actions:
            self._after(action.at_ms / 1000, functools.partial(self.act, action))
        try:
            with self.world:
                self.world.run(self.plan.length_ms / 1000)
                self.end()
        except BrokenPromiseError as error:
            broken = error
        # A core that fails loudly has found a fault as well: it is told like any other.
        except Exception as error:  # noqa: BLE001
            broken = BrokenPromiseError("failed", repr(error))
            broken.__cause__ = error
        checker = self.checker
        return Outcome(
            plan=self.plan,
            broken=broken,
            digest=self.world.digest(),
            history=[str(line) for line in self.world.history],
            happened=self.world.happened,
            faults=self.faults,
            terms=checker.terms,
            demoted=checker.demoted,
            excused=checker.excused,
            writes=checker.writes,
            takeovers_ms=self.takeovers_ms,
        )

    # ---- nodes

    def _begin(self, number: int) -> None:
        plan = self.plan
        if number in self._actors and self._actors[number].node.is_alive:
            return
        self._coming.discard(number)
        name = f"n{number}"
        node = self.world.node(name, resp=2 if plan.old_server else 3)
        node.weather.split = plan.split_percent / 100
        if plan.drifts:
            node.clock.drift(plan.drifts[1 + number])
        # The group is made before its actor, and calls back no earlier than the world runs.
        made: list[Actor] = []
        checker = self.checker
        group = self.world.group(
            name,
            prefix=PREFIX,
            ttl=plan.ttl_ms / 1000,
            buckets=BUCKETS,
            epochs=plan.epochs,
            max_leases=plan.max_leases or None,
            balance=plan.balanced,
            drain_timeout=0.3,
            on_elected=lambda term: self._elected(made[0], term),
            on_demoted=lambda term, reason: checker.ended(made[0], term, reason),
            on_draining=lambda term, _: self._drain(made[0], term),
            on_error=lambda error: None,
            keys=self.keys,
            start=False,
        )
        made.append(Actor(number, node, group))
        self._actors[number] = made[0]
        checker.actors = [actor for actor in checker.actors if actor.node.is_alive] + made
        group.start()

    def _elected(self, actor: Actor, term: Term) -> None:
        self.checker.began(actor, term)
        fault = self._leaderless.pop(term.key, None)
        if fault is not None:
            kind, since_ns = fault
            self.takeovers_ms.setdefault(kind, []).append((self.world.now_ns - since_ns) / 1e6)

    def _drain(self, actor: Actor, term: Term) -> None:
        self.checker.drains(actor, term)
        self._after(0.05, lambda: self._say_drained(actor, term))

    def _say_drained(self, actor: Actor, term: Term) -> None:
        if not actor.node.is_stopped:
            self._as_user(term.finish_drain)

    def _as_user(self, act: Callable[[], object]) -> None:
        with contextlib.suppress(ClosedError, KeyError):
            act()

    def _after(self, seconds: float, act: Callable[[], object]) -> None:
        """Have something done later, but not by a forked child: that has no part in the story."""
        self.world.after(seconds, lambda: act() if os.getpid() == self._pid else None)

    # ---- what is done

    def act(self, action: Action) -> None:
        """Do what an action says, now."""
        kind = action.kind
        if kind != "heal":
            self.faults[kind] += 1
            self._expect_takeovers(action)
        if kind in LOSES_DATA:
            self.checker.data_was_lost()
        getattr(self, "_do_" + kind.replace("-", "_"))(action)

    def _expect_takeovers(self, action: Action) -> None:
        if action.kind not in _ENDS_TERMS:
            return
        for number, actor in self._actors.items():
            if action.node in {number, -1} and actor.node.is_alive:
                for election in actor.group.led:
                    self._leaderless.setdefault(election.key, (action.kind, self.world.now_ns))

    def _actor(self, action: Action) -> Actor:
        return self._actors[action.node]

    def _is_here(self, action: Action) -> bool:
        node = self._actor(action).node
        return node.is_alive and not node.is_stopped

    def _do_heal(self, _: Action) -> None:
        world, plan = self.world, self.plan
        world.heal()
        for number in list(self._coming):
            self._begin(number)
        for actor in self._actors.values():
            actor.node.weather.split = plan.split_percent / 100
            self._as_user(functools.partial(self._stand_again, actor))
        for key in self.keys:
            self._unspoil(key)
        self._leaderless.clear()
        faults = self.faults.total()

        def check() -> None:
            # What was cut short may have trouble where there was to be none.
            if self.faults.total() == faults:
                self.checker.all_is_led()

        self._after(healed_within_ms(plan) / 1000, check)

    def _stand_again(self, actor: Actor) -> None:
        actor.group.add_many(self.keys)
        for key in self.keys:
            actor.group[key].campaign()

    def _unspoil(self, key: bytes) -> None:
        name = self.layout.leader_key(key)
        if isinstance(self.world.server.model.store.get(name), Refusal):
            self.world.server.model.delete(name)

    def _do_pause(self, action: Action) -> None:
        if self._is_here(action):
            self.world.pause(self._actor(action).node, action.values[0] / 1000)

    def _do_crash(self, action: Action) -> None:
        node = self._actor(action).node
        if node.is_alive:
            self.world.crash(node)
            self._return(action)

    def _do_restart(self, action: Action) -> None:
        """A clean stop, and a new process."""
        actor = self._actor(action)
        if self._is_here(action):
            actor.group.stop(STOP_TIMEOUT_S)
            if actor.node.is_alive and not actor.node.is_stopped:
                self.checker.over(actor)
            self.world.crash(actor.node)
            self._return(action)

    def _return(self, action: Action) -> None:
        self._coming.add(action.node)
        self._after(action.values[0] / 1000, functools.partial(self._begin, action.node))

    def _do_fork(self, action: Action) -> None:
        """The child must own nothing, and send nothing, however long it lives."""
        if self._is_here(action):
            actors = list(self._actors.values())
            if not fork_and_check(self.world, actors, self.plan.ttl_ms):
                self.checker.broke("I1", "a forked child believes, or acts")

    def _do_stuff(self, action: Action) -> None:
        if self._is_here(action):
            self.world.stuff(self._actor(action).node, action.values[0] / 1000)

    def _do_lag(self, action: Action) -> None:
        self.world.lag(self._actor(action).node, action.values[0] / 1000)

    def _do_delay_callbacks(self, action: Action) -> None:
        self.world.delay_callbacks(self._actor(action).node, action.values[0] / 1000)

    def _do_jump(self, action: Action) -> None:
        if self._actor(action).node.is_alive:
            self.world.jump(self._actor(action).node, action.values[0] / 1000)

    def _do_cut(self, action: Action) -> None:
        late_ms = action.values[0]
        self.world.cut(self._actor(action).node, late=None if late_ms < 0 else late_ms / 1000)

    def _do_hold(self, action: Action) -> None:
        which, span_ms = action.values
        self.world.hold(
            self._actor(action).node,
            span_ms / 1000,
            requests=bool(which & 1),
            replies=bool(which & 2),
        )

    def _do_slow(self, action: Action) -> None:
        self.world.delay(self._actor(action).node, 0.0001, 0.0001 + action.values[0] / 1000)

    def _do_split(self, action: Action) -> None:
        self.world.split(self._actor(action).node, action.values[0] / 100)

    def _do_resign(self, action: Action) -> None:
        group, key = self._actor(action).group, self.keys[action.values[0]]
        if self._is_here(action) and key in group:
            self._as_user(group[key].resign)

    def _do_campaign(self, action: Action) -> None:
        group, key = self._actor(action).group, self.keys[action.values[0]]
        if self._is_here(action) and key in group:
            self._as_user(group[key].campaign)

    def _do_remove(self, action: Action) -> None:
        group, key = self._actor(action).group, self.keys[action.values[0]]
        if self._is_here(action):
            self._as_user(lambda: group.remove(key))

    def _do_add(self, action: Action) -> None:
        group, key = self._actor(action).group, self.keys[action.values[0]]
        if self._is_here(action):
            self._as_user(lambda: group.add(key))

    def _do_write(self, action: Action) -> None:
        """A leader looks whether it leads, and writes: at once, or after it was stopped."""
        number, late_ms = action.values
        key, group = self.keys[number], self._actor(action).group
        if not self._is_here(action) or key not in group or not group[key].is_leader:
            return
        writer = Writer(key=key, epoch=group[key].epoch)
        write = functools.partial(self._write, self._actor(action), key, writer)
        self._after(late_ms / 1000, write)

    def _write(self, actor: Actor, key: bytes, writer: Writer) -> None:
        server, register = self.world.server.model, b"sim:data:" + key
        if not self.world.server.is_reachable:
            return
        write = Write.set(writer, register, b"%d" % writer.epoch)
        (batch,) = packed([write], self.layout, spans_buckets=True)
        script = batch.script.without_flags if self.plan.old_server else batch.script.with_flags
        count = b"%d" % len(batch.keys)
        before = server.get(register)
        reply = server.call([b"EVAL", script.body, count, *batch.keys, *batch.arguments])
        self.checker.written(before, writer.epoch, reply)
        if isinstance(reply, list) and isinstance(reply[0], list) and reply[0][0] == 0:
            assert isinstance(reply[0][1], int)
            self._learn(actor, key, writer.epoch, reply[0][1])

    def _learn(self, actor: Actor, key: bytes, epoch: int, newest_epoch: int) -> None:
        """Tell the node of a newer epoch, as a fence does that was refused."""
        if not actor.node.is_alive or actor.node.is_stopped or key not in actor.group:
            return
        election = actor.group[key]
        place = election.number, election.generation
        actor.group._node.learn_epoch(*place, epoch, newest_epoch)
        self.checker.stale.add((actor.holder, key, epoch))

    def _do_orphan(self, action: Action) -> None:
        """A primary that lost its office elects somebody, who writes with the new one."""
        actor, span_ms = self._actor(action), action.values[0]
        # With a counter it may grant an epoch that the new one has granted to another.
        if self.plan.epochs == "counter" or not self._is_here(action):
            return
        self.checker.may_lead_elsewhere(span_ms)
        left = self.world.orphan(actor.node, span_ms / 1000)
        left.observe = self.checker.answered_elsewhere
        free = b"".join(netstring(self.layout.leader_key(key)) for key in self.keys)
        left.publish(self.layout.channel, netstring(b"nobody/1") + free)
        for number in range(len(self.keys)):
            write = Action(action.at_ms, "write", action.node, (number, 0))
            self._after(0.02, functools.partial(self._do_write, write))

    # ---- of the server

    def _do_stall(self, action: Action) -> None:
        self.world.server.stall(action.values[0] / 1000)

    def _do_reboot(self, action: Action) -> None:
        self.world.server.restart(action.values[0] / 1000)

    def _do_lose_all(self, action: Action) -> None:
        self.world.server.restart(action.values[0] / 1000, keeping_data=False)

    def _do_fail_over(self, action: Action) -> None:
        self.world.server.fail_over(losing=action.values[0] / 1000, seconds=0.05)

    def _do_flush(self, _: Action) -> None:
        self.world.server.flush()

    def _do_step_clock(self, action: Action) -> None:
        if action.values[0] > 0:
            self.checker.lease_may_end_early()
        self.world.server.step_clock(action.values[0] / 1000)

    def _do_refuse(self, action: Action) -> None:
        word = REFUSALS[action.values[0] % len(REFUSALS)]
        refusal = self.world.server.model.refusal = Refusal(f"{word} for a while")

        def end() -> None:
            if self.world.server.model.refusal is refusal:
                self.world.server.model.refusal = None

        self._after(action.values[0] / 1000, end)

    def _do_fill(self, action: Action) -> None:
        self._set_for("is_full", action)

    def _do_demote(self, action: Action) -> None:
        self._set_for("is_replica", action)

    def _set_for(self, name: str, action: Action) -> None:
        setattr(self.world.server.model, name, True)
        self._after(action.values[0] / 1000, lambda: setattr(self.world.server.model, name, False))

    def _do_forget_scripts(self, _: Action) -> None:
        self.world.server.model.forget_scripts()

    def _do_evict(self, action: Action) -> None:
        self.world.server.model.delete(self.layout.leader_key(self.keys[action.values[0]]))

    def _do_evict_epoch(self, action: Action) -> None:
        self.world.server.model.delete(self.layout.epoch_key(self.keys[action.values[0]]))

    def _do_spoil(self, action: Action) -> None:
        """A key of another type stands where a lease was."""
        number, span_ms = action.values
        name = self.layout.leader_key(self.keys[number])
        self.world.server.model.put(name, [b"a", b"list"])
        self._after(span_ms / 1000, lambda: self._unspoil(self.keys[number]))

    # ---- the end

    def end(self) -> None:
        """Stop all groups, and see that all that was told as begun is told as ended."""
        self.world.heal()
        for actor in list(self._actors.values()):
            if actor.node.is_alive:
                actor.group.stop(STOP_TIMEOUT_S)
                self.checker.over(actor)


_ENDS_TERMS = {
    "pause", "crash", "restart", "stuff", "hold", "resign", "remove", "jump",
    "stall", "reboot", "lose-all", "fail-over", "flush", "step-clock", "evict", "spoil",
}  # fmt: skip


def fork_and_check(world: SimulatedWorld, actors: list[Actor], ttl_ms: int) -> bool:
    """Fork, and have the child see that it owns nothing and sends nothing. Returns whether so."""
    elections = [actor.group[key] for actor in actors for key in actor.group]
    with warnings.catch_warnings():
        # The test may have other threads, of which the child needs none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        verdict = 1
        try:
            verdict = 0 if _is_nobody(world, actors, elections, ttl_ms) else 2
        finally:
            os._exit(verdict)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def _is_nobody(
    world: SimulatedWorld, actors: list[Actor], elections: list[Election], ttl_ms: int
) -> bool:
    sent: list[str] = []
    world.note_bytes = lambda name, data: sent.append(name)  # type: ignore[method-assign]
    world.observe = None
    if any(actor.group.led for actor in actors):
        return False
    if any(election.is_leader or election.remaining for election in elections):
        return False
    if not all(map(_is_closed, actors)):
        return False
    world.run(3 * ttl_ms / 1000)
    return not [name for name in sent if name.endswith(">")]


def _is_closed(actor: Actor) -> bool:
    acts: list[Callable[[], object]] = [actor.group.start, actor.group.drain]
    acts.append(functools.partial(actor.group.add, "new"))
    for act in acts:
        try:
            act()
        except ClosedError:
            continue
        return False
    return True
