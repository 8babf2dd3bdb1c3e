"""How a connection comes about, and comes back.

Rules of this file:
    * Connecting (URL, AUTH, TLS, HELLO, SELECT) is redis-py's work, done on a thread of
      its own: whoever refreshes leases never waits for a name server or a handshake.
    * Every wait has an end, and the pause between two attempts grows: see `_backoff`.
    * A connection is handed over only when the node may use it: not to a replica, and not
      to a namespace that is divided into another number of buckets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from socket import socket
from typing import Any

import redis
from redis._parsers import _RESP2Parser  # which becomes that of RESP3 where it should
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import InvalidResponse, ResponseError
from redis.retry import Retry

from ._backoff import Backoff, longest_pause_s
from ._handshake import guarded, plain_socket_of
from ._keys import KeyLayout
from ._relay import Relay
from ._scripts import PROBE, WITH_FLAGS, WITHOUT_FLAGS, ScriptSet, is_about_flags
from ._source import address_of
from .errors import ConfigError, ConnectionLostError, MultielectError, ProtocolError

_LEAST_TIMEOUT_S = 0.5
_LONGEST_TIMEOUT_S = 5.0
_NS = 1_000_000_000


@dataclass
class Connection:
    """A connection to a primary, ready for batches.

    Attributes:
        batches: carries the batches, and the announcements where the server speaks RESP3.
        listener: carries the announcements where it does not.
        scripts: the scripts that suit the server.
        warnings: what is amiss but does not keep the node from leading.
    """

    batches: socket
    listener: socket | None
    scripts: ScriptSet
    warnings: list[MultielectError] = field(default_factory=list)
    owners: list[AbstractConnection] = field(default_factory=list)
    relays: list[Relay] = field(default_factory=list)

    def close(self) -> None:
        """Close the sockets."""
        for owner in self.owners:
            _disconnect(owner)
        for relay in self.relays:
            relay.near.close()

    def abandon(self) -> None:
        """Close a forked child's copies of the sockets without a byte to the server."""
        for owner in self.owners:
            # As of redis-py 5, a connection made by another process is closed, not shut down.
            _disconnect(owner)
        for relay in self.relays:
            relay.abandon()


def connect_timeout_s(ttl_ns: int) -> float:
    """Return for how long an attempt to connect waits for an answer, with leases of this TTL."""
    return min(max(ttl_ns / 3 / _NS, _LEAST_TIMEOUT_S), _LONGEST_TIMEOUT_S)


def longest_reconnect_ns(ttl_ns: int) -> int:
    """Return how long a node may take to find a server that was restarted."""
    # A machine that has much to do at once may need twice the time.
    return round(2 * (longest_pause_s(ttl_ns) + connect_timeout_s(ttl_ns)) * _NS)


