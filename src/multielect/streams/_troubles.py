"""What goes wrong with partitions, told of all that it concerns and ever more seldom.

Rules of this file:
    * No clock: the time is passed in.
    * A kind of trouble is told when it begins; while it lasts it is told again after 1 s, 2 s, 4 s
      and so on, up to a minute, with the partitions that it has concerned since.
    * What has not happened for a minute is news again.
    * Kinds are bounded, and so are the names that are kept of one.
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
    """What goes wrong now, and when it is to be told again."""

    def __init__(self) -> None:
        self._by_kind: OrderedDict[Hashable, _Trouble] = OrderedDict()

    def report(self, kind: Hashable, keys: Iterable[str], now_s: float) -> Sequence[str] | None:
        """Take note of trouble with these partitions.

        Returns:
            The partitions that it is to be told of now, all since it was told last; None where it
            is not to be told yet.
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
        told, trouble.keys = tuple(trouble.keys), {}
        return told


def partitions(keys: Sequence[str]) -> str:
    """Name partitions: all of few, some of many."""
    names = [repr(key) for key in keys[:MAX_NAMED]]
    if len(keys) > len(names):
        return f"{len(keys)} partitions, such as {_joined(names)}"
    return f"partition{'s' if len(names) > 1 else ''} {_joined(names)}"


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
