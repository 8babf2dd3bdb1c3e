"""The connector: makes a connection, and makes a new one when it was lost.

Rules of this file:
    * redis-py connects (URL, AUTH, TLS, HELLO, SELECT), on the connector's thread. So the thread
      that refreshes leases never waits for a name server or a handshake.
    * Every wait is bounded, and the pauses between attempts grow: see `_connection.backoff`.
    * The connector hands over only a connection that the node may use: not one to a replica, and
      not one where the prefix has another number of buckets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from socket import gaierror, socket

import redis
from redis._parsers import _RESP2Parser  # redis-py replaces it by that of RESP3 if needed
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, SSLConnection
from redis.connection import Connection as TCPConnection
from redis.exceptions import ResponseError
from redis.retry import Retry

from .._protocol.keys import KeyLayout
from .._protocol.scripts import ScriptSet
from .._runtime.foreign import in_words
from ..errors import ConfigError, ConnectionLostError, MultielectError, ProtocolError
from .admission import Admission
from .backoff import MAX_PAUSE_S, Backoff
from .credentials import PatientProvider
from .endpoint import Endpoint, address_text, host_and_port, service_of
from .errors import explained, speaks_no_tls_error, speaks_tls_error
from .handshake import guarded, last_words, plain_socket_of, wait_for_tls
from .relay import Relay
from .source import address_of
from .tls import check_files, speaks_plainly, speaks_tls

_MIN_TIMEOUT_S = 0.5
_MAX_TIMEOUT_S = 5.0
_FIRST_TLS_WAIT_S = 0.3
_MAX_PROBE_S = 0.5
_NS = 1_000_000_000


@dataclass
class Connection:
    """A connection to a primary, ready for batches.

    Attributes:
        batches: carries the batches, and with RESP3 the announcements.
        listener: carries the announcements with RESP2; otherwise None.
        scripts: the scripts for the server.
        version: the server's name and version, such as ``Redis 7.0.15``; empty if unknown.
        warnings: faults that do not keep the node from leading.
        owners: redis-py's connections of the sockets.
        relays: the relays of the connections with TLS.
    """

    batches: socket
    listener: socket | None
    scripts: ScriptSet
    version: str = ""
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
        """Close a forked child's copies of the sockets, without sending a byte."""
        for owner in self.owners:
            # redis-py closes a connection of another process, and does not shut it down.
            _disconnect(owner)
        for relay in self.relays:
            relay.abandon()


def connect_timeout_s(ttl_ns: int) -> float:
    """Return how long an attempt to connect waits for each answer, with leases of this TTL."""
    return min(max(ttl_ns / 3 / _NS, _MIN_TIMEOUT_S), _MAX_TIMEOUT_S)


def max_reconnect_ns(ttl_ns: int) -> int:
    """Return how long a node may need to connect to a restarted server."""
    # The pause of a long TTL, doubled: to wait for a member costs no leader, and a busy machine may
    # need twice the time.
    return round(2 * (MAX_PAUSE_S + connect_timeout_s(ttl_ns)) * _NS)


