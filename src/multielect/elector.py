"""`Elector`: one election.

Rules of this file:
    * It stands in the same election as the Go elector that it descends from: the same two
      keys, and scripts that respect each other.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from types import TracebackType

from ._front import ElectorFront
from ._keys import elector_layout
from ._node import Node
from ._settings import Settings
from ._surroundings import Source, surroundings_of
from .election import Election, Term
from .errors import ConfigError, MultielectError


class Elector(ElectorFront[Election]):
    """Stands for the one election of a prefix.

    ::

        with Elector("redis://localhost:6379/0", prefix="billing") as elector:
            if elector.is_leader:
                ...

    Its methods may be called from any thread. Callbacks run one after the other on a thread
    of the elector's own, never on the one that refreshes.

    A node written in Go deletes its lease when it stops but tells nobody; while one leads,
    this elector looks every third of the TTL, as those do.

    Args:
        redis: a URL, or a `redis.Redis` whose connection settings are taken over.
        prefix: the namespace in Redis, without braces, at most 512 bytes.
        node_id: this node's name, as others see it; `generate_node_id()` by default.
        ttl: seconds that the lease lasts without a refresh, at least 0.1.
        margin: see `ElectionGroup`.
        max_stall: see `ElectionGroup`.
        on_elected: called when this node is elected, with the `Term` or with nothing,
            whichever it takes.
        on_demoted: called when a term ends, with as many of `Term` and `DemotionReason` as it
            takes, or with nothing.
        on_error: called with what went wrong. It is logged in any case.
        logger: where errors are logged; ``logging.getLogger("multielect")`` by default.

    Raises:
        ConfigError: for any argument that is not allowed.
    """

    def __init__(
        self,
        redis: Source,
        *,
        prefix: str,
        node_id: str | None = None,
        ttl: float = 10.0,
        margin: float | None = None,
        max_stall: float | None = None,
        on_elected: Callable[..., object] | None = None,
        on_demoted: Callable[..., object] | None = None,
        on_error: Callable[[MultielectError], object] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._elected = fitted("on_elected", on_elected, 1)
        self._demoted = fitted("on_demoted", on_demoted, 2)
        self._prefix = prefix
        settings = Settings.checked(node_id=node_id, ttl=ttl, margin=margin, max_stall=max_stall)
        surroundings = surroundings_of(redis)
        self._node = Node(
            surroundings,
            layout=elector_layout(prefix),
            settings=settings,
            dispatcher=surroundings.dispatcher(
                tell=self._tell if on_elected or on_demoted else None,
                tell_error=on_error,
                threads=settings.callback_threads,
                name=f"multielect-{settings.node_id}-callback",
                # Not by what it is worth as a truth, which is the logger's own.
                logger=logging.getLogger("multielect") if logger is None else logger,
                who=f"{prefix}/{settings.node_id}",
            ),
        )
        self._election = Election(self._node, *self._node.add_sole())

    def start(self) -> None:
        """Begin to stand for election, and return at once: connecting goes on behind.

        Raises:
            ClosedError: if the elector was stopped, or made by the parent of a forked process.
        """
        self._node.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End the term if there is one, release the lease, and wait for callbacks.

        A stopped elector cannot be started again. Stopping twice does nothing.

        Args:
            timeout: seconds after which it returns in any case.

        Raises:
            ConfigError: for a bad timeout.
        """
        self._node.stop(timeout)

    def __enter__(self) -> Elector:
        """Start the elector."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the elector."""
        self.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until this node leads; False if it does not after `timeout` seconds.

        Raises:
            ClosedError: if the elector stops while waiting.
        """
        return self._election.wait(timeout)

    def _tell(self, term: Term) -> None:
        if term.reason is None:
            self._elected(term)
        else:
            self._demoted(term, term.reason)


def fitted(what: str, callback: Callable[..., object] | None, most: int) -> Callable[..., object]:
    """Return a function that calls `callback` with as many arguments as it takes."""
    if callback is None:
        return lambda *_: None
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        # Some built-in callables do not tell; they take what they are given.
        return callback
    places = 0
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            places = most
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            places += 1
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            raise ConfigError(f"{what} must take at most {most} arguments, by position")
    required = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) > most:
        raise ConfigError(f"{what} must take at most {most} arguments, not {len(required)}")
    count = min(places, most)

    def call(*arguments: object) -> object:
        return callback(*arguments[:count])

    return call
