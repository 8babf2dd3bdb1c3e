"""The admission of a server: checks whether it can serve elections.

Rules of this file:
    * A server is refused for what it says, never for what it does not say. If INFO or ROLE is
      forbidden, the batches will show whether it can serve.
    * A fault that does not keep a node from leading is only a warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from .._protocol.keys import KeyLayout
from .._protocol.scripts import PROBE, WITH_FLAGS, WITHOUT_FLAGS, ScriptSet, is_about_flags
from ..errors import ConfigError, MultielectError
from .endpoint import Endpoint
from .errors import refusal, server_text

OLDEST_VERSION = (6, 2)
_MAX_SHOWN = 40


@dataclass(frozen=True)
class ServerFacts:
    """What a server says about itself; each is empty if the server does not say it.

    Attributes:
        name: the program, such as ``Redis`` or ``Valkey``.
        version: its version.
        redis_version: the version of Redis with which it is compatible.
        mode: ``standalone``, ``cluster`` or ``sentinel``.
        memory: the lines of INFO.
    """

    name: str
    version: str
    redis_version: str
    mode: str
    memory: Mapping[str, str]

    def __str__(self) -> str:
        """Return the program and its version."""
        return f"{self.name} {self.version}".strip()

    @classmethod
    def of(cls, hello: object, info: Mapping[str, str]) -> ServerFacts:
        """Return the facts from the replies to HELLO and INFO."""
        greeting = _texts(hello)
        program = (info.get("server_name") or greeting.get("server") or "redis").lower()
        redis_version = info.get("redis_version", "")
        version = info.get(f"{program}_version") or greeting.get("version") or redis_version
        if not redis_version and program == "redis":
            redis_version = version
        return cls(
            name=_shown(program.capitalize()) if version else "",
            version=_shown(version),
            redis_version=redis_version,
            mode=greeting.get("mode") or info.get("redis_mode", ""),
            memory=info,
        )


class ClusterNodeError(Exception):
    """A server is a node of a cluster. Whoever connects must find the others."""


class Admission:
    """Checks one server for one node."""

    def __init__(self, connection: AbstractConnection, endpoint: Endpoint) -> None:
        """Keep the connection to the server."""
        self._connection = connection
        self._endpoint = endpoint
        self.warnings: list[MultielectError] = []

    def admit(self, layout: KeyLayout) -> tuple[ServerFacts, ScriptSet]:
        """Return the server's facts, and the scripts for it.

        In a cluster the number of buckets is not checked, as another node may have it.

        Raises:
            ClusterNodeError: if it is a node of a cluster, and was not expected to be one.
            ServerUnusableError: if the server cannot serve elections.
            ConfigError: if the prefix has another number of buckets.
            MultielectError: if the server does not serve at the moment.
        """
        facts = ServerFacts.of(getattr(self._connection, "handshake_metadata", None), self._info())
        self._check_kind(facts)
        self._check_role()
        self._check_eviction(facts.memory)
        if not self._endpoint.is_in_cluster:
            self.check_buckets(layout)
        return facts, WITH_FLAGS if self._knows_script_flags() else WITHOUT_FLAGS

    def check_buckets(self, layout: KeyLayout) -> None:
        """Check that the prefix has this number of buckets, and record the number if it is new.

        Raises:
            ConfigError: if the prefix has another number of buckets.
            MultielectError: if the server refuses to say.
        """
        key = layout.buckets_key
        if not key:
            return
        wanted = len(layout.key_prefixes)
        found = self._ask_for("GET", key)
        if found is None:
            try:
                ask(self._connection, "SET", key, wanted, "NX")
            except ResponseError as error:
                # A full server still refreshes leases, so do not refuse it.
                self._warn(f"cannot record the number of buckets: {server_text(error)}")
                return
            found = self._ask_for("GET", key)
        if not isinstance(found, bytes):
            raise self._malformed("GET", found)
        if found != b"%d" % wanted:
            raise ConfigError(
                f"{self._endpoint.who}: at {self._endpoint.address} this namespace is divided into"
                f" {found[:20].decode(errors='replace')} buckets, not {wanted}: use the same number"
                " on all nodes, or another prefix"
            )

    def _check_kind(self, facts: ServerFacts) -> None:
        if facts.mode == "cluster" and not self._endpoint.is_in_cluster:
            raise ClusterNodeError
        if facts.mode == "sentinel":
            raise self._endpoint.unusable(
                "sentinel",
                "it is a sentinel, which knows the primary but cannot serve elections",
                "Give the address of the primary",
            )
        numbers = re.match(r"(\d{1,6})\.(\d{1,6})", facts.redis_version)
        if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_VERSION:
            raise self._endpoint.unusable(
                "version", f"it is {facts}", "Use Redis 6.2 or newer, or Valkey"
            )

    def _check_role(self) -> None:
        try:
            role = ask(self._connection, "ROLE")
        except ResponseError:
            # The command is forbidden or unknown. A replica will refuse the first batch.
            return
        if not isinstance(role, list) or not role or not isinstance(role[0], bytes):
            raise self._malformed("ROLE", role)
        if role[0] == b"master":
            return
        if self._endpoint.is_in_cluster:
            raise self._endpoint.elsewhere("it is not a primary any more")
        if role[0] == b"slave" and len(role) > 2 and isinstance(role[1], bytes):
            primary = f"{_shown(role[1].decode(errors='replace'))}:{role[2]!r:.20}"
            raise self._endpoint.unusable(
                "replica",
                f"it is a replica of {primary}: elections can only be held on a primary",
                "Give the address of the primary",
            )
        name = _shown(role[0].decode(errors="replace"))
        raise self._endpoint.unusable(
            "replica",
            f"it is a {name}: elections can only be held on a primary",
            "Give the address of the primary",
        )

    def _check_eviction(self, memory: Mapping[str, str]) -> None:
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy == "noeviction" or memory.get("maxmemory", "0") == "0":
            return
        what = "leases" if policy.startswith("volatile") else "leases and epochs"
        self._warn(
            f"may evict {what} when its memory is full (maxmemory-policy {_shown(policy)}):"
            " use noeviction, or a separate server for elections"
        )

    def _knows_script_flags(self) -> bool:
        try:
            ask(self._connection, "EVAL", PROBE, 0)
        except ResponseError as error:
            if not is_about_flags(error):
                raise refusal(self._endpoint, server_text(error), "EVAL") from error
            return False
        return True

    def _info(self) -> dict[str, str]:
        try:
            info = ask(self._connection, "INFO")
        except ResponseError:
            return {}  # the command is forbidden
        text = info.decode(errors="replace") if isinstance(info, bytes) else ""
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def _ask_for(self, command: str, key: bytes) -> Any:  # noqa: ANN401
        try:
            return ask(self._connection, command, key)
        except ResponseError as error:
            name = key.decode(errors="replace")
            raise refusal(self._endpoint, server_text(error), f"{command} {name}") from error

    def _warn(self, what: str) -> None:
        self.warnings.append(self._endpoint.warning(what))

    def _malformed(self, command: str, answer: object) -> MultielectError:
        return self._endpoint.malformed(f"its answer to {command} is {answer!r:.100}")


def ask(connection: AbstractConnection, *command: object) -> Any:  # noqa: ANN401
    """Send a command and return the reply. Raises the server's errors."""
    connection.send_command(*command)  # type: ignore[no-untyped-call]
    return connection.read_response()


def _texts(hello: object) -> dict[str, str]:
    if not isinstance(hello, dict):
        return {}
    pairs = ((_text(name), _text(value)) for name, value in hello.items())
    return {name: value for name, value in pairs if name and value}


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_SHOWN])
