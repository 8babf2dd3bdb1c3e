"""Who connects, and where: what the errors of a connection begin with.

Rules of this file:
    * A message says who (prefix and node), where (host and port, or the socket's path), what, and
      what to do. A password is no part of it.
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
    """A node's end of its connection, for people.

    Attributes:
        prefix: the namespace in Redis.
        node_id: the node's name.
        address: where the server is.
        user: the user that it logs in as.
        has_password: whether it has a password to give.
    """

    prefix: str
    node_id: str
    address: str
    user: str = "default"
    has_password: bool = False

    @property
    def who(self) -> str:
        """The prefix and the node, as the log has them."""
        return f"{self.prefix}/{self.node_id}"

    def server(self, version: str) -> str:
        """Return where the server is, and what it calls itself if it does."""
        return f"{self.address} ({version})" if version else self.address

    def unreachable(self, what: str, advice: str = "") -> ConnectionLostError:
        """Return the error of an attempt to connect that failed, and may work the next time."""
        text = f"{self.who} cannot connect to {self.address}: {what}"
        return ConnectionLostError(_with(text, advice or "It is tried again"))

    def lost(self, what: str) -> ConnectionLostError:
        """Return the error of a connection that ended."""
        text = f"{self.who} lost its connection to {self.address}: {what}"
        return ConnectionLostError(_with(text, "It is being made anew"))

    def unusable(self, reason: str, what: str, advice: str) -> ServerUnusableError:
        """Return the error of a server that cannot serve elections; `reason` as there."""
        text = f"{self.who} cannot use the server at {self.address}: {what}"
        return ServerUnusableError(_with(text, advice), reason=reason)

    def malformed(self, what: str) -> ProtocolError:
        """Return the error of a reply that cannot be parsed, or that nobody asked for."""
        return ProtocolError(
            f"{self.who}: the server at {self.address} sent a malformed reply: {what}"
        )

    def warning(self, what: str) -> MultielectError:
        """Return what is amiss with a server that serves all the same."""
        return MultielectError(f"{self.who}: the server at {self.address} {what}")


def address_text(settings: Mapping[str, Any]) -> str:
    """Return where a connection of these settings leads, for people."""
    service = service_of(settings)
    if service is not None:
        return f"{service} (by Sentinel)"
    if settings.get("path"):
        return str(settings["path"])
    host, port = host_and_port(settings)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def service_of(settings: Mapping[str, Any]) -> str | None:
    """Return by which name sentinels are asked for the primary; None where none are."""
    service: str | None = getattr(settings.get("connection_pool"), "service_name", None)
    return service


def host_and_port(settings: Mapping[str, Any]) -> tuple[str, int]:
    """Return where a TCP connection of these settings leads."""
    return str(settings.get("host", _DEFAULT_HOST)), int(settings.get("port", _DEFAULT_PORT))


def _with(text: str, advice: str) -> str:
    return f"{text.rstrip('.')}. {advice}"
