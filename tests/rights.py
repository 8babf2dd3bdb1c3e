"""Users of a server who may do some things and not others."""

from __future__ import annotations

from collections.abc import Iterable

import redis

from multielect.embedded import EmbeddedServer

USER = "clerk"
PASSWORD = "secret"  # of a server that lasts as long as the test

OF_ELECTIONS = ("evalsha", "eval", "get", "set", "del", "mget", "pexpireat", "pttl", "publish",
                "time", "subscribe", "unsubscribe")  # fmt: skip
OF_STREAMS = ("hget", "hset", "hmget", "type", "xadd", "xread", "xinfo|stream")


class Clerk:
    """A user of a server, as its administrator sees it."""

    def __init__(self, server: EmbeddedServer, admin: redis.Redis) -> None:
        self._admin = admin
        self.url = f"unix://{USER}:{PASSWORD}@{server.socket_path}"

    def may(self, rights: Iterable[str], keys: Iterable[str]) -> None:
        """Allow this and nothing else."""
        rules = [*(f"+{right}" for right in rights), *(f"~{key}" for key in keys)]
        self._set("reset", "on", f">{PASSWORD}", "&*", *rules)

    def grant(self, right: str) -> None:
        self._set(f"+{right}")

    def take_away(self, right: str) -> None:
        # Servers before 7.0 take no part of a command away.
        self._set(f"-{right.partition('|')[0]}")

    def dismiss(self) -> None:
        self._admin.execute_command("ACL", "DELUSER", USER)  # type: ignore[no-untyped-call]

    def _set(self, *rules: str) -> None:
        self._admin.execute_command(  # type: ignore[no-untyped-call]
            "ACL", "SETUSER", USER, *rules
        )
