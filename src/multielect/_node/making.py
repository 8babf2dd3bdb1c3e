"""How groups and electors make their nodes: on threads, or in an event loop.

Rules of this file:
    * One function makes the nodes on threads, and one those in a loop, for groups and electors
      alike. The public classes have the signatures, where users and their editors look.
    * Nothing is connected, and no thread is started.
"""

from __future__ import annotations

import logging

import redis

from .._callbacks.asyncio_dispatcher import AsyncioDispatcher
from .._callbacks.asyncio_workers import AsyncioWorkers
from .._callbacks.callbacks import Callbacks
from .._callbacks.dispatcher import Delivery
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
    """Return a node whose callbacks and workers run on its own threads.

    Args:
        source: the user's `redis` argument.
        layout: the key names of its elections.
        settings: the node's settings.
        callbacks: the user's callbacks.
        logger: the user's `logger` argument.

    Raises:
        ConfigError: if the source or logger is not allowed, or if there is a worker and no threads.
    """
    environment = environment_of(source)
    if callbacks.worker is not None and environment.is_simulated:
        raise ConfigError(
            "worker needs threads, of which a simulated world has none: use callbacks there, or a"
            " real server (multielect.embedded)"
        )
    dispatcher = environment.dispatcher(
        Delivery(
            notify=callbacks.notify if callbacks.notifies_terms else None,
            notify_error=callbacks.on_error,
            notifies_drains=callbacks.on_draining is not None,
            threads=settings.callback_threads,
            name=f"multielect-{settings.node_id}-callback",
            logger=checked_logger(logger),
            who=f"{layout.prefix}/{settings.node_id}",
        )
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
    """Return a node whose callbacks and workers run in an event loop, and its dispatcher.

    Args:
        source: the user's `redis` argument.
        layout: the key names of its elections.
        settings: the node's settings.
        callbacks: the user's callbacks.
        logger: the user's `logger` argument.

    Raises:
        ConfigError: if the source or logger is not allowed.
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