class Server:
    """The server of the elections, and how to connect to it.

    Attributes:
        endpoint: the node that connects, and the address.
    """

    def __init__(
        self, source: str | redis.Redis, layout: KeyLayout, timeout_s: float, *, node_id: str
    ) -> None:
        """Take the address from the user's URL or client.

        Raises:
            ConfigError: if the URL or a file for TLS cannot be read, or if `source` is another kind
                of object.
        """
        kind, settings = address_of(source)
        self._has_tls = issubclass(kind, SSLConnection)
        self._has_port = issubclass(kind, TCPConnection) and service_of(settings) is None
        if self._has_tls:
            check_files(settings)
        provider = settings.get("credential_provider")
        self.endpoint = Endpoint(
            layout.prefix,
            node_id,
            address_text(settings),
            user=settings.get("username") or "default",
            has_password=provider is not None or bool(settings.get("password")),
        )
        if provider is not None:
            provider = PatientProvider(provider, self.endpoint, timeout_s)
            settings["credential_provider"] = provider
        self._provider: PatientProvider | None = provider
        self._class = guarded(kind, timeout_s)
        self._settings = settings | {
            "decode_responses": False,
            "health_check_interval": 0,
            # hiredis would allocate memory for as many elements as a server claims to send.
            "parser_class": _RESP2Parser,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
            "socket_connect_timeout": timeout_s,
            "socket_timeout": timeout_s,
        }
        self._layout = layout
        self._timeout_s = timeout_s
        self._tls_wait_s = min(timeout_s, _FIRST_TLS_WAIT_S)
        self._has_spoken = False
        self._has_no_plain_redis = False

    def connect(self) -> Connection:
        """Connect, and check that the server can serve this node's elections.

        Raises:
            MultielectError: if it cannot, does not answer, or refuses the node.
        """
        owners: list[AbstractConnection] = []
        if self._provider is not None:
            self._provider.ask()
        try:
            return self._connect(owners)
        except Exception as cause:
            for owner in owners:
                _disconnect(owner)
            error = self._explained(cause, owners)
            if error is cause:
                raise
            raise error from cause
        except BaseException:
            for owner in owners:
                _disconnect(owner)
            raise

    def _connect(self, owners: list[AbstractConnection]) -> Connection:
        try:
            batches = self._open(owners, protocol=3)
            pushes = True
        except (ResponseError, redis.ConnectionError) as error:
            if not _speaks_only_resp2(error):
                raise
            batches = self._open(owners, protocol=2)
            pushes = False
        admission = Admission(batches, self.endpoint)
        facts, scripts = admission.admit(self._layout)
        warnings = admission.warnings
        listener = batches if pushes else self._open(owners, protocol=2)
        try:
            _try_to_listen(listener, self._layout.channel)
        except ResponseError as error:
            what = (
                f"refused SUBSCRIBE: {error}. This node notices late when others release a lease,"
                " and in a balanced fleet it hands nothing over, as it receives no claims"
            )
            warnings.append(self.endpoint.warning(what))
        else:
            # The last command that redis-py sends. The core reads its reply, and the announcements
            # that may follow at once.
            _send(listener, "SUBSCRIBE", self._layout.channel)
        relays: list[Relay] = []
        return Connection(
            batches=_plain_socket_of(batches, relays),
            listener=None if pushes else _plain_socket_of(listener, relays),
            scripts=scripts,
            version=str(facts),
            warnings=warnings,
            owners=owners,
            relays=relays,
        )

    def _open(self, owners: list[AbstractConnection], *, protocol: int) -> AbstractConnection:
        connection = self._class(**{**self._settings, "protocol": protocol})
        owners.append(connection)
        if self._has_tls:
            wait_for_tls(connection, self._tls_wait_s)
        try:
            connection.connect()  # type: ignore[no-untyped-call]
        except redis.TimeoutError:
            if not self._has_tls or self._tls_wait_s == self._timeout_s or self._speaks_plainly():
                raise
            # The server does not answer without TLS either, so it may be slow: wait longer.
            self._tls_wait_s = self._timeout_s
            return self._open(owners, protocol=protocol)
        self._has_spoken = True
        self._tls_wait_s = self._timeout_s
        return connection

    def _explained(self, cause: Exception, owners: list[AbstractConnection]) -> MultielectError:
        if self._has_tls and not isinstance(cause, MultielectError):
            try:
                check_files(self._settings)
            except ConfigError as fault:
                what = f"a file for TLS can no longer be used: {fault}"
                return self.endpoint.unusable("tls", what, "Restore it, or make a new one")
        heard, failure = last_words(owners[-1]) if owners else (b"", None)
        error = explained(failure or cause, self.endpoint, heard, self._timeout_s)
        if type(error) is ConnectionLostError and not heard and not self._has_spoken:
            # The server never sent a byte. Perhaps only one of the two ends uses TLS.
            if self._has_tls and self._speaks_plainly():
                return speaks_no_tls_error(self.endpoint)
            if not self._has_tls and _has_hung_up(cause) and self._speaks_tls():
                return speaks_tls_error(self.endpoint)
        return error

    def _speaks_plainly(self) -> bool:
        if not self._has_port or self._has_no_plain_redis:
            return False
        found = speaks_plainly(*host_and_port(self._settings), self._probe_s)
        self._has_no_plain_redis = not found
        return found

    def _speaks_tls(self) -> bool:
        return self._has_port and speaks_tls(*host_and_port(self._settings), self._probe_s)

    @property
    def _probe_s(self) -> float:
        return min(self._timeout_s, _MAX_PROBE_S)