class Server:
    """Where the elections are, and how to reach it."""

    def __init__(self, source: str | redis.Redis, layout: KeyLayout, timeout_s: float) -> None:
        """Take the address from a URL or from a client that the user has set up.

        Raises:
            ConfigError: for a URL that cannot be understood, or another kind of object.
        """
        kind, self._settings = address_of(source)
        self._class = guarded(kind, timeout_s)
        self._settings |= {
            "decode_responses": False,
            "health_check_interval": 0,
            # hiredis makes room at once for as many elements as a server says that there are.
            "parser_class": _RESP2Parser,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "socket_connect_timeout": timeout_s,
            "socket_timeout": timeout_s,
        }
        self._layout = layout

    def connect(self) -> Connection:
        """Connect and see that this node may stand for election there.

        Raises:
            MultielectError: where it may not.
            redis.RedisError, OSError: where the server cannot be reached or refuses us.
        """
        owners: list[AbstractConnection] = []
        try:
            return self._connect(owners)
        except BaseException:
            for owner in owners:
                _disconnect(owner)
            raise

    def _connect(self, owners: list[AbstractConnection]) -> Connection:
        warnings: list[MultielectError] = []
        try:
            batches = self._open(owners, protocol=3)
            pushes = True
        except (ResponseError, redis.ConnectionError) as error:
            if not _speaks_only_resp2(error):
                raise
            batches = self._open(owners, protocol=2)
            pushes = False
        _refuse_replica(batches)
        _warn_of_eviction(batches, warnings)
        self._check_buckets(batches, warnings)
        scripts = WITH_FLAGS if _knows_script_flags(batches) else WITHOUT_FLAGS
        listener = batches if pushes else self._open(owners, protocol=2)
        try:
            _try_to_listen(listener, self._layout.channel)
        except ResponseError as error:
            warnings.append(
                MultielectError(f"elections set free are noticed late, as SUBSCRIBE fails: {error}")
            )
        else:
            # The last that redis-py sends; the answer, and the announcements that may follow
            # on its heels, are for the core to read.
            _send(listener, "SUBSCRIBE", self._layout.channel)
        relays: list[Relay] = []
        return Connection(
            batches=_plain_socket_of(batches, relays),
            listener=None if pushes else _plain_socket_of(listener, relays),
            scripts=scripts,
            warnings=warnings,
            owners=owners,
            relays=relays,
        )

    def _open(self, owners: list[AbstractConnection], *, protocol: int) -> AbstractConnection:
        connection = self._class(**{**self._settings, "protocol": protocol})
        owners.append(connection)
        connection.connect()  # type: ignore[no-untyped-call]
        return connection

    def _check_buckets(
        self, connection: AbstractConnection, warnings: list[MultielectError]
    ) -> None:
        key = self._layout.buckets_key
        if not key:
            return
        wanted = len(self._layout.heads)
        found = _ask(connection, "GET", key)
        if found is None:
            try:
                _ask(connection, "SET", key, wanted, "NX")
            except ResponseError as error:
                # A full server still refreshes leases, so it must not be turned away here.
                warnings.append(MultielectError(f"cannot record the number of buckets: {error}"))
                return
            found = _ask(connection, "GET", key)
        if not isinstance(found, bytes):
            raise _nonsense("GET", found)
        if found != b"%d" % wanted:
            raise ConfigError(
                f"this namespace is divided into {found[:20].decode(errors='replace')} buckets,"
                f" not {wanted}: use the same number on all nodes, or another prefix"
            )


