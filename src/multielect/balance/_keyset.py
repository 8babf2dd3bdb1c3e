"""The keys to assign, hashed once, and which members may lead them.

Rules of this file:
    * Keys are sorted by their bytes. All positions refer to that order.
    * Keys that the same members may lead form a class. Members are few and keys are many, so slow
      work is done once for each key, and kept.
    * A set never changes. `changed` returns another set, which shares the hashes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from .._protocol.keys import decode_key, encode_key
from ..errors import ConfigError
from ._hashes import key_hashes
from ._member import Member, checked_labels

Only = Mapping[str, Collection[str]] | Callable[[str, Member], bool]
"""Who may lead which key: the labels of which a node needs one, or a function that decides."""


class KeySet:
    """The keys to assign.

    Args:
        keys: their names. A name that comes twice counts once.
        only: a mapping from some keys to labels, of which a node needs at least one to lead that
            key; all nodes may lead the other keys. Or a function of a key and a member that returns
            whether the member may lead the key. It is called once for each pair, and must give the
            same answer in every process. Its exceptions are passed on.

    Raises:
        ConfigError: if a key is empty or too long, or a label is not allowed.
    """

    def __init__(self, keys: Iterable[str | bytes], only: Only | None = None) -> None:
        encoded = sorted({encode_key(key) for key in keys})
        self._set_up(encoded, key_hashes(encoded), only)

    def _set_up(self, encoded: list[bytes], hashes: array[int], only: Only | None) -> None:
        self._encoded = encoded
        self.names = tuple(decode_key(key) for key in encoded)
        self.hashes = hashes
        self.only = only
        self._asked: dict[Member, bytes] = {}
        self._wanted: list[frozenset[str] | None] = [None]
        self._group_of: array[int] | None = None
        if isinstance(only, Mapping):
            self._group_by_labels(only)
        elif only is not None and not callable(only):
            raise ConfigError(
                f"only must map keys to sets of labels, or be a function of key and member,"
                f" not {only!r}"
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def encoded(self) -> list[bytes]:
        """The keys as Redis holds them, in the order of `names`."""
        return self._encoded

    def changed(
        self, add: Iterable[str | bytes] = (), remove: Iterable[str | bytes] = ()
    ) -> KeySet:
        """Return a set with the keys of `add` and without those of `remove`. `add` wins.

        Raises:
            ConfigError: as for a new set.
        """
        hashed = dict(zip(self._encoded, self.hashes, strict=True))
        for key in remove:
            hashed.pop(encode_key(key), None)
        new = sorted({encode_key(key) for key in add} - hashed.keys())
        hashed.update(zip(new, key_hashes(new), strict=True))
        encoded = sorted(hashed)
        other = KeySet.__new__(KeySet)
        other._set_up(encoded, array("Q", [hashed[key] for key in encoded]), self.only)
        return other

    def classes(self, members: Sequence[Member]) -> tuple[array[int], list[bytes]]:
        """Return the class of each key, and for each class a byte per member: 1 if it may lead.

        Classes are sorted by these bytes, so their order depends on keys and members alone.
        """
        if callable(self.only):
            return self._classes_by_function(self.only, members)
        allowed = [
            bytes([wanted is None or not wanted.isdisjoint(m.labels) for m in members])
            for wanted in self._wanted
        ]
        distinct = sorted(set(allowed))
        if self._group_of is None or len(distinct) == 1:
            return array("i", bytes(4 * len(self))), distinct
        numbers = [distinct.index(row) for row in allowed]
        return array("i", map(numbers.__getitem__, self._group_of)), distinct

    def knows(self, members: Iterable[Member]) -> bool:
        """Return whether `classes` needs no call of a user's function."""
        asked = self._asked
        return not callable(self.only) or all(member in asked for member in members)

    def _group_by_labels(self, only: Mapping[str, Collection[str]]) -> None:
        groups: dict[frozenset[str] | None, int] = {None: 0}
        group_of = array("i")
        for name in self.names:
            labels = only.get(name)
            wanted = None if labels is None else checked_labels(f"only[{name!r}]", labels)
            if wanted is not None and not wanted:
                raise ConfigError(f"only[{name!r}] names no label: no node could lead that key")
            group_of.append(groups.setdefault(wanted, len(groups)))
        self._wanted = list(groups)
        self._group_of = group_of

    def _classes_by_function(
        self, may_lead: Callable[[str, Member], bool], members: Sequence[Member]
    ) -> tuple[array[int], list[bytes]]:
        asked = self._asked
        answers = {
            member: asked.get(member)
            or bytes([bool(may_lead(name, member)) for name in self.names])
            for member in members
        }
        self._asked = answers
        table = b"".join(answers[member] for member in members)
        keys = len(self)
        rows = [table[key::keys] for key in range(keys)]
        distinct = sorted(set(rows))
        numbers = {row: number for number, row in enumerate(distinct)}
        return array("i", map(numbers.__getitem__, rows)), distinct
