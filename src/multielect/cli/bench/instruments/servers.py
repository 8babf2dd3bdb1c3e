"""The server that is measured: its address, its costs, and how to clean it.

Rules of this file:
    * Every key has a prefix of this run. On the user's server only those keys are removed. No
      setting and no counter is changed.
    * The server reports its own costs. They are read before and after a measurement.
"""

from __future__ import annotations

import secrets
from contextlib import closing
from types import TracebackType
from typing import Any

import redis

from ...server import described, remove_keys

_FIRST_WITH_FLAGS = 7
_TIMEOUT_S = 120.0


class Server:
    """A server to measure on. A context manager that leaves it as it was found.

    Attributes:
        url: its URL.
        is_private: whether it was started for this run only.
        client: a client for INFO and other commands that are not measured.
        description: its kind and version.
        run: the beginning of all keys of this run.
    """

    def __init__(self, url: str, *, is_private: bool) -> None:
        """Connect.

        Raises:
            ValueError: for a URL that cannot be understood.
        """
        self.url = url
        self.is_private = is_private
        self.client = _client(url)
        self.run = f"multielect-bench-{secrets.token_hex(4)}"
        self._prefixes = 0

    @property
    def description(self) -> str:
        """Kind and version."""
        return described(self.client)

    @property
    def way(self) -> str:
        """How it is reached: over a unix socket or TCP."""
        return "unix socket" if self.url.startswith("unix:") else self.url.partition(":")[0]

    @property
    def knows_script_flags(self) -> bool:
        """Whether scripts name their flags in a first line."""
        version = str(self.client.info("server")["redis_version"])
        return int(version.partition(".")[0]) >= _FIRST_WITH_FLAGS

    def fresh_prefix(self) -> str:
        """Return a prefix that has not been used. `clear` removes the keys that have it."""
        self._prefixes += 1
        return f"{self.run}-{self._prefixes}"

    def cpu_s(self) -> float:
        """Return the CPU time that the server has used since it was started, in seconds."""
        return cpu_s_of(self.client)

    def memory_bytes(self) -> int:
        """Return the memory that the server has allocated."""
        return int(self.client.info("memory")["used_memory"])

    def commands(self) -> dict[str, dict[str, Any]]:
        """Return the server's statistics of each command, such as ``calls`` and ``usec``."""
        info = self.client.info("commandstats")
        return {name.removeprefix("cmdstat_"): counts for name, counts in info.items()}

    def clear(self) -> None:
        """Remove all keys of this run."""
        # A separate connection, because that of `client` may have been interrupted.
        with closing(_client(self.url)) as client:
            if self.is_private:
                # Valkey would free the memory in the background by default, and so take CPU time
                # from the next measurement.
                client.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
            else:
                # Some peers put their own prefix before the given name.
                remove_keys(client, f"*{self.run}*")

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.clear()
        finally:
            self.client.close()


def cpu_s_of(client: redis.Redis) -> float:
    """Return the CPU time that a server has used since it was started, in seconds."""
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def _client(url: str) -> redis.Redis:
    # Some commands take long, such as the removal of a million keys.
    return redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S)
