"""The simulated world: one clock, one server, the nodes, and what goes wrong between them.

Rules of this file:
    * One thread, no sleeping. Time moves when the test lets it, from one thing that happens to the
      next, and everything that happens has its place in that order.
    * All chance comes from the seed: the same seed and the same calls give the same history, to
      the byte, in any process and on any machine.
    * What goes wrong is what the test asks for. Without that, messages take a fraction of a
      millisecond and nothing is lost.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeAlias

from .._node.base import BaseElectionGroup, BaseElector
from .._node.interface import node_of
from .._protocol.scripts import WITH_FLAGS, WITHOUT_FLAGS
from .._settings.settings import checked_seconds
from ..elector import Elector
from ..errors import ConfigError
from ..group import ElectionGroup
from ._clocks import LocalClock
from ._link import Link
from ._model import RedisModel
from ._node import SimulatedNode
from ._timeline import START_NS, Timeline, span_ns

_NS = 1_000_000_000
_NEVER_NS = 1 << 62

Who: TypeAlias = "SimulatedNode | BaseElectionGroup[Any] | BaseElector[Any]"
"""A simulated process, or a group or an elector that runs in it."""


class SimulatedWorld(Timeline):
    """A world in which groups and electors run on simulated time, against a model of Redis.

    ::

        with SimulatedWorld(seed=7) as world:
            a = world.group("a", prefix="orders", ttl=10.0, on_demoted=stop)
            b = world.group("b", prefix="orders", ttl=10.0, on_elected=start)
            a.add("shard"); b.add("shard")
            world.run(seconds=30)
            world.pause(a, seconds=15)      # a's lease ends, and b takes over
            world.run(seconds=20)
            assert b["shard"].is_leader and not a["shard"].is_leader

    Groups are the real ones: the same core, the same callbacks in the same order, the same bytes.
    Only threads, sockets and Redis are simulated. Callbacks run on the test's own thread, while
    the world runs; time moves only in `run`, `run_until` and in what waits (`Election.wait`,
    `drain`, `stop`).

    All of it is for one thread.

    Args:
        seed: where all chance comes from, any whole number or text.
        redis_version: the version of the server: before 7, scripts name no flags.
        latency: the least and the most seconds that a message takes, one way.

    Attributes:
        seed: as given.
        server: the model of Redis, with what can be asked and done there.
        now_ns: the time, in nanoseconds.
        happened: how many things have happened.
        observe: called after each thing that happens, if set; to check what must always be so.
    """

    def __init__(
        self,
        *,
        seed: int | str = 0,
        redis_version: tuple[int, int] = (7, 0),
        latency: tuple[float, float] = (0.0001, 0.0003),
    ) -> None:
        super().__init__()
        self.seed = seed
        self.scripts = WITH_FLAGS if redis_version >= (7, 0) else WITHOUT_FLAGS
        self.server_clock = LocalClock(START_NS)
        self.server = RedisModel(self.server_clock)
        self.server.store.remembers = True
        self.nodes: list[SimulatedNode] = []
        self._latency_ns = _range_ns("latency", latency)
        self._server_up_ns = START_NS
        self._server_free_ns = START_NS
        self._inbox: list[tuple[Link, bytes]] = []
        self._nodes_made = 0

    def __enter__(self) -> SimulatedWorld:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End: all nodes die, without a callback."""
        for node in self.nodes:
            node.die()

    # ---- who is there

    def node(self, name: str, *, resp: int = 3) -> SimulatedNode:
        """Return the living process of this name, a new one if there is none.

        It is what an `ElectionGroup` or an `Elector` takes as its `redis`: a program that makes
        its own group can be given one in place of the address of Redis.

        Args:
            name: any text.
            resp: the version of the protocol that its server speaks, 2 or 3. With 2, what is
                announced arrives on a second connection.
        """
        for there in self.nodes:
            if there.name == name and there.is_alive:
                return there
        self.nodes = [there for there in self.nodes if there.is_alive or there.heard_links()]
        self._nodes_made += 1
        made = SimulatedNode(self, name, self._nodes_made, resp=resp)
        made.weather.min_latency_ns, made.weather.max_latency_ns = self._latency_ns
        self.nodes.append(made)
        return made

    def group(
        self,
        node_id: str,
        *,
        prefix: str,
        keys: Iterable[str | bytes] = (),
        start: bool = True,
        logger: logging.Logger | None = None,
        **settings: Any,  # noqa: ANN401  # those of ElectionGroup
    ) -> ElectionGroup:
        """Return a group in the process of this name, which begins if it is not there.

        Args:
            node_id: the name of the process, and of the node.
            prefix: see `ElectionGroup`.
            keys: elections to stand for.
            start: whether to start the group.
            logger: where errors are logged; nowhere by default.
            settings: all others of `ElectionGroup`.
        """
        made = ElectionGroup(
            self.node(node_id), prefix=prefix, node_id=node_id, logger=logger or _SILENT, **settings
        )
        made.add_many(keys)
        if start:
            made.start()
        return made

    def elector(
        self,
        node_id: str,
        *,
        prefix: str,
        start: bool = True,
        logger: logging.Logger | None = None,
        **settings: Any,  # noqa: ANN401  # those of Elector
    ) -> Elector:
        """Return an elector in the process of this name, as `group` does."""
        made = Elector(
            self.node(node_id), prefix=prefix, node_id=node_id, logger=logger or _SILENT, **settings
        )
        if start:
            made.start()
        return made

    # ---- what befalls nodes

    def pause(self, who: Who, seconds: float | None = None) -> None:
        """Stop a process, as SIGSTOP or a suspended machine does: its clock goes on.

        Args:
            who: which.
            seconds: after how long it goes on; not before `resume` by default.
        """
        node = self._node_of(who)
        self.note(node, "paused")
        node.is_stopped = True
        node.paused_until_ns = self._until(node.paused_until_ns, seconds)
        if seconds is not None:
            self.after(seconds, lambda: self._resume_if_due(node))

    def resume(self, who: Who) -> None:
        """Have a paused process go on."""
        node = self._node_of(who)
        if node.is_alive and node.is_stopped:
            self.note(node, "resumed")
            node.paused_until_ns = 0
            node.go_on()

    def crash(self, who: Who) -> None:
        """Kill a process, as SIGKILL does. What it had sent still arrives.

        No callback is called any more. Another group of the same name is another process.
        """
        node = self._node_of(who)
        self.note(node, "crashed")
        node.die()

    def stuff(self, who: Who, seconds: float) -> None:
        """Let a process send nothing for a time: its send buffer is full.

        What it would have sent leaves afterwards, as old as it then is.
        """
        node = self._node_of(who)
        self.note(node, "cannot send")
        node.stuffed_until_ns = self._until(node.stuffed_until_ns, seconds)
        self.after(seconds, node.send_waiting)

    def lag(self, who: Who, seconds: float) -> None:
        """Have each turn of a process come up to so much too late, from now on."""
        self._node_of(who).lag_ms = 1000 * checked_seconds("seconds", seconds)

    def delay_callbacks(self, who: Who, seconds: float) -> None:
        """Have each callback of a process come so much later, from now on."""
        self._node_of(who).callback_delay_ns = span_ns("seconds", seconds)

    def drift(self, who: Who | None, parts_per_million: int) -> None:
        """Have a machine's clock run too fast from now on, too slow where negative.

        Args:
            who: whose; the server's for None.
            parts_per_million: by how much.
        """
        clock = self.server_clock if who is None else self._node_of(who).clock
        self.note(who, f"its clock drifts by {parts_per_million} ppm")
        clock.drift(parts_per_million)

    def jump(self, who: Who, seconds: float) -> None:
        """Have a node's clock go forward at once."""
        self.note(who, f"its clock jumps by {seconds:g} s")
        self._node_of(who).clock.jump(span_ns("seconds", seconds))

    # ---- what befalls connections

    def cut(self, who: Who | None = None, *, late: float | None = None) -> None:
        """Break the connections of a process, or of all. Replies that are on their way are lost.

        Args:
            who: whose; everybody's for None.
            late: seconds after which requests that are on their way, and those held by `hold`,
                arrive at the server all the same, though nobody waits for an answer; None: never.
        """
        late_ns = None if late is None else span_ns("late", late)
        for node in self._nodes_of(who):
            self.note(node, "connection cut")
            for link in node.heard_links():
                link.cut(late_ns)

    def hold(
        self,
        who: Who | None = None,
        seconds: float | None = None,
        *,
        requests: bool = True,
        replies: bool = True,
    ) -> None:
        """Let nothing through, one way or both, without breaking a connection.

        Args:
            who: whose connections; everybody's for None.
            seconds: for how long; until `let_go` by default.
            requests: whether what goes to the server is held.
            replies: whether what comes from it is held.
        """
        for node in self._nodes_of(who):
            self.note(node, f"held up: {'requests ' * requests}{'replies' * replies}".rstrip())
            node.weather.holds_requests |= requests
            node.weather.holds_replies |= replies
            node.held_until_ns = self._until(node.held_until_ns, seconds)
            if seconds is not None:
                self.after(seconds, functools.partial(self._let_go_if_due, node))

    def let_go(self, who: Who | None = None) -> None:
        """Let everything through again. What was held arrives now, also of a node that gave up."""
        for node in self._nodes_of(who):
            self.note(node, "let go")
            node.held_until_ns = 0
            node.weather.holds_requests = node.weather.holds_replies = False
            for link in node.heard_links():
                link.let_go()

    def delay(self, who: Who | None, shortest: float, longest: float) -> None:
        """Have each message take so many seconds, from the least to the most, from now on."""
        min_ns, max_ns = _range_ns("delay", (shortest, longest))
        for node in self._nodes_of(who):
            node.weather.min_latency_ns, node.weather.max_latency_ns = min_ns, max_ns

    def split(self, who: Who | None, share: float) -> None:
        """Have this share of what is sent arrive in pieces, cut anywhere, from now on."""
        for node in self._nodes_of(who):
            node.weather.split = share

    # ---- what befalls the server

    def flush(self) -> None:
        """Delete everything, as FLUSHALL does."""
        self.note(None, "FLUSHALL")
        self.server.store.clear()

    def step_server_clock(self, seconds: float) -> None:
        """Set the server's wall clock forward, or back where negative. Leases end by it."""
        self.note(None, f"its clock is set by {seconds:g} s")
        self.server.store.step_clock(round(checked_seconds("seconds", seconds) * _NS))

    def stall_server(self, seconds: float) -> None:
        """Have the server do nothing for a time, as behind a slow command."""
        self.note(None, "stalled")
        self._server_free_ns = self._until(self._server_free_ns, seconds)
        self.after(seconds, self._go_on)

    def restart_server(self, seconds: float = 0.0, *, keeping_data: bool = True) -> None:
        """Stop the server, and start it again after a time, with its data or empty."""
        self.note(None, f"restarts {'with' if keeping_data else 'without'} its data")
        self._stop_server(seconds)
        if not keeping_data:
            self.server.store.clear()

    def fail_over(self, losing: float, seconds: float = 0.0) -> None:
        """Have a replica take over that has not heard of the last writes.

        Args:
            losing: seconds of writes that it has not heard of, at most 10.
            seconds: for how long there is no server.
        """
        self.note(None, f"fails over, losing {losing:g} s")
        self._stop_server(seconds)
        self.server.store.forget(span_ns("losing", losing))

    def orphan(self, who: Who, seconds: float) -> RedisModel:
        """Leave a process for a time with a server whose place another has taken.

        So goes on a primary that was stopped while its replica was promoted: until it hears of
        that, and hangs up, it runs what had waited in its sockets. The leases that it knew have
        ended meanwhile, and what it grants nobody else knows of.

        Returns:
            The model of that server.
        """
        node = self._node_of(who)
        self.note(node, "its server goes on, though another has taken its place")
        left = self.server.left_behind()
        links = node.heard_links()
        for link in links:
            link.lead_to(left)

        def hang_up() -> None:
            for link in links:
                if link.is_heard:
                    link.hang_up()

        self.after(seconds, hang_up)
        return left

    def heal(self) -> None:
        """End all that was asked for: nodes go on, messages get through, the server serves.

        What has happened stays: dead processes are dead, lost data is lost, clocks go as they go.
        """
        self.note(None, "all is well")
        self._server_up_ns = self._server_free_ns = self.now_ns
        self._go_on()
        self.server.refusal = None
        self.server.is_full = self.server.is_replica = False
        for node in list(self.nodes):
            node.stuffed_until_ns = 0
            node.lag_ms = 0.0
            node.callback_delay_ns = 0
            node.weather.min_latency_ns, node.weather.max_latency_ns = self._latency_ns
            node.weather.split = 0.0
            self.let_go(node)
            self.resume(node)
            node.send_waiting()

    @property
    def is_reachable(self) -> bool:
        """Whether a server is there."""
        return self.now_ns >= max(self._server_up_ns, self._server_free_ns)

    def note(self, who: Who | None, what: str) -> None:
        """Have something stand in the history, of a node or, for None, of the server."""
        self.note_line("server" if who is None else self._node_of(who).name, what)

    # ---- inside, for nodes and links

    def serve(self, link: Link, data: bytes) -> None:
        """Have the server take bytes, now or when it goes on."""
        if self.now_ns < self._server_free_ns or self._inbox:
            self._inbox.append((link, data))
        else:
            link.take(data)

    # ---- inside

    def _moved(self) -> None:
        self.server_clock.follow(self.now_ns)
        for node in self.nodes:
            if node.is_alive:
                node.clock.follow(self.now_ns)

    def _until(self, earlier_ns: int, seconds: float | None) -> int:
        """Return until when something lasts that is to last so long, and did already."""
        if seconds is None:
            return _NEVER_NS
        return max(earlier_ns, self.now_ns + span_ns("seconds", seconds))

    def _resume_if_due(self, node: SimulatedNode) -> None:
        if self.now_ns >= node.paused_until_ns:
            self.resume(node)

    def _let_go_if_due(self, node: SimulatedNode) -> None:
        if self.now_ns >= node.held_until_ns:
            self.let_go(node)

    def _go_on(self) -> None:
        if self.now_ns < self._server_free_ns:
            return
        inbox, self._inbox = self._inbox, []
        for link, data in inbox:
            link.take(data)

    def _stop_server(self, seconds: float) -> None:
        self._server_up_ns = self._until(self._server_up_ns, seconds)
        self._inbox.clear()
        self.server.forget_scripts()
        for node in self.nodes:
            for link in node.heard_links():
                link.hang_up()

    def _nodes_of(self, who: Who | None) -> list[SimulatedNode]:
        if who is None:
            return list(self.nodes)
        return [self._node_of(who)]

    def _node_of(self, who: Who) -> SimulatedNode:
        if isinstance(who, SimulatedNode):
            return who
        environment = node_of(who).environment
        if not isinstance(environment, SimulatedNode) or environment.world is not self:
            raise ConfigError(f"{who!r} is not of this world")
        return environment


_SILENT = logging.getLogger("multielect.testing.silent")
_SILENT.disabled = True


def _range_ns(what: str, seconds: tuple[float, float]) -> tuple[int, int]:
    min_ns, max_ns = span_ns(what, seconds[0]), span_ns(what, seconds[1])
    if min_ns > max_ns:
        raise ConfigError(f"{what} must be from the least to the most, not {seconds!r}")
    return min_ns, max_ns