class Connector(threading.Thread):
    """Connects on request, again and again until it works."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        backoff: Backoff,
        on_connected: Callable[[Connection], None],
        on_failure: Callable[[MultielectError], None],
        on_warning: Callable[[MultielectError], None],
        name: str,
    ) -> None:
        """Keep the callbacks, which run on this thread. `start` begins."""
        super().__init__(name=name, daemon=True)
        self._connect = connect
        self._backoff = backoff
        self._on_connected = on_connected
        self._on_failure = on_failure
        self._on_warning = on_warning
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._connecting = threading.Event()
        self._connected_at = 0.0
        self._lost: MultielectError | None = None

    def want(self, lost: MultielectError | None = None) -> None:
        """Ask for a connection: the first, or a new one after `lost`. Any thread."""
        self._lost = lost
        self._wanted.set()

    def close(self) -> None:
        """Make no more connections. An attempt under way ends by its timeout. Any thread."""
        self._closing.set()
        self._wanted.set()

    def join_unless_connecting(self, timeout_s: float) -> None:
        """Wait for the thread's end, unless an attempt is under way. After `close`; any thread."""
        if not self._connecting.is_set() and self is not threading.current_thread():
            self.join(timeout_s)

    def run(self) -> None:
        """Serve requests until closed."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closing.is_set():
                return
            # Before `_closing` is read again, so that a thread that closes this one either sees
            # the attempt or prevents it.
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
            # redis-py passes on its own errors and those of the socket. An unforeseen error must
            # not end all further attempts.
            except Exception as cause:  # noqa: BLE001
                error = cause if isinstance(cause, MultielectError) else _unforeseen(cause)
                self._on_failure(error)
                self._closing.wait(self._backoff.after_failure(error))
                continue
            self._connected_at = time.monotonic()
            for warning in connection.warnings:
                self._on_warning(warning)
            self._on_connected(connection)
            return


def _unforeseen(cause: Exception) -> MultielectError:
    error = MultielectError(f"cannot connect, by a fault of multielect: {in_words(cause)}")
    error.__cause__ = cause
    return error


def _has_hung_up(cause: Exception) -> bool:
    return isinstance(cause, (redis.ConnectionError, OSError)) and not isinstance(
        cause.__context__, (ConnectionRefusedError, FileNotFoundError, gaierror)
    )


# redis-py's connections have no types. These functions have.


def _send(connection: AbstractConnection, *command: object) -> None:
    connection.send_command(*command)  # type: ignore[no-untyped-call]


def _disconnect(connection: AbstractConnection) -> None:
    connection.disconnect()  # type: ignore[no-untyped-call]


def _try_to_listen(connection: AbstractConnection, channel: bytes) -> None:
    # After the second reply nothing is in flight that redis-py might read only in part.
    for command in ("SUBSCRIBE", "UNSUBSCRIBE"):
        _send(connection, command, channel)
        while True:
            answer = connection.read_response(push_request=True)
            if not isinstance(answer, list) or not answer:
                raise ProtocolError(f"the answer to {command} is malformed: {answer!r:.100}")
            if answer[0] == command.lower().encode():
                break


def _speaks_only_resp2(error: Exception) -> bool:
    # Servers before version 6 do not know HELLO. Some that know it refuse protocol 3.
    text = str(error)
    return "unknown command" in text.lower() or "NOPROTO" in text or "Invalid RESP version" in text


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
