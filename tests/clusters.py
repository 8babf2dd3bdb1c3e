"""A Redis Cluster of real processes: formed by commands, and broken in ways that a test chooses.

Rules of this file:
    * A node is an `EmbeddedServer`, so no process outlives the test that started it, however that
      test ends. Its node table and its log are in the caller's folder, and stay there.
    * What has no event is polled, with a deadline. There is no fixed wait.
    * A node that was killed or frozen is not asked, until it is restarted or thawed.
    * The bus has no proxy: a test can stop a node, and cannot cut one off from some of the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import redis

from multielect.embedded import EmbeddedServer, EmbeddedServerError

from .diary import WITHIN_S, until
from .ports import free_cluster_port, free_port

if TYPE_CHECKING:
    from typing_extensions import Self

HOST = "127.0.0.1"
SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000

_ATTEMPTS = 5
"""How often a node is given other ports, as somebody may take them before the node does; and how
often a failover is asked for."""

_GIVEN_UP_S = 6.0
"""When a failover that was asked for has come, or will not come any more."""


@dataclass(frozen=True)
class Member:
    """A line of `CLUSTER NODES`: one node as another sees it.

    Attributes:
        primary_id: the id of the primary that it replicates, or "-".
        slots: the ranges of the slots that it serves, ends included.
    """

    id: str
    flags: frozenset[str]
    primary_id: str
    slots: tuple[tuple[int, int], ...]

    @property
    def is_primary(self) -> bool:
        return "master" in self.flags

    def serves(self, slot: int) -> bool:
        return any(first <= slot <= last for first, last in self.slots)


class ClusterNode:
    """One process of a cluster.

    Attributes:
        port: where clients connect, on `HOST`: by TLS if the settings have `tls-cluster`.
        id: the id by which the cluster knows it, once it was started.
        client: a client of this node alone, for what the rig asks. Its answers are text.
        is_up: whether the process runs, and was not frozen.
    """

    def __init__(self, binary: str, folder: Path, settings: Mapping[str, str | int]) -> None:
        self._binary = binary
        self._folder = folder
        self._settings = settings
        self._server: EmbeddedServer
        self.port: int
        self._plain_port: int
        self.id: str
        self.client: Any
        self.is_up = False

    def start_first(self) -> None:
        """Start it on ports that nobody has."""
        for attempt in range(_ATTEMPTS):
            self.port = free_cluster_port()
            data = self._folder / str(self.port)
            data.mkdir(exist_ok=True)
            # A cluster that speaks TLS knows its nodes by that port. The rig itself asks plainly.
            has_tls = "tls-cluster" in self._settings
            self._plain_port = free_port() if has_tls else self.port
            self._server = EmbeddedServer(
                binary=self._binary,
                settings={
                    "port": self._plain_port,
                    **({"tls-port": self.port} if has_tls else {}),
                    "bind": HOST,
                    "dir": str(data),
                    "logfile": str(data / "server.log"),
                    "cluster-enabled": "yes",
                    "cluster-node-timeout": NODE_TIMEOUT_MS,
                    # A replica stays with its primary, and a primary without slots stays one.
                    "cluster-allow-replica-migration": "no",
                    "repl-diskless-sync-delay": 0,
                    **self._settings,
                },
            )
            try:
                self._server.start()
            except EmbeddedServerError as error:
                if attempt == _ATTEMPTS - 1:
                    raise EmbeddedServerError(f"{error}\nlog: {data}") from None
            else:
                break
        self.is_up = True
        self.client = redis.Redis(
            host=HOST,
            port=self._plain_port,
            decode_responses=True,
            socket_timeout=WITHIN_S,
            protocol=2,
        )
        self.id = self.call("CLUSTER", "MYID")

    @property
    def address(self) -> tuple[str, int]:
        return (HOST, self.port)

    @property
    def pid(self) -> int:
        """Its process, which must have been started."""
        return self._server.pid

    @property
    def log(self) -> str:
        """What it logged so far."""
        return (self._folder / str(self.port) / "server.log").read_text(errors="replace")

    def call(self, *command: str | int) -> Any:
        """Return its answer to a command, without what redis-py makes of it."""
        return self.client.execute_command(*command)

    def members(self) -> dict[str, Member]:
        """Return all nodes as this one sees them, by id."""
        members = [_member(line) for line in self.call("CLUSTER", "NODES").splitlines()]
        return {member.id: member for member in members}

    def info(self, section: str) -> dict[str, str]:
        """Return `CLUSTER INFO`, or another section of `INFO`."""
        command = ("CLUSTER", "INFO") if section == "cluster" else ("INFO", section)
        answer = self.call(*command)
        if isinstance(answer, dict):
            return {name: str(value) for name, value in answer.items()}
        lines = [line.partition(":") for line in answer.splitlines()]
        return {name: value for name, _, value in lines}

    def kill(self) -> None:
        """End its process by SIGKILL, in the midst of whatever it does."""
        self.is_up = False
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()
        self.client.connection_pool.disconnect()

    def freeze(self) -> None:
        """Stop its process by SIGSTOP."""
        self.is_up = False
        os.kill(self._server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._server.pid, signal.SIGCONT)
        self.is_up = True

    def restart(self) -> None:
        """Start it again after `kill`: on its port, with its node table and without its keys."""
        self._server.start()
        self.is_up = True

    def stop(self) -> None:
        """End its process, if there is one."""
        self.is_up = False
        if hasattr(self, "client"):
            self.client.close()
        if hasattr(self, "_server"):
            self._server.stop()


class Cluster:
    """A cluster, from entering the context to leaving it.

    Attributes:
        nodes: all of them; at first the primaries, in the order of their slots, then the replicas:
            the first of each primary, then the second.
        folder: where their logs are.
    """

    def __init__(
        self,
        folder: Path,
        binary: str,
        *,
        primaries: int = 3,
        replicas: int = 1,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        """Prepare a cluster; entering the context starts and forms it.

        Args:
            folder: where node tables and logs are to be kept.
            binary: the server program.
            primaries: how many share the slots.
            replicas: how many each primary has.
            settings: further lines of every node's configuration.
        """
        self.folder = folder
        self._primaries = primaries
        count = primaries * (1 + replicas)
        self.nodes = [ClusterNode(binary, folder, settings or {}) for _ in range(count)]

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor(len(self.nodes)) as pool:
                list(pool.map(ClusterNode.start_first, self.nodes))
            self._form()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all processes."""
        for node in self.nodes:
            node.stop()

    # ---- who is what, as the nodes that are up say

    @property
    def up(self) -> list[ClusterNode]:
        """The nodes that run."""
        return [node for node in self.nodes if node.is_up]

    @property
    def primaries(self) -> list[ClusterNode]:
        """The nodes that run and call themselves a primary."""
        return [node for node in self.up if node.members()[node.id].is_primary]

    @property
    def replicas(self) -> list[ClusterNode]:
        """The nodes that run and call themselves a replica."""
        return [node for node in self.up if not node.members()[node.id].is_primary]

    def replicas_of(self, primary: ClusterNode) -> list[ClusterNode]:
        """Return the replicas that replicate this primary."""
        return [node for node in self.replicas if node.members()[node.id].primary_id == primary.id]

    def node_of(self, slot: int) -> ClusterNode:
        """Return the primary that serves a slot. It must run."""
        [serving] = [node for node in self.primaries if node.members()[node.id].serves(slot)]
        return serving

    def startup_nodes(self) -> list[tuple[str, int]]:
        """Return the addresses of all nodes, for a client."""
        return [node.address for node in self.nodes]

    # ---- changes

    def failover(self, replica: ClusterNode, how: str = "") -> None:
        """Make a replica the primary, and return when all nodes that run agree.

        Args:
            replica: what is to be the primary.
            how: nothing, for which the primary must run; ``FORCE``, for which most primaries must;
                or ``TAKEOVER``, for which nobody is asked.
        """
        for _ in range(_ATTEMPTS):
            replica.call("CLUSTER", "FAILOVER", *([how] if how else []))
            # The replica gives up after five seconds, such as when too few voted for it.
            with contextlib.suppress(AssertionError):
                until(lambda: replica.members()[replica.id].is_primary, _GIVEN_UP_S)
                break
        else:
            raise AssertionError(f"port {replica.port} was not elected; its log:\n{replica.log}")
        self.wait_until_ok()

    def wait_until_ok(self, within_s: float = WITHIN_S) -> None:
        """Return when all nodes that run serve all slots and agree on every node's part."""
        try:
            until(self._is_ok, within_s)
        except AssertionError:
            views = "\n".join(self._view(node) for node in self.up)
            raise AssertionError(
                f"the cluster is not whole after {within_s:g} s; logs: {self.folder}\n{views}"
            ) from None

    def _view(self, node: ClusterNode) -> str:
        try:
            seen = f"{node.info('cluster')['cluster_state']}\n{node.call('CLUSTER', 'NODES')}"
        except redis.RedisError as error:
            seen = str(error)
        return f"{node.port}: {seen}"

    def _is_ok(self) -> bool:
        up = self.up
        try:
            return all(_is_settled(node) for node in up) and self._agree(up)
        except (redis.ConnectionError, redis.ResponseError):
            return False  # It still loads, or has only just begun to listen.

    def _agree(self, up: Sequence[ClusterNode]) -> bool:
        ids = {node.id for node in up}
        # Nobody waits for a node that is down: what others think of it may differ.
        views = [
            {
                (member.id, member.is_primary, member.primary_id, member.slots)
                for member in node.members().values()
                if member.id in ids and not member.flags & {"fail", "fail?", "handshake"}
            }
            for node in up
        ]
        served = sum(last - first + 1 for _, _, _, slots in views[0] for first, last in slots)
        return (
            len(views[0]) == len(up) and served == SLOTS and all(view == views[0] for view in views)
        )

    # ---- forming

    def _form(self) -> None:
        for number, node in enumerate(self.nodes):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        primaries = self.nodes[: self._primaries]
        for number, node in enumerate(primaries):
            first, end = (round(n * SLOTS / len(primaries)) for n in (number, number + 1))
            node.call("CLUSTER", "ADDSLOTS", *range(first, end))
        # Each meets each: gossip would take longer.
        for number, node in enumerate(self.nodes):
            for other in self.nodes[:number]:
                node.call("CLUSTER", "MEET", HOST, other.port)
        ids = {node.id for node in self.nodes}
        for number, node in enumerate(self.nodes[self._primaries :]):
            until(lambda node=node: set(node.members()) >= ids)  # type: ignore[misc]
            node.call("CLUSTER", "REPLICATE", primaries[number % len(primaries)].id)
        self.wait_until_ok()


def _is_settled(node: ClusterNode) -> bool:
    if node.info("cluster")["cluster_state"] != "ok":
        return False
    replication = node.info("replication")
    return replication["role"] == "master" or replication["master_link_status"] == "up"


def _member(line: str) -> Member:
    node_id, _, flags, primary_id, _, _, _, _, *slots = line.split(" ")
    ranges = [tuple(map(int, each.split("-"))) for each in slots if not each.startswith("[")]
    return Member(
        id=node_id,
        flags=frozenset(flags.split(",")),
        primary_id=primary_id,
        slots=tuple((each[0], each[-1]) for each in ranges),
    )