class Connector(threading.Thread):
    """Connects when asked to, again and again until it works."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        backoff: Backoff,
        on_connected: Callable[[Connection], None],
        on_failure: Callable[[MultielectError], None],
        name: str,
    ) -> None:
        """Keep what to do; `start` begins. Both callbacks run on this thread."""
        super().__init__(name=name, daemon=True)
        self._connect = connect
        self._backoff = backoff
        self._on_connected = on_connected
        self._on_failure = on_failure
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._connecting = threading.Event()
        self._connected_at = 0.0
        self._lost: MultielectError | None = None

    def want(self, lost: MultielectError | None = None) -> None:
        """Ask for a connection, the first, or another for one that was lost. Any thread."""
        self._lost = lost
        self._wanted.set()

    def close(self) -> None:
        """Ask for none any more; an attempt under way ends by its own timeout. Any thread."""
        self._closing.set()
        self._wanted.set()

    def join_unless_connecting(self, timeout_s: float) -> None:
        """After `close`: wait for the thread's end, unless an attempt is under way. Any thread."""
        if not self._connecting.is_set() and self is not threading.current_thread():
            self.join(timeout_s)

    def run(self) -> None:
        """Serve requests until closed."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closing.is_set():
                return
            # Before looking whether to go on: whoever closed us sees one or the other.
            self._connecting.set()
            self._connect_until_done()
            self._connecting.clear()

    def _connect_until_done(self) -> None:
        if self._lost is not None:
            lasted_s = time.monotonic() - self._connected_at
            self._closing.wait(self._backoff.after_loss(self._lost, lasted_s))
        while not self._closing.is_set():
            try:
                connection = self._connect()
            # redis-py lets errors of its own and of the socket through, and an attempt
            # that fails in a way nobody foresaw must not end all further attempts.
            except Exception as cause:  # noqa: BLE001
                error = _as_ours(cause)
                self._on_failure(error)
                self._closing.wait(self._backoff.after_failure(error))
                continue
            self._connected_at = time.monotonic()
            for warning in connection.warnings:
                self._on_failure(warning)
            self._on_connected(connection)
            return


def _as_ours(error: Exception) -> MultielectError:
    if isinstance(error, MultielectError):
        return error
    ours: MultielectError = ConnectionLostError(f"cannot connect to Redis: {error}")
    if isinstance(error, InvalidResponse) or not isinstance(error, (redis.RedisError, OSError)):
        # What redis-py trips over is what the server said: it is asked nothing out of the way.
        ours = ProtocolError(f"the server's answers to connecting make no sense: {error!r}")
    ours.__cause__ = error
    return ours


def _nonsense(command: str, answer: object) -> ProtocolError:
    return ProtocolError(f"the server's answer to {command} makes no sense: {answer!r:.100}")


# redis-py does not type its connections; these three are where that ends.


def _send(connection: AbstractConnection, *command: object) -> None:
    connection.send_command(*command)  # type: ignore[no-untyped-call]


def _ask(connection: AbstractConnection, *command: object) -> Any:  # noqa: ANN401
    _send(connection, *command)
    return connection.read_response()


def _disconnect(connection: AbstractConnection) -> None:
    connection.disconnect()  # type: ignore[no-untyped-call]


def _try_to_listen(connection: AbstractConnection, channel: bytes) -> None:
    # After the second of the two has been answered, nothing is on its way that redis-py
    # might read half of.
    for command in ("SUBSCRIBE", "UNSUBSCRIBE"):
        _send(connection, command, channel)
        while True:
            answer = connection.read_response(push_request=True)
            if not isinstance(answer, list) or not answer:
                raise _nonsense(command, answer)
            if answer[0] == command.lower().encode():
                break


def _speaks_only_resp2(error: Exception) -> bool:
    # Servers before 6 know no HELLO; some that do refuse protocol 3.
    text = str(error)
    return "unknown command" in text.lower() or "NOPROTO" in text or "Invalid RESP version" in text


def _knows_script_flags(connection: AbstractConnection) -> bool:
    try:
        _ask(connection, "EVAL", PROBE, 0)
    except ResponseError as error:
        if not is_about_flags(error):
            raise
        return False
    return True


def _refuse_replica(connection: AbstractConnection) -> None:
    try:
        role = _ask(connection, "ROLE")
    except ResponseError:
        # Forbidden, or not known there. A replica will refuse the first batch.
        return
    if not isinstance(role, list) or not role or not isinstance(role[0], bytes):
        raise _nonsense("ROLE", role)
    if role[0] != b"master":
        name = role[0][:20].decode(errors="replace")
        raise ConnectionLostError(
            f"this server is a {name}: elections can only be held on a primary"
        )


def _warn_of_eviction(connection: AbstractConnection, warnings: list[MultielectError]) -> None:
    try:
        told = _ask(connection, "INFO", "memory")
    except ResponseError:
        return  # Forbidden: it is a warning, not a condition.
    text = told.decode(errors="replace") if isinstance(told, bytes) else ""
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or facts.get("maxmemory", "0") == "0":
        return
    what = "leases" if policy.startswith("volatile") else "leases and epochs"
    warnings.append(
        MultielectError(
            f"this server may evict {what} when its memory is full (maxmemory-policy {policy}):"
            " use noeviction, or a server of its own for elections"
        )
    )


def _plain_socket_of(connection: AbstractConnection, relays: list[Relay]) -> socket:
    found = plain_socket_of(connection)
    if found is None:
        raise ConnectionLostError("the connection ended while it was being set up")
    if hasattr(found, "pending"):
        relay = Relay(found)  # type: ignore[arg-type]
        relays.append(relay)
        relay.start()
        return relay.near
    found.settimeout(0.0)
    return found
