"""How groups and electors make their nodes: on threads, or in an event loop.

Rules of this file:
    * What a group and an elector have in common is made here, once for each way to call back.
      Their signatures are written out in the public classes, where users and their editors look.
    * Nothing is connected, and no thread begins.
"""

from __future__ import annotations

import logging

import redis

from .._callbacks.asyncio_dispatcher import AsyncioDispatcher
from .._callbacks.asyncio_workers import AsyncioWorkers
from .._callbacks.callbacks import Callbacks
from .._callbacks.worker_dispatcher import with_workers
from .._callbacks.workers import Workers
from .._protocol.keys import KeyLayout
from .._settings.callables import checked_logger
from .._settings.settings import Settings
from ..errors import ConfigError
from .environment import Source, environment_of, real_environment_of
from .node import Node


def node_on_threads(
    source: Source,
    *,
    layout: KeyLayout,
    settings: Settings,
    callbacks: Callbacks,
    logger: logging.Logger | None,
) -> Node:
    """Return a node whose callbacks and workers run on threads of its own.

    Args:
        source: what the user gave as `redis`.
        layout: how the elections are named in Redis.
        settings: how the node goes about it.
        callbacks: what to call.
        logger: what the user gave.

    Raises:
        ConfigError: for a source or logger that is not allowed; for a worker where there are no
            threads.
    """
    environment = environment_of(source)
    if callbacks.worker is not None and environment.is_simulated:
        raise ConfigError(
            "worker needs threads, of which a simulated world has none: use callbacks there, or a"
            " real server (multielect.embedded)"
        )
    dispatcher = environment.dispatcher(
        notify=callbacks.notify if callbacks.notifies_terms else None,
        notify_error=callbacks.on_error,
        notifies_drains=callbacks.on_draining is not None,
        threads=settings.callback_threads,
        name=f"multielect-{settings.node_id}-callback",
        logger=checked_logger(logger),
        who=f"{layout.prefix}/{settings.node_id}",
    )
    return Node(
        environment,
        layout=layout,
        settings=settings,
        dispatcher=with_workers(dispatcher, callbacks.worker, settings, Workers),
    )


def node_in_loop(
    source: str | redis.Redis,
    *,
    layout: KeyLayout,
    settings: Settings,
    callbacks: Callbacks,
    logger: logging.Logger | None,
) -> tuple[Node, AsyncioDispatcher]:
    """Return a node whose callbacks and workers run in an event loop, and what runs them.

    Args:
        source: what the user gave as `redis`.
        layout: how the elections are named in Redis.
        settings: how the node goes about it.
        callbacks: what to call.
        logger: what the user gave.

    Raises:
        ConfigError: for a source or logger that is not allowed.
    """
    dispatcher = AsyncioDispatcher(
        on_elected=callbacks.on_elected,
        on_demoted=callbacks.on_demoted,
        on_draining=callbacks.on_draining,
        on_error=callbacks.on_error,
        logger=checked_logger(logger),
        who=f"{layout.prefix}/{settings.node_id}",
    )
    node = Node(
        real_environment_of(source),
        layout=layout,
        settings=settings,
        dispatcher=with_workers(dispatcher, callbacks.worker, settings, AsyncioWorkers),
        on_change=dispatcher.pulse,
    )
    return node, dispatcher
