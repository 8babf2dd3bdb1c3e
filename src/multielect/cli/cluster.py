"""A private Redis Cluster of three primaries, for a command that is given no server.

Rules of this file:
    * Each node is an `EmbeddedServer`, so no process and no file outlives the command, however the
      command ends.
    * The nodes listen on the loopback, as a cluster has no other way, with a random password.
    * It is formed by commands that every server knows, from Redis 6.2 on.
    * There are no replicas: nothing fails over.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType

import redis

from multielect.embedded import EmbeddedServer, EmbeddedServerError

PRIMARIES = 3

_HOST = "127.0.0.1"
_SLOTS = 16_384
_BUS_OFFSET = 10_000
"""How far above its own port a node opens the port of the bus."""

_PORT_ATTEMPTS = 100
_START_ATTEMPTS = 5
"""How often a node is given other ports, as somebody may take them before the node does."""

_FORMING_TIMEOUT_MS = 1_000
_SERVING_TIMEOUT_MS = 15_000
"""The node timeout: nodes begin to serve sooner if it is short, and on a busy machine a node may be
taken for dead if it is."""

_FORMED_WITHIN_S = 20.0
_LOOK_S = 0.02


def start_on_loopback(
    stack: ExitStack,
    *,
    binary: str | None = None,
    password: str | None = None,
    settings: Mapping[str, str | int] | None = None,
) -> str:
    """Start a private server that listens on the loopback, and return its URL.

    Args:
        stack: ends the server.
        binary: the server program; None finds one.
        password: what clients must know; None makes one.
        settings: further lines of its configuration.

    Raises:
        EmbeddedServerError: if it does not come up.
    """
    password = password or secrets.token_hex(16)
    for attempt in range(_START_ATTEMPTS):
        port = _free_port()
        place: dict[str, str | int] = {"port": port, "bind": _HOST, "requirepass": password}
        server = EmbeddedServer(binary=binary, settings={**place, **(settings or {})})
        try:
            stack.enter_context(server)
        except EmbeddedServerError:
            if attempt == _START_ATTEMPTS - 1:
                raise
        else:
            return f"redis://:{password}@{_HOST}:{port}"
    raise AssertionError


class PrivateCluster:
    """A cluster from entering the context to leaving it.

    Attributes:
        url: the URL of all nodes, for clients.
        urls: the URL of each node.
    """

    url: str
    urls: list[str]

    def __init__(self, *, binary: str | None = None) -> None:
        """Choose the server program, as `EmbeddedServer` does. Starts nothing."""
        self._binary = binary
        self._password = secrets.token_hex(16)
        self._stack = ExitStack()

    def __enter__(self) -> PrivateCluster:
        """Start the nodes, and return when they serve all slots.

        Raises:
            EmbeddedServerError: if there is no server program, or no cluster comes of it.
        """
        with self._stack:
            self.urls = [self._start() for _ in range(PRIMARIES)]
            ports = [url.rpartition(":")[2] for url in self.urls]
            nodes = ",".join(f"{_HOST}:{port}" for port in ports)
            self.url = f"redis+cluster://:{self._password}@{nodes}"
            try:
                self._form(ports)
            except redis.RedisError as error:
                raise EmbeddedServerError(
                    f"the private cluster cannot be formed: {error}"
                ) from error
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self) -> str:
        settings: dict[str, str | int] = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": _FORMING_TIMEOUT_MS,
        }
        return start_on_loopback(
            self._stack, binary=self._binary, password=self._password, settings=settings
        )

    def _form(self, ports: list[str]) -> None:
        with ExitStack() as stack:
            nodes = [
                stack.enter_context(redis.Redis.from_url(url, protocol=2)) for url in self.urls
            ]
            for number, node in enumerate(nodes):
                first, end = (round(n * _SLOTS / PRIMARIES) for n in (number, number + 1))
                # Without epochs of their own they would first have to agree on them.
                _call(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                _call(node, "CLUSTER", "ADDSLOTS", *range(first, end))
                # Each meets each: gossip would take longer.
                for port in ports[:number]:
                    _call(node, "CLUSTER", "MEET", _HOST, port)
            give_up_s = time.monotonic() + _FORMED_WITHIN_S
            while not all(map(_is_whole, nodes)):
                if time.monotonic() > give_up_s:
                    raise EmbeddedServerError(
                        f"the private cluster did not serve within {_FORMED_WITHIN_S:.0f} seconds"
                    )
                time.sleep(_LOOK_S)
            for node in nodes:
                _call(node, "CONFIG", "SET", "cluster-node-timeout", _SERVING_TIMEOUT_MS)


def _is_whole(node: redis.Redis) -> bool:
    """Return whether a node serves, and knows who serves every slot."""
    text = _call(node, "CLUSTER", "INFO")
    assert isinstance(text, bytes)
    lines = text.splitlines()
    return b"cluster_state:ok" in lines and b"cluster_slots_assigned:%d" % _SLOTS in lines


def _call(node: redis.Redis, *command: str | int) -> object:
    answer: object = node.execute_command(*command)  # type: ignore[no-untyped-call]
    return answer


def _free_port() -> int:
    """Return a port that nobody has, nor that of its bus."""
    for _ in range(_PORT_ATTEMPTS):
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind((_HOST, 0))
            port = int(probe.getsockname()[1])
            # The system may give a port above which there is none for the bus.
            with contextlib.suppress(OSError, OverflowError):
                bus.bind((_HOST, port + _BUS_OFFSET))
                return port
    raise EmbeddedServerError("no two ports are free for a node of a cluster")
