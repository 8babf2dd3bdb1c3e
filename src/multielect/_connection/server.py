"""A server: how to connect to it, and whether the node may use it.

Rules of this file:
    * redis-py connects (URL, AUTH, TLS, HELLO, SELECT), on the connector's thread. So the thread
      that refreshes leases never waits for a name server or a handshake.
    * Every wait is bounded.
    * The result is a connection that the node may use: not one to a replica, and not one where the
      prefix has another number of buckets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from socket import gaierror, socket
from typing import TypeVar

import redis
from redis._parsers import _RESP2Parser  # redis-py replaces it by that of RESP3 if needed
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, SSLConnection
from redis.connection import Connection as TCPConnection
from redis.exceptions import ResponseError
from redis.retry import Retry

from .._protocol.keys import KeyLayout
from .._protocol.scripts import ScriptSet
from ..errors import ConfigError, ConnectionLostError, MultielectError, ProtocolError
from .admission import Admission, ClusterNodeError, ask
from .backoff import MAX_PAUSE_S
from .cluster import Address, Slots, read_slots
from .credentials import PatientProvider
from .endpoint import Endpoint, address_text, host_and_port, service_of
from .errors import explained, refusal, server_text, speaks_no_tls_error, speaks_tls_error
from .handshake import guarded, last_words, plain_socket_of, wait_for_tls
from .relay import Relay
from .source import Target
from .tls import check_files, speaks_plainly, speaks_tls

_MIN_TIMEOUT_S = 0.5
_MAX_TIMEOUT_S = 5.0
_FIRST_TLS_WAIT_S = 0.3
_MAX_PROBE_S = 0.5
_NS = 1_000_000_000

T = TypeVar("T")


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
    """A server of the elections, and how to connect to it.

    Attributes:
        endpoint: the node that connects, and the address.
    """

    def __init__(
        self,
        target: Target,
        layout: KeyLayout,
        timeout_s: float,
        *,
        node_id: str,
        is_in_cluster: bool = False,
    ) -> None:
        """Keep the address.

        Args:
            target: the kind of connection, and its settings.
            layout: where the elections are kept.
            timeout_s: how long to wait for each answer.
            node_id: the name of the node that connects.
            is_in_cluster: whether the server must be a node of a cluster. Otherwise it must not.

        Raises:
            ConfigError: if a file for TLS cannot be read.
        """
        kind, settings = target.kind, dict(target.settings)
        self._target = target
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
            is_in_cluster=is_in_cluster,
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

    def at(self, address: Address, timeout_s: float | None = None) -> Server:
        """Return another node of the cluster that this server belongs to.

        Args:
            address: where the node listens.
            timeout_s: how long to wait for each answer at most; None: as long as for this server.
        """
        kind, settings = self._target
        if not issubclass(kind, TCPConnection):
            kind = TCPConnection
        settings = {name: value for name, value in settings.items() if name != "path"}
        return Server(
            Target(kind, settings | {"host": address.host, "port": address.port}),
            self._layout,
            self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s),
            node_id=self.endpoint.node_id,
            is_in_cluster=True,
        )

    @property
    def address(self) -> Address:
        """Its host and port."""
        return Address(*host_and_port(self._settings))

    def connect(self, *, listens: bool = True) -> Connection:
        """Connect, and check that the server can serve this node's elections.

        Args:
            listens: whether the connection is to carry announcements. Over RESP2 a second one does,
                in any case.

        Raises:
            ClusterNodeError: if it is a node of a cluster, and was not expected to be one.
            MultielectError: if it cannot, does not answer, or refuses the node.
        """
        return self._guard(lambda owners: self._connect(owners, listens=listens))

    def read_slots(self) -> Slots:
        """Connect, ask the node about the slots of its cluster, and disconnect.

        Raises:
            MultielectError: if it does not answer, or is no node of a cluster.
        """

        def read(owners: list[AbstractConnection]) -> Slots:
            connection = self._open(owners, protocol=2)
            try:
                reply = ask(connection, "CLUSTER", "SLOTS")
            except ResponseError as error:
                raise self._no_slots(server_text(error)) from error
            _disconnect(connection)
            try:
                return read_slots(reply, self.address)
            except ValueError as error:
                raise self.endpoint.malformed(f"to CLUSTER SLOTS: {error}") from error

        return self._guard(read)

    def _no_slots(self, text: str) -> MultielectError:
        if "cluster support disabled" in text:
            what = f"it is not a node of a cluster: {text}"
            return self.endpoint.unusable("cluster", what, "Use redis:// for a single server")
        return refusal(self.endpoint, text, "CLUSTER SLOTS")

    def check_buckets(self) -> None:
        """Connect, check the number of buckets, and disconnect.

        Raises:
            ConfigError: if the prefix has another number of buckets.
            MultielectError: if the server does not answer, or does not serve at the moment.
        """

        def check(owners: list[AbstractConnection]) -> None:
            connection = self._open(owners, protocol=2)
            Admission(connection, self.endpoint).check_buckets(self._layout)
            _disconnect(connection)

        self._guard(check)

    def _guard(self, work: Callable[[list[AbstractConnection]], T]) -> T:
        owners: list[AbstractConnection] = []
        if self._provider is not None:
            self._provider.ask()
        try:
            return work(owners)
        except ClusterNodeError:
            for owner in owners:
                _disconnect(owner)
            raise
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

    def _connect(self, owners: list[AbstractConnection], *, listens: bool) -> Connection:
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
            if listens or not pushes:
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
