"""The settings of a node, and the checks of what users pass in.

Rules of this file:
    * Bad input is refused where it enters, with a `ConfigError` that says what was wrong and what
      is allowed. A value that passed a check is not checked again.
    * Users pass seconds. The settings have whole nanoseconds.
"""

from __future__ import annotations

import contextlib
import math
import re
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias

from .._protocol.keys import check_node_id
from ..balance import MAX_LEASES, KeySet, Member, Only
from ..errors import ConfigError
from .callables import check_function

MIN_TTL_S = 0.1
MAX_TTL_S = 7 * 86_400.0
MIN_STALL_S = 0.01
MAX_CALLBACK_THREADS = 1_000
MAX_JOIN_DELAY_S = 3_600.0
MIN_RETENTION_S = 3_600.0
MAX_RETENTION_S = 3_650 * 86_400.0
MIN_RETENTION_TTLS = 10
MIN_MOVES_PER_SECOND = 0.01
MAX_MOVES_PER_SECOND = 1_000_000.0

_NS = 1_000_000_000
_MS_IN_NS = 1_000_000
_MIN_MARGIN_NS = 20 * _MS_IN_NS

Epochs = Literal["time", "counter"]
"""How epochs are minted: see `ElectionGroup`."""

Seconds: TypeAlias = float | timedelta
"""A span of time: a number of seconds, or a `timedelta`."""


@dataclass(frozen=True)
class BalanceSettings:
    """The settings of a node in a balanced fleet.

    Attributes:
        weight: its share compared with that of the others.
        labels: its labels, which `only` looks at.
        only: which members may lead which elections.
        join_delay_ms: how long it is a member before it is assigned anything.
        move_ns: the time between two of its moves; 0 for no limit.
    """

    weight: float = 1.0
    labels: frozenset[str] = frozenset()
    only: Only | None = None
    join_delay_ms: int = 0
    move_ns: int = 0


@dataclass(frozen=True)
class Settings:
    """A node's settings, checked.

    Attributes:
        node_id: this node's name, without an incarnation.
        ttl_ns: how long a lease lasts; whole milliseconds, as Redis counts.
        margin_ns: how long before a lease's end this node stops calling itself leader.
        max_leases: how many elections this node may lead at once; None for any number.
        epochs: how epochs are minted.
        retention_ms: how long an epoch stays in Redis after its term; 0 for ever.
        callback_threads: how many callbacks may run at once.
        max_stall_ns: how long a worker may go without a heartbeat; 0 for ever.
        drain_ns: how long a term may drain before it is handed over.
        balance: the settings in a balanced fleet; None if the node does not balance.
    """

    node_id: str
    ttl_ns: int
    margin_ns: int
    max_leases: int | None
    epochs: Epochs
    retention_ms: int
    callback_threads: int
    max_stall_ns: int
    drain_ns: int
    balance: BalanceSettings | None

    @classmethod
    def checked(
        cls,
        *,
        node_id: str | None,
        ttl: Seconds,
        margin: Seconds | None,
        max_leases: int | None = None,
        epochs: Epochs = "time",
        epoch_retention: Seconds | None = None,
        callback_threads: int = 1,
        max_stall: Seconds | None = None,
        drain_timeout: Seconds = 0.0,
        notifies_drains: bool = False,
        balance: bool = False,
        weight: float = 1.0,
        labels: Iterable[str] = (),
        only: Only | None = None,
        join_delay: Seconds = 0.0,
        moves_per_second: float | None = None,
    ) -> Settings:
        """Return the settings from a user's arguments.

        Raises:
            ConfigError: if a value is not allowed.
        """
        ttl_s = _seconds_between("ttl", ttl, MIN_TTL_S, MAX_TTL_S)
        ttl_ns = round(ttl_s * 1000) * _MS_IN_NS
        if epochs not in ("time", "counter"):
            raise ConfigError(f"epochs must be 'time' or 'counter', not {epochs!r}")
        drain_s = _seconds_between("drain_timeout", drain_timeout, 0, MAX_TTL_S)
        if notifies_drains and not drain_s:
            raise ConfigError("on_draining needs a drain_timeout above 0")
        return cls(
            node_id=generate_node_id() if node_id is None else check_node_id(node_id),
            ttl_ns=ttl_ns,
            margin_ns=_margin_ns(margin, ttl_ns),
            max_leases=None
            if max_leases is None
            else checked_count("max_leases", max_leases, MAX_LEASES),
            epochs=epochs,
            retention_ms=_retention_ms(epoch_retention, ttl_s, epochs),
            callback_threads=checked_count(
                "callback_threads", callback_threads, MAX_CALLBACK_THREADS
            ),
            max_stall_ns=checked_stall_ns(max_stall),
            drain_ns=round(drain_s * _NS),
            balance=_checked_balance(
                balance=balance,
                weight=weight,
                labels=labels,
                only=only,
                join_delay=join_delay,
                moves_per_second=moves_per_second,
            ),
        )


def generate_node_id() -> str:
    """Return a unique name for this node: its hostname and random bytes."""
    hostname = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:200] or "node"
    return f"{hostname}-{secrets.token_hex(4)}"


