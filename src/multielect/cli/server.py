"""The server of a command: the user's, or a private one.

Rules of this file:
    * An error of the user's server is reported in one line, before anything is started.
    * Keys are removed in portions, so that the server goes on to serve its other clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click
import redis

from .client import FAILURES, Client, primaries_of

_SCAN_KEYS = 1000

_Command = TypeVar("_Command", bound=Callable[..., object])


def server_option(use: str) -> Callable[[_Command], _Command]:
    """Return the option `--url`, the same for all commands.

    Args:
        use: what the command does with the server: the verb that begins the help text.
    """

    def add(command: _Command) -> _Command:
        url = click.option(
            "--url",
            metavar="URL",
            help=f"{use} this server instead of a private one. All keys get a random prefix and are"
            " removed at the end.",
        )
        # The demo's former name of the option, which other programs use too.
        old = click.option("--redis", hidden=True, expose_value=False, callback=_point_to_url)
        return url(old(command))

    return add


def _point_to_url(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError("there is no option --redis: use --url for the server")


def check_server(client: Client, option: str) -> None:
    """Check that the user's server answers.

    Args:
        client: a client of the server.
        option: the option that named the server, for messages.

    Raises:
        click.ClickException: if it does not answer.
    """
    try:
        client.ping()
    except FAILURES as error:
        raise unusable(option, error) from error


def unusable(option: str, error: Exception) -> click.ClickException:
    """Return the error for a server that the user named, and that does not answer as it should."""
    return click.ClickException(f"cannot use the server at {option}: {error}")


def described(client: Client) -> str:
    """Return the kind and version of a server, and how many primaries a cluster has."""
    info = client.info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = f"{name} {info.get('valkey_version') or info['redis_version']}"
    if not isinstance(client, redis.RedisCluster):
        return version
    return f"a cluster of {len(primaries_of(client))} primaries, {version}"


def remove_keys(client: Client, pattern: str) -> None:
    """Remove all keys of the database that match a pattern."""
    some: list[bytes] = []
    for key in client.scan_iter(match=pattern, count=_SCAN_KEYS):
        some.append(key)
        if len(some) == _SCAN_KEYS:
            client.unlink(*some)
            some.clear()
    if some:
        client.unlink(*some)
