"""The endpoint: the node and the address with which the errors of a connection begin.

Rules of this file:
    * A message names the node (prefix and node id) and the server (host and port, or the socket's
      path), and says what is wrong and what to do. It never has a password.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConnectionLostError, MultielectError, ProtocolError, ServerUnusableError

_DEFAULT_HOST = "localhost"
_DEFAULT_PORT = 6379


@dataclass(frozen=True)
class Endpoint:
    """A node's end of its connection, for messages.

    Attributes:
        prefix: the namespace in Redis.
        node_id: the node's name.
        address: the server's address.
        user: the user as whom the node logs in.
        has_password: whether the node has a password.
        is_in_cluster: whether the address is one node of many, whose place another may take.
    """

    prefix: str
    node_id: str
    address: str
    user: str = "default"
    has_password: bool = False
    is_in_cluster: bool = False

    @property
    def who(self) -> str:
        """The prefix and the node, as the log has them."""
        return f"{self.prefix}/{self.node_id}"

    def server(self, version: str) -> str:
        """Return the server's address, and its name and version if they are known."""
        return f"{self.address} ({version})" if version else self.address

    def unreachable(self, what: str, advice: str = "") -> ConnectionLostError:
        """Return the error for an attempt to connect that failed, and may work the next time."""
        text = f"{self.who} cannot connect to {self.address}: {what}"
        return ConnectionLostError(_with(text, advice or "The node tries again"))

    def lost(self, what: str) -> ConnectionLostError:
        """Return the error for a connection that was lost."""
        text = f"{self.who} lost its connection to {self.address}: {what}"
        return ConnectionLostError(_with(text, "The node connects again"))

    def unusable(self, reason: str, what: str, advice: str) -> ServerUnusableError:
        """Return the error for a server that cannot serve elections, with its `reason`."""
        text = f"{self.who} cannot use the server at {self.address}: {what}"
        return ServerUnusableError(_with(text, advice), reason=reason)

    def elsewhere(self, what: str) -> ConnectionLostError:
        """Return the error for a node of a cluster that does not serve us, or not now."""
        return self.unreachable(what, "This node reads the slot map again")

    def malformed(self, what: str) -> ProtocolError:
        """Return the error for a reply that cannot be parsed, or that answers no request."""
        return ProtocolError(
            f"{self.who}: the server at {self.address} sent a malformed reply: {what}"
        )

    def warning(self, what: str) -> MultielectError:
        """Return the warning about a server that serves all the same."""
        return MultielectError(f"{self.who}: the server at {self.address} {what}")


def address_text(settings: Mapping[str, Any]) -> str:
    """Return the address of a connection with these settings, for messages."""
    service = service_of(settings)
    if service is not None:
        return f"{service} (by Sentinel)"
    if settings.get("path"):
        return str(settings["path"])
    host, port = host_and_port(settings)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def service_of(settings: Mapping[str, Any]) -> str | None:
    """Return the service name for which sentinels are asked; None without sentinels."""
    service: str | None = getattr(settings.get("connection_pool"), "service_name", None)
    return service


def host_and_port(settings: Mapping[str, Any]) -> tuple[str, int]:
    """Return the host and port of a TCP connection with these settings."""
    return str(settings.get("host", _DEFAULT_HOST)), int(settings.get("port", _DEFAULT_PORT))


def _with(text: str, advice: str) -> str:
    return f"{text.rstrip('.')}. {advice}"
