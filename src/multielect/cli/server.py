"""The server that a command was told to use, or a private one.

Rules of this file:
    * What is wrong with the user's server is said in one line, before anything is started.
    * Keys are removed a part at a time: a server that serves others too goes on serving them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click
import redis

_SCAN_KEYS = 1000

_Command = TypeVar("_Command", bound=Callable[..., object])


def server_option(use: str) -> Callable[[_Command], _Command]:
    """Return the option `--url`, the same for all commands.

    Args:
        use: what is done with the server, as a sentence begins.
    """

    def add(command: _Command) -> _Command:
        url = click.option(
            "--url",
            metavar="URL",
            help=f"{use} this server instead of a private one. All keys get a random prefix and are"
            " removed at the end.",
        )
        # What it was called in the demo, and is in other programs.
        old = click.option("--redis", hidden=True, expose_value=False, callback=_point_to_url)
        return url(old(command))

    return add


def _point_to_url(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError("there is no option --redis: the server is named by --url")


def check_server(client: redis.Redis, option: str) -> None:
    """See that the user's own server, which `option` named, answers.

    Raises:
        click.ClickException: where it does not.
    """
    try:
        client.ping()
    except redis.RedisError as error:
        raise click.ClickException(f"cannot use the server at {option}: {error}") from error


def described(client: redis.Redis) -> str:
    """Return what kind of server it is, and which version."""
    info = client.info("server")
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def remove_keys(client: redis.Redis, pattern: str) -> None:
    """Remove all keys that a pattern matches, wherever in the database they are."""
    some: list[bytes] = []
    for key in client.scan_iter(match=pattern, count=_SCAN_KEYS):
        some.append(key)
        if len(some) == _SCAN_KEYS:
            client.unlink(*some)
            some.clear()
    if some:
        client.unlink(*some)
