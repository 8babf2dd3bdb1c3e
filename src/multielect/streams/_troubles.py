"""Errors that concern many partitions: reported together, and less and less often.

Rules of this file:
    * No clock: the caller passes the time.
    * A kind of error is reported when it begins. While it lasts it is reported again after 1 s,
      2 s, 4 s and so on, up to a minute, with the partitions that it has concerned meanwhile.
    * A kind that has not happened for a minute begins anew.
    * The number of kinds is bounded, and so is the number of keys that are kept of each.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 60.0
FORGOTTEN_S = 60.0

MAX_KINDS = 100
MAX_KEYS = 10_000
MAX_NAMED = 4


@dataclass
class _Trouble:
    pause_s: float = FIRST_PAUSE_S
    due_s: float = float("-inf")
    last_s: float = float("-inf")
    # A dict, as it keeps the order.
    keys: dict[str, None] = field(default_factory=dict)


class Troubles:
    """The kinds of error that happen now, and when to report each again."""

    def __init__(self) -> None:
        self._by_kind: OrderedDict[Hashable, _Trouble] = OrderedDict()

    def report(self, kind: Hashable, keys: Iterable[str], now_s: float) -> Sequence[str] | None:
        """Record that an error concerns these partitions.

        Args:
            kind: what distinguishes the error from others.
            keys: the partitions' keys.
            now_s: the time.

        Returns:
            The partitions to report now: all that it concerned since the last report. None if it is
            not to be reported yet.
        """
        trouble = self._by_kind.get(kind)
        if trouble is None or now_s - trouble.last_s > FORGOTTEN_S:
            trouble = self._by_kind[kind] = _Trouble()
            while len(self._by_kind) > MAX_KINDS:
                self._by_kind.popitem(last=False)
        self._by_kind.move_to_end(kind)
        trouble.last_s = now_s
        for key in keys:
            if len(trouble.keys) < MAX_KEYS:
                trouble.keys[key] = None
        if now_s < trouble.due_s:
            return None
        trouble.due_s = now_s + trouble.pause_s
        trouble.pause_s = min(2 * trouble.pause_s, MAX_PAUSE_S)
        to_report, trouble.keys = tuple(trouble.keys), {}
        return to_report


def partitions(keys: Sequence[str]) -> str:
    """Return the names of the partitions for a message: all if they are few, else some."""
    names = [repr(key) for key in keys[:MAX_NAMED]]
    if len(keys) > len(names):
        return f"{len(keys)} partitions, such as {_joined(names)}"
    return f"partition{'s' if len(names) > 1 else ''} {_joined(names)}"


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
