"""The simulated world: one time, the servers, the nodes, and the faults between them.

Rules of this file:
    * One thread, no sleeps. Time moves when the test lets it, from one event to the next, and all
      events have an order.
    * All chance comes from the seed. The same seed and the same calls give the same history, to
      the byte, in any process and on any machine.
    * Only the faults happen that the test asks for. Without faults, messages take a fraction of a
      millisecond and none is lost.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeAlias

from .._node.base import BaseElectionGroup, BaseElector
from .._node.interface import node_of
from .._settings.settings import checked_seconds
from ..elector import Elector
from ..errors import ConfigError
from ..group import ElectionGroup
from ._model import RedisModel
from ._node import SimulatedNode
from ._server import SimulatedServer
from ._timeline import Timeline, span_ns

_NEVER_NS = 1 << 62

_FIRST = "server"
"""The name of the first server in the history."""

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
    Only threads, sockets and Redis are simulated. Callbacks run on the test's own thread while the
    world runs. Time moves only in `run`, in `run_until`, and in methods that wait
    (`Election.wait`, `drain`, `stop`).

    Use a world from one thread only.

    Args:
        seed: the source of all chance, any whole number or text.
        redis_version: the version of the server. Scripts for versions before 7 have no flags.
        latency: the shortest and the longest time, in seconds, that a message takes one way.

    Faults of a process or of its connections are methods of the world. Faults of a server are
    methods of that server, such as `world.server.restart`.

    Attributes:
        seed: the seed.
        servers: all servers. The first is there from the beginning; `add_server` adds others.
        now_ns: the time, in nanoseconds.
        happened: how many events have happened.
        observe: called after each event if set, to check what must always hold.
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
        self.nodes: list[SimulatedNode] = []
        self.servers = [SimulatedServer(self, _FIRST, redis_version)]
        self._latency_ns = _range_ns("latency", latency)
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
        """End the world: all nodes die, without a callback."""
        for node in self.nodes:
            node.die()

    # ---- servers

    @property
    def server(self) -> SimulatedServer:
        """The first server."""
        return self.servers[0]

    def add_server(self, name: str, *, redis_version: tuple[int, int] = (7, 0)) -> SimulatedServer:
        """Add another server, which knows nothing of the others.

        Args:
            name: its name in the history.
            redis_version: its version. Scripts for versions before 7 have no flags.

        Raises:
            ConfigError: if there is a server of that name.
        """
        if any(there.name == name for there in self.servers):
            raise ConfigError(f"there is a server {name!r} already")
        made = SimulatedServer(self, name, redis_version)
        self.servers.append(made)
        return made

    # ---- nodes and groups

    def node(
        self, name: str, *, resp: int = 3, server: SimulatedServer | None = None
    ) -> SimulatedNode:
        """Return the living process of this name. Makes a new one if there is none.

        An `ElectionGroup` or an `Elector` takes it as its `redis`. So a program that makes its own
        group can be given a node in place of the address of Redis.

        Args:
            name: any text.
            resp: the version of the protocol that its server speaks, 2 or 3. With 2, announcements
                arrive on a second connection.
            server: the server to which the process connects; None for the first.

        Raises:
            ConfigError: if the process is there and connects to another server.
        """
        wanted = self.server if server is None else server
        if wanted not in self.servers:
            raise ConfigError(f"{wanted!r} does not belong to this world")
        for there in self.nodes:
            if there.name == name and there.is_alive:
                if server not in (None, there.server):
                    raise ConfigError(f"{there!r} connects to {there.server!r}")
                return there
        self.nodes = [there for there in self.nodes if there.is_alive or there.heard_links()]
        self._nodes_made += 1
        made = SimulatedNode(self, name, self._nodes_made, resp=resp, server=wanted)
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
        server: SimulatedServer | None = None,
        logger: logging.Logger | None = None,
        **settings: Any,  # noqa: ANN401  # those of ElectionGroup
    ) -> ElectionGroup:
        """Return a group in the process of this name. Makes the process if there is none.

        Args:
            node_id: the name of the process, and of the node.
            prefix: see `ElectionGroup`.
            keys: elections to stand for.
            start: whether to start the group.
            server: the server to which the process connects; None for the first.
            logger: where errors are logged; nowhere by default.
            settings: the other arguments of `ElectionGroup`.
        """
        made = ElectionGroup(
            self.node(node_id, server=server),
            prefix=prefix,
            node_id=node_id,
            logger=logger or _SILENT,
            **settings,
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
        server: SimulatedServer | None = None,
        logger: logging.Logger | None = None,
        **settings: Any,  # noqa: ANN401  # those of Elector
    ) -> Elector:
        """Return an elector in the process of this name, as `group` does."""
        made = Elector(
            self.node(node_id, server=server),
            prefix=prefix,
            node_id=node_id,
            logger=logger or _SILENT,
            **settings,
        )
        if start:
            made.start()
        return made

    # ---- faults of nodes

    def pause(self, who: Who, seconds: float | None = None) -> None:
        """Stop a process, as SIGSTOP or a suspended machine does. Its clock goes on.

        Args:
            who: the process.
            seconds: after how long it goes on; by default only when `resume` is called.
        """
        node = self._node_of(who)
        self.note(node, "paused")
        node.is_stopped = True
        node.paused_until_ns = self.until_ns(node.paused_until_ns, seconds)
        if seconds is not None:
            self.after(seconds, lambda: self._resume_if_due(node))

    def resume(self, who: Who) -> None:
        """Let a paused process go on."""
        node = self._node_of(who)
        if node.is_alive and node.is_stopped:
            self.note(node, "resumed")
            node.paused_until_ns = 0
            node.go_on()

    def crash(self, who: Who) -> None:
        """Kill a process, as SIGKILL does. The messages that it had sent still arrive.

        No callback runs any more. Another group of the same name is another process.
        """
        node = self._node_of(who)
        self.note(node, "crashed")
        node.die()

    def stuff(self, who: Who, seconds: float) -> None:
        """Let a process send nothing for some seconds: its send buffer is full.

        It sends the delayed messages afterwards, unchanged.
        """
        node = self._node_of(who)
        self.note(node, "cannot send")
        node.stuffed_until_ns = self.until_ns(node.stuffed_until_ns, seconds)
        self.after(seconds, node.send_waiting)

    def lag(self, who: Who, seconds: float) -> None:
        """Let each turn of a process be up to that many seconds late, from now on."""
        self._node_of(who).lag_ms = 1000 * checked_seconds("seconds", seconds)

    def delay_callbacks(self, who: Who, seconds: float) -> None:
        """Let each callback of a process run that many seconds later, from now on."""
        self._node_of(who).callback_delay_ns = span_ns("seconds", seconds)

    def drift(self, who: Who, parts_per_million: int) -> None:
        """Let a node's clock run too fast, or (negative) too slow, from now on."""
        self.note(who, f"its clock drifts by {parts_per_million} ppm")
        self._node_of(who).clock.drift(parts_per_million)

    def jump(self, who: Who, seconds: float) -> None:
        """Set a node's clock forward."""
        self.note(who, f"its clock jumps by {seconds:g} s")
        self._node_of(who).clock.jump(span_ns("seconds", seconds))

    # ---- faults of connections

    def cut(self, who: Who | None = None, *, late: float | None = None) -> None:
        """Break the connections of a process, or of all. Replies in flight are lost.

        Args:
            who: the process; None for all processes.
            late: seconds after which requests in flight, and those held by `hold`, arrive at the
                server all the same, though nobody reads the replies. By default they never arrive.
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
        """Hold up messages, in one direction or both, without breaking a connection.

        Args:
            who: the process; None for all processes.
            seconds: for how long; until `let_go` by default.
            requests: whether to hold messages to the server.
            replies: whether to hold messages from the server.
        """
        for node in self._nodes_of(who):
            self.note(node, f"held up: {'requests ' * requests}{'replies' * replies}".rstrip())
            node.weather.holds_requests |= requests
            node.weather.holds_replies |= replies
            node.held_until_ns = self.until_ns(node.held_until_ns, seconds)
            if seconds is not None:
                self.after(seconds, functools.partial(self._let_go_if_due, node))

    def let_go(self, who: Who | None = None) -> None:
        """Let messages through again. Held messages arrive, also those on connections given up."""
        for node in self._nodes_of(who):
            self.note(node, "let go")
            node.held_until_ns = 0
            node.weather.holds_requests = node.weather.holds_replies = False
            for link in node.heard_links():
                link.let_go()

    def delay(self, who: Who | None, shortest: float, longest: float) -> None:
        """Let each message take from `shortest` to `longest` seconds, from now on."""
        min_ns, max_ns = _range_ns("delay", (shortest, longest))
        for node in self._nodes_of(who):
            node.weather.min_latency_ns, node.weather.max_latency_ns = min_ns, max_ns

    def split(self, who: Who | None, share: float) -> None:
        """Let this share of messages, 0 to 1, arrive in pieces that are cut anywhere."""
        for node in self._nodes_of(who):
            node.weather.split = share

    def orphan(self, who: Who, seconds: float) -> RedisModel:
        """Leave a process connected, for some seconds, to a server that was replaced.

        A primary that was stopped while its replica was promoted behaves like this. Until it learns
        of the promotion and closes its connections, it runs the commands that waited in its
        sockets. Its old leases have ended meanwhile, and no other server knows the leases that it
        grants.

        Returns:
            The model of the replaced server.
        """
        node = self._node_of(who)
        self.note(node, "its server goes on, though it was replaced")
        left = node.server.model.left_behind()
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
        """End all that was asked for: nodes go on, messages get through, the servers serve.

        What has happened stays: dead processes are dead, lost data is lost, clocks go as they go.
        """
        self.note_line(_FIRST, "all is well")
        for server in self.servers:
            server.heal()
        for node in list(self.nodes):
            node.stuffed_until_ns = 0
            node.lag_ms = 0.0
            node.callback_delay_ns = 0
            node.weather.min_latency_ns, node.weather.max_latency_ns = self._latency_ns
            node.weather.split = 0.0
            self.let_go(node)
            self.resume(node)
            node.send_waiting()

    def note(self, who: Who, what: str) -> None:
        """Add a line to the history, for a node."""
        self.note_line(self._node_of(who).name, what)

    # ---- inside, for nodes and servers

    def until_ns(self, earlier_ns: int, seconds: float | None) -> int:
        """Return when a state ends that is to last `seconds` from now, and at least as before."""
        if seconds is None:
            return _NEVER_NS
        return max(earlier_ns, self.now_ns + span_ns("seconds", seconds))

    # ---- inside

    def _moved(self) -> None:
        for server in self.servers:
            server.clock.follow(self.now_ns)
        for node in self.nodes:
            if node.is_alive:
                node.clock.follow(self.now_ns)

    def _resume_if_due(self, node: SimulatedNode) -> None:
        if self.now_ns >= node.paused_until_ns:
            self.resume(node)

    def _let_go_if_due(self, node: SimulatedNode) -> None:
        if self.now_ns >= node.held_until_ns:
            self.let_go(node)

    def _nodes_of(self, who: Who | None) -> list[SimulatedNode]:
        if who is None:
            return list(self.nodes)
        return [self._node_of(who)]

    def _node_of(self, who: Who) -> SimulatedNode:
        if isinstance(who, SimulatedNode):
            return who
        environment = node_of(who).environment
        if not isinstance(environment, SimulatedNode) or environment.world is not self:
            raise ConfigError(f"{who!r} does not belong to this world")
        return environment


_SILENT = logging.getLogger("multielect.testing.silent")
_SILENT.disabled = True


def _range_ns(what: str, seconds: tuple[float, float]) -> tuple[int, int]:
    min_ns, max_ns = span_ns(what, seconds[0]), span_ns(what, seconds[1])
    if min_ns > max_ns:
        raise ConfigError(f"{what} must have the shorter time first, not {seconds!r}")
    return min_ns, max_ns
