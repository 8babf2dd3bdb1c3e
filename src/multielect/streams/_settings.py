"""What a consumer may be told, and what it may not.

Rules of this file:
    * Bad input is refused where it enters. What has passed here is not checked again.
    * What the elections are told is the group's affair, which refuses what it does not know.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .._keys import decode_key, encode_key
from .._settings import checked_count, checked_seconds
from ..errors import ConfigError
from ._entries import checked_start

MOST_BATCH = 10_000
MOST_HANDLERS = 1_000
MOST_READERS = 64
MOST_IN_HAND = 10_000_000
MOST_ATTEMPTS = 1_000_000
LONGEST_S = 7 * 86_400.0

OURS = frozenset({"on_elected", "on_demoted", "on_draining", "callback_threads", "worker"})
"""Options of a group that a consumer keeps to itself."""

OnFailure = Literal["dead-letter", "halt"]
"""What becomes of an entry whose handler has failed for good: see `StreamConsumer`."""

Listing = Mapping[str, "str | bytes"] | Iterable["str | bytes"]
"""Partitions: the stream of each key, or streams, each of which is its own key."""

Partitions = Listing | Callable[[], Any]
"""Partitions, or a function that lists them and is asked again."""


@dataclass(frozen=True)
class FlowSettings:
    """What the flow of entries goes by.

    Attributes:
        batch: how many entries a handler is given at once.
        max_in_hand: how many entries are in memory at once.
        readers: how many connections wait for new entries.
        attempts: how often an entry is given to the handler on its own before it has failed.
        retry_base_s: about how long after the first failure to try again.
        retry_max_s: the longest that this pause grows to.
        on_failure: what then becomes of it.
        start: where a partition begins that has no checkpoint.
    """

    batch: int = 100
    max_in_hand: int = 10_000
    readers: int = 4
    attempts: int = 5
    retry_base_s: float = 0.1
    retry_max_s: float = 30.0
    on_failure: OnFailure = "dead-letter"
    start: str = "0-0"

    @property
    def max_per_partition(self) -> int:
        """How many entries of one partition are in memory: the batch at work, and the next."""
        return min(2 * self.batch, self.max_in_hand)

    @classmethod
    def checked(
        cls,
        *,
        batch: int,
        max_in_hand: int,
        readers: int,
        attempts: int,
        retry_base: float,
        retry_max: float,
        on_failure: OnFailure,
        start: str,
    ) -> FlowSettings:
        """Return the settings that a user asked for.

        Raises:
            ConfigError: for any value that is not allowed.
        """
        checked_count("batch", batch, MOST_BATCH)
        checked_count("max_in_hand", max_in_hand, MOST_IN_HAND)
        if max_in_hand < batch:
            raise ConfigError(f"max_in_hand must be at least batch ({batch}), not {max_in_hand}")
        if on_failure not in ("dead-letter", "halt"):
            raise ConfigError(f"on_failure must be 'dead-letter' or 'halt', not {on_failure!r}")
        base_s = checked_pause("retry_base", retry_base)
        max_s = checked_pause("retry_max", retry_max)
        if max_s < base_s:
            raise ConfigError(f"retry_max must be at least retry_base ({base_s}), not {max_s}")
        return cls(
            batch=batch,
            max_in_hand=max_in_hand,
            readers=checked_count("readers", readers, MOST_READERS),
            attempts=checked_count("attempts", attempts, MOST_ATTEMPTS),
            retry_base_s=base_s,
            retry_max_s=max_s,
            on_failure=on_failure,
            start=checked_start(start),
        )


def checked_handler(handler: Any, *, takes_coroutines: bool) -> Any:  # noqa: ANN401
    """Return a function that handles batches.

    Raises:
        ConfigError: for what cannot be called, or would not be done when it has returned.
    """
    if not callable(handler):
        raise ConfigError(f"handler must be a function that takes a Batch, not {handler!r}")
    for called in (handler, getattr(handler, "__call__", None)):  # noqa: B004  # as asyncio does
        if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
            raise ConfigError(f"handler must not yield: {handler!r}")
        if inspect.iscoroutinefunction(called) and not takes_coroutines:
            raise ConfigError(
                f"handler must be a plain function here: AsyncStreamConsumer awaits {handler!r}"
            )
    return handler


def checked_pause(what: str, value: object) -> float:
    """Return a number of seconds, above 0.

    Raises:
        ConfigError: for anything else.
    """
    seconds = checked_seconds(what, value)
    if not 0 < seconds <= LONGEST_S:
        raise ConfigError(f"{what} must be seconds, above 0 and up to {LONGEST_S:.0f}: {value!r}")
    return seconds


def checked_group_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is meant for the group.

    Raises:
        ConfigError: for what the consumer keeps to itself.
    """
    for name in OURS & options.keys():
        raise ConfigError(f"{name} is the consumer's own: its handler is what you are called by")
    return options


def checked_stream(stream: object) -> bytes:
    """Return a stream's key in bytes.

    Raises:
        ConfigError: for a key that Redis cannot have.
    """
    if not isinstance(stream, (str, bytes)) or not stream:
        raise ConfigError(f"a stream must be named by str or bytes, not empty: {stream!r}")
    return stream if isinstance(stream, bytes) else stream.encode("utf-8", "surrogateescape")


def listed(partitions: Any) -> dict[str, bytes]:  # noqa: ANN401  # from a user's function
    """Return the stream of each key.

    Raises:
        ConfigError: for a key or stream that is not allowed, or one stream for two keys.
    """
    if isinstance(partitions, Mapping):
        pairs = list(partitions.items())
    elif isinstance(partitions, Iterable) and not isinstance(partitions, (str, bytes)):
        pairs = [(stream, stream) for stream in partitions]
    else:
        raise ConfigError(
            "partitions must be a mapping of keys to streams, or streams, or a function that"
            f" returns either, not {partitions!r}"
        )
    return {decode_key(encode_key(key)): checked_stream(stream) for key, stream in pairs}
