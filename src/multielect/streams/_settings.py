"""The settings of a consumer, and the checks of what users pass in.

Rules of this file:
    * Bad input is refused where it enters. A value that passed a check is not checked again.
    * The group checks the arguments that are for the elections.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .._protocol.keys import KeyLayout, decode_key, encode_key
from .._settings.callables import check_function, layers_of
from .._settings.settings import Seconds, checked_count, checked_seconds
from ..errors import ConfigError
from ._entries import checked_start

MAX_BATCH = 10_000
MAX_HANDLERS = 1_000
MAX_READERS = 64
MAX_IN_HAND = 10_000_000
MAX_ATTEMPTS = 1_000_000
MAX_S = 7 * 86_400.0

OURS = frozenset({"on_elected", "on_demoted", "on_draining", "callback_threads", "worker"})
"""Arguments of a group that a consumer sets itself."""

_NAMES_OF_OURS = frozenset({b"leader", b"epoch", b"fence", b"checkpoint"})

OnFailure = Literal["dead-letter", "halt"]
"""What the consumer does when the handler has failed too often: see `StreamConsumer`."""

Listing = Mapping[str, "str | bytes"] | Iterable["str | bytes"]
"""Partitions: a mapping of keys to streams, or streams, each of which is its own key."""

Partitions = Listing | Callable[[], Any]
"""Partitions, or a function that lists them and is called again and again."""


@dataclass(frozen=True)
class FlowSettings:
    """The settings of the flow of entries.

    Attributes:
        batch: the largest number of entries in a batch.
        max_in_hand: the largest number of entries in memory.
        readers: how many connections wait for new entries.
        attempts: how many attempts at a single entry the handler gets before the entry has failed.
        retry_base_s: about how long after the first failure to try again.
        retry_max_s: the longest pause between attempts.
        on_failure: what the consumer does with an entry that has failed.
        start: where to begin in a partition that has no checkpoint.
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
        """The largest number of entries of one partition in memory: two batches."""
        return min(2 * self.batch, self.max_in_hand)

    @classmethod
    def checked(
        cls,
        *,
        batch: int,
        max_in_hand: int,
        readers: int,
        attempts: int,
        retry_base: Seconds,
        retry_max: Seconds,
        on_failure: OnFailure,
        start: str,
    ) -> FlowSettings:
        """Return the settings from a user's arguments.

        Raises:
            ConfigError: if a value is not allowed.
        """
        checked_count("batch", batch, MAX_BATCH)
        checked_count("max_in_hand", max_in_hand, MAX_IN_HAND)
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
            readers=checked_count("readers", readers, MAX_READERS),
            attempts=checked_count("attempts", attempts, MAX_ATTEMPTS),
            retry_base_s=base_s,
            retry_max_s=max_s,
            on_failure=on_failure,
            start=checked_start(start),
        )


ASYNC = "AsyncStreamConsumer"


def checked_handler(handler: Any, *, takes_coroutines: bool) -> Any:  # noqa: ANN401
    """Return `handler`.

    Raises:
        ConfigError: if it cannot be called with a batch, or if its work would not be done when it
            returns.
    """
    if not callable(handler):
        raise ConfigError(f"handler must be a function that takes a Batch, not {handler!r}")
    check_function("handler", handler, may_await=takes_coroutines, elsewhere=ASYNC)
    if not _can_be_called(handler, "a batch"):
        raise ConfigError(f"handler must take a Batch as its only argument: {handler!r}")
    return handler


def checked_lister(lister: Any, *, takes_coroutines: bool) -> Any:  # noqa: ANN401
    """Return `lister`, a function that returns or yields partitions.

    Raises:
        ConfigError: if it cannot be called without arguments, or if nothing would await its result.
    """
    for function in layers_of(lister):
        if inspect.isasyncgenfunction(function):
            raise ConfigError(f"partitions must not be an asynchronous generator: {lister!r}")
        if inspect.iscoroutinefunction(function) and not takes_coroutines:
            raise ConfigError(
                f"partitions must be a plain function, as nothing would await {lister!r}:"
                f" coroutine functions are for {ASYNC}"
            )
    if not _can_be_called(lister):
        raise ConfigError(f"a function for partitions must need no arguments: {lister!r}")
    return lister