def checked_stall_ns(max_stall: Seconds | None) -> int:
    """Return `max_stall` in nanoseconds, 0 for None.

    Raises:
        ConfigError: if it is out of range or not a number.
    """
    if max_stall is None:
        return 0
    return round(_seconds_between("max_stall", max_stall, MIN_STALL_S, MAX_TTL_S) * _NS)


def checked_timeout(timeout: Seconds) -> float:
    """Return `timeout` in seconds.

    Raises:
        ConfigError: if it is negative or not a number.
    """
    seconds = checked_seconds("timeout", timeout)
    if seconds < 0:
        raise ConfigError(f"timeout must not be negative: {timeout!r}")
    return seconds


def _checked_balance(
    *,
    balance: bool,
    weight: float,
    labels: Iterable[str],
    only: Only | None,
    join_delay: Seconds,
    moves_per_second: float | None,
) -> BalanceSettings | None:
    """Return the settings in a balanced fleet, or None without `balance`.

    Args:
        balance: whether the node balances.
        weight: see `BalanceSettings`.
        labels: see `BalanceSettings`.
        only: see `BalanceSettings`.
        join_delay: how long the node is a member before it is assigned anything.
        moves_per_second: how many moves it makes in one second at most; None for no limit.

    Raises:
        ConfigError: if a value is not allowed, or if one is given without `balance`.
    """
    if not isinstance(balance, bool):
        raise ConfigError(f"balance must be True or False, not {balance!r}")
    member = Member("any", weight=weight, labels=labels)  # type: ignore[arg-type]
    _check_only(only)
    delay_s = _seconds_between("join_delay", join_delay, 0, MAX_JOIN_DELAY_S)
    checked = BalanceSettings(
        weight=member.weight,
        labels=member.labels,
        only=only,
        join_delay_ms=round(delay_s * 1000),
        move_ns=_move_ns(moves_per_second),
    )
    if balance:
        return checked
    for name, value in vars(checked).items():
        if value != getattr(BalanceSettings, name):
            argument = {"join_delay_ms": "join_delay", "move_ns": "moves_per_second"}
            raise ConfigError(f"{argument.get(name, name)} needs balance=True")
    return None


def _check_only(only: object) -> None:
    if not isinstance(only, Mapping):
        KeySet((), only)  # type: ignore[arg-type]  # refuses what is not a function
        if only is not None:
            check_function("only", only)
        return
    for key in only:
        if not isinstance(key, str):
            raise ConfigError(f"only must have keys that are str, not {key!r}")
    KeySet(only, only)  # refuses bad keys and labels


def _move_ns(moves_per_second: float | None) -> int:
    if moves_per_second is None:
        return 0
    rate = checked_seconds("moves_per_second", moves_per_second)
    if not MIN_MOVES_PER_SECOND <= rate <= MAX_MOVES_PER_SECOND:
        raise ConfigError(
            f"moves_per_second must be from {MIN_MOVES_PER_SECOND} to"
            f" {MAX_MOVES_PER_SECOND:,.0f} or None, not {moves_per_second!r}"
        )
    return round(_NS / rate)


def _retention_ms(retention: Seconds | None, ttl_s: float, epochs: Epochs) -> int:
    if retention is None:
        return 0
    if epochs == "counter":
        raise ConfigError(
            "epoch_retention needs epochs='time': a counter that has expired begins at 1 again, and"
            " epochs must rise"
        )
    min_s = max(MIN_RETENTION_S, MIN_RETENTION_TTLS * ttl_s)
    seconds = checked_seconds("epoch_retention", retention)
    if not min_s <= seconds <= MAX_RETENTION_S:
        raise ConfigError(
            f"epoch_retention must be from {min_s:.0f} (an hour, and {MIN_RETENTION_TTLS} times"
            f" the ttl) to {MAX_RETENTION_S:.0f} seconds, or None, not {retention!r}"
        )
    return round(seconds * 1000)


def _margin_ns(margin: Seconds | None, ttl_ns: int) -> int:
    if margin is None:
        return max(ttl_ns // 10, _MIN_MARGIN_NS)
    seconds = checked_seconds("margin", margin)
    # With a margin above half of the TTL, a single late refresh would end the term.
    if not 0 <= seconds * _NS <= ttl_ns / 2:
        raise ConfigError(
            f"margin must be from 0 to half of the ttl ({ttl_ns / 2 / _NS} seconds), not {margin!r}"
        )
    return round(seconds * _NS)


def _seconds_between(what: str, value: object, min_s: float, max_s: float) -> float:
    seconds = checked_seconds(what, value)
    if not min_s <= seconds <= max_s:
        raise ConfigError(f"{what} must be from {min_s} to {max_s:.0f} seconds, not {value!r}")
    return seconds


def checked_seconds(what: str, value: object) -> float:
    """Return a number of seconds, passed as a number or as a `timedelta`.

    Raises:
        ConfigError: if it is not a finite number.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            seconds = float(value)
            if math.isfinite(seconds):
                return seconds
    raise ConfigError(f"{what} must be a number of seconds or a timedelta, not {value!r}")


def checked_count(what: str, value: int, max_count: int) -> int:
    """Return a whole number from 1 to `max_count`.

    Raises:
        ConfigError: if `value` is not such a number.
    """
    if type(value) is not int or not 1 <= value <= max_count:
        raise ConfigError(f"{what} must be a whole number from 1 to {max_count}, not {value!r}")
    return value
