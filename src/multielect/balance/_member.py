"""One member of a fleet, as the others know it.

Rules of this file:
    * Bad input is refused here, with a `ConfigError`. A value that passed is not checked again.
    * Weights count in thousandths, as whole numbers. So all nodes compute the same shares.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .._protocol.keys import check_node_id
from ..errors import ConfigError

MIN_WEIGHT = 0.001
MAX_WEIGHT = 1_000_000.0
MAX_LEASES = 0x7FFF_FFFF
"""The largest `max_leases`, of a `Member` as of a group."""

_INCARNATION = re.compile(r"[^/\x00-\x1f\x7f]*")


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the fleet, with its weight and its limits.

    Attributes:
        node_id: the node's name.
        incarnation: differs at each start of the node; may be empty.
        weight: its share compared with that of the others, from 0.001 to 1,000,000 in steps of
            0.001. With 0 it is assigned nothing, and keeps nothing.
        max_leases: how many keys it is assigned at most; None for any number.
        labels: the labels that `only` of a `KeySet` looks at.

    Raises:
        ConfigError: if a value is not allowed.
    """

    node_id: str
    incarnation: str = ""
    weight: float = 1.0
    max_leases: int | None = None
    labels: frozenset[str] = field(default=frozenset())

    def __post_init__(self) -> None:
        check_node_id(self.node_id)
        _check_incarnation(self.incarnation)
        _check_weight(self.weight)
        if self.max_leases is not None and (
            type(self.max_leases) is not int or not 0 <= self.max_leases <= MAX_LEASES
        ):
            raise ConfigError(
                f"max_leases must be a whole number from 0 to {MAX_LEASES} or None,"
                f" not {self.max_leases!r}"
            )
        object.__setattr__(self, "labels", checked_labels("labels", self.labels))

    @property
    def holder(self) -> str:
        """The value of the leader key of an election that it leads."""
        return f"{self.node_id}/{self.incarnation}" if self.incarnation else self.node_id

    @property
    def thousandths(self) -> int:
        """Its weight as a whole number."""
        return round(self.weight * 1000)


def checked_labels(what: str, labels: object) -> frozenset[str]:
    """Return `labels` as a set.

    Raises:
        ConfigError: if `labels` is a single text, which would be taken for its letters, or if a
            label is not text or is empty.
    """
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable):
        raise ConfigError(f"{what} must be a set of texts, not {labels!r}")
    found = list(labels)
    for label in found:
        if not isinstance(label, str) or not label:
            raise ConfigError(f"{what} must hold texts that are not empty, not {label!r}")
    # Plain str from a subclass of str: no user code may run when labels are compared.
    return frozenset(map(str.__str__, found))


def _check_incarnation(incarnation: object) -> None:
    if not isinstance(incarnation, str) or not _INCARNATION.fullmatch(incarnation):
        raise ConfigError(
            f"incarnation must be text without '/' and control characters, not {incarnation!r}"
        )


def _check_weight(weight: object) -> None:
    if (
        isinstance(weight, bool)
        or not isinstance(weight, (int, float))
        or not math.isfinite(weight)
        or not (weight == 0 or MIN_WEIGHT <= weight <= MAX_WEIGHT)
    ):
        raise ConfigError(
            f"weight must be 0 or a number from {MIN_WEIGHT} to {MAX_WEIGHT:,.0f}, not {weight!r}"
        )