def _can_be_called(function: Callable[..., Any], *arguments: object) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Some built-in callables have no signature.
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def checked_pause(what: str, value: object) -> float:
    """Return `value` as a number of seconds.

    Raises:
        ConfigError: if it is not a number above 0 and up to `MAX_S`.
    """
    seconds = checked_seconds(what, value)
    if not 0 < seconds <= MAX_S:
        raise ConfigError(f"{what} must be seconds, above 0 and up to {MAX_S:.0f}: {value!r}")
    return seconds


def checked_group_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments for the group.

    Raises:
        ConfigError: if one of them is an argument that the consumer sets itself.
    """
    for name in OURS & options.keys():
        raise ConfigError(f"{name} must not be given: the consumer sets it, and calls the handler")
    return options


def checked_stream(stream: object, what: str = "a stream") -> bytes:
    """Return a stream's key in bytes.

    Args:
        stream: the key.
        what: what the stream is, for messages.

    Raises:
        ConfigError: if it is no key, or empty.
    """
    if not isinstance(stream, (str, bytes)) or not stream:
        raise ConfigError(f"{what} must be a key, str or bytes, and not empty: {stream!r}")
    return stream if isinstance(stream, bytes) else stream.encode("utf-8", "surrogateescape")


def check_input(stream: bytes, *, dead_letters: bytes, layout: KeyLayout) -> None:
    """Refuse a stream that cannot be the stream of a partition.

    Raises:
        ConfigError: if it is the dead-letter stream, or a key of the elections.
    """
    if stream == dead_letters:
        raise ConfigError(
            f"{stream!r} is the dead-letter stream, and cannot be a partition's stream: an entry"
            " that fails would be appended to it again and again. Leave it out of partitions, or"
            " name another stream as dead_letters"
        )
    check_not_ours(stream, layout)


def check_not_ours(stream: bytes, layout: KeyLayout) -> None:
    """Refuse a stream whose key the elections use.

    Raises:
        ConfigError: if they use it.
    """
    up_to_bucket = layout.key_prefixes[0].partition(b"{")[0] + b"{"
    name = stream.rpartition(b":")[2]
    if (stream.startswith(up_to_bucket) and name in _NAMES_OF_OURS) or stream in (
        layout.buckets_key,
        layout.members_key,
        layout.plan_key,
    ):
        raise ConfigError(f"{stream!r} is a key that the elections use, and cannot be a stream")


def listed(
    partitions: Any,  # noqa: ANN401  # from a user's function
    refused: list[ConfigError] | None = None,
) -> dict[str, bytes]:
    """Return the stream of each key.

    Args:
        partitions: the listing.
        refused: receives an error for each partition that is refused. With it, a listing may name
            a partition twice, as SCAN does.

    Raises:
        ConfigError: if `partitions` is not a listing. Without `refused`, also if a key or stream
            is not allowed or is named twice.
    """
    if isinstance(partitions, Mapping):
        pairs = list(partitions.items())
    elif isinstance(partitions, Iterable) and not isinstance(partitions, (str, bytes)):
        pairs = [(stream, stream) for stream in partitions]
    else:
        raise ConfigError(
            "partitions must be a mapping of keys to streams, or a list of streams, or a function"
            f" that returns either, not {partitions!r}"
        )
    found: dict[str, bytes] = {}
    for key, stream in pairs:
        try:
            _list(found, key, stream, repeats=refused is not None)
        except ConfigError as error:
            if refused is None:
                raise
            refused.append(error)
    return found


def _list(found: dict[str, bytes], key: Any, stream: Any, *, repeats: bool) -> None:  # noqa: ANN401
    name, checked = decode_key(encode_key(key)), checked_stream(stream)
    known = found.setdefault(name, checked)
    if known is not checked and (known != checked or not repeats):
        raise ConfigError(f"partitions must name each partition once: {name!r} is named twice")
