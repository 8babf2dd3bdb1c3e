"""The assignment of keys to members, and how it differs from another.

Rules of this file:
    * An assignment is computed once and never changes. Threads may share it.
    * Members are sorted by holder, keys by their bytes. The order of the input does not matter.
    * If an incarnation is gone, its keys count as those of its node id: a node that restarts gets
      its keys back.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..errors import ConfigError
from ._hashes import node_hashes
from ._keyset import KeySet
from ._member import Member
from ._place import count_had, place
from ._settle import settle
from ._shares import fair_shares

_NOBODY = -1


@dataclass(frozen=True, slots=True)
class Change:
    """How two assignments differ for one node.

    Attributes:
        gained: the keys that only the newer one assigns to it, in order.
        lost: the keys that only the older one assigns to it, in order.
    """

    gained: tuple[str, ...]
    lost: tuple[str, ...]


class Assignment(Mapping[str, Member]):
    """A mapping of each assigned key to the member that should lead it. `assign` makes it.

    A key that no member may lead, or for which no member has room, is in `unassigned` instead.

    Attributes:
        keys_given: all keys, with those in `unassigned`.
        members: all members, sorted by holder.
    """

    def __init__(
        self,
        keys: KeySet,
        members: tuple[Member, ...],
        owners: array[int],
        classes: array[int],
        allowed: list[bytes],
    ) -> None:
        self._classes = classes
        self._allowed = allowed
        self.keys_given = keys
        self.members = members
        self._owners = owners
        self._numbers: dict[str, int] | None = None
        self._shelves: list[list[int]] | None = None

    def __getitem__(self, key: str) -> Member:
        if self._numbers is None:
            self._numbers = {name: number for number, name in enumerate(self.keys_given.names)}
        owner = self._owners[self._numbers[key]]
        if owner == _NOBODY:
            raise KeyError(key)
        return self.members[owner]

    def __iter__(self) -> Iterator[str]:
        for name, owner in zip(self.keys_given.names, self._owners, strict=True):
            if owner != _NOBODY:
                yield name

    def __len__(self) -> int:
        return len(self._owners) - self._owners.count(_NOBODY)

    def __repr__(self) -> str:
        return f"<Assignment of {len(self)} keys to {len(self.members)} members>"

    @property
    def unassigned(self) -> tuple[str, ...]:
        """The keys that no member may lead or has room for, in order."""
        names = self.keys_given.names
        return tuple(names[at] for at in self._by_owner()[_NOBODY])

    @property
    def loads(self) -> dict[str, int]:
        """How many keys each member has, by holder."""
        shelves = self._by_owner()
        return {m.holder: len(shelves[number]) for number, m in enumerate(self.members)}

    def of(self, node: str) -> tuple[str, ...]:
        """Return the keys of one member, in order; none for a node that is not a member.

        Args:
            node: the member's holder, or a node id for all of the node's incarnations.
        """
        names, shelves = self.keys_given.names, self._by_owner()
        found = [
            at
            for number, member in enumerate(self.members)
            if node in (member.holder, member.node_id)
            for at in shelves[number]
        ]
        return tuple(names[at] for at in sorted(found))

    @property
    def owners(self) -> array[int]:
        """The owner of each key, in the order of `keys_given`: an index of `members`, or -1."""
        return self._owners

    def ineligible(self, number: int) -> bytes:
        """Return a byte for each key: 1 if the member with this number may not lead it.

        No member may lead a key that is `unassigned`.
        """
        may = [row[number] for row in self._allowed]
        pairs = zip(self._classes, self._owners, strict=True)
        return bytes(owner == _NOBODY or not may[which] for which, owner in pairs)

    def holders(self) -> dict[str, str]:
        """Return the holder of each assigned key, as `assign` takes it for ``held``."""
        names = [member.holder for member in self.members]
        return {
            key: names[owner]
            for key, owner in zip(self.keys_given.names, self._owners, strict=True)
            if owner != _NOBODY
        }

    def after(self, members: Iterable[Member], keys: KeySet | None = None) -> Assignment:
        """Return the assignment to other members, or of other keys, that moves the fewest keys.

        It is the same as `assign` with `holders` as ``held``.

        Raises:
            ConfigError: if two members have the same node id and incarnation.
        """
        if keys is not None and keys is not self.keys_given:
            return assign(members, keys, held=self.holders())
        ordered = _sorted(members)
        number_of = _Numbers(ordered)
        numbers = [number_of[member.holder] for member in self.members]
        numbers.append(_NOBODY)  # for -1, which counts from the end
        return _assigned(
            ordered, self.keys_given, array("i", map(numbers.__getitem__, self._owners))
        )

    def change_since(self, before: Assignment, node: str) -> Change:
        """Return what `node` gains and loses by this assignment, compared with an earlier one.

        Args:
            before: the earlier assignment, which may have other keys.
            node: as for `of`.
        """
        had, has = before.of(node), self.of(node)
        kept = set(had).intersection(has)
        return Change(
            gained=tuple(key for key in has if key not in kept),
            lost=tuple(key for key in had if key not in kept),
        )

    def moved_since(self, before: Assignment) -> tuple[str, ...]:
        """Return the keys that had a node in `before` and have another node, or none, now.

        A node that restarted is the same node. A key that no longer exists did not move.
        """
        if before.keys_given is self.keys_given:
            had = [member.node_id for member in before.members] + [None]
            has = [member.node_id for member in self.members] + [None]
            pairs = zip(self.keys_given.names, before._owners, self._owners, strict=True)
            return tuple(key for key, old, new in pairs if old != _NOBODY and had[old] != has[new])
        moved = []
        for key in self.keys_given.names:
            old, new = before.get(key), self.get(key)
            if old is not None and (new is None or old.node_id != new.node_id):
                moved.append(key)
        return tuple(moved)

    def _by_owner(self) -> list[list[int]]:
        """Return the indexes of each member's keys, and last those of the unassigned keys."""
        if self._shelves is None:
            shelves: list[list[int]] = [[] for _ in range(len(self.members) + 1)]
            for at, owner in enumerate(self._owners):
                shelves[owner].append(at)
            self._shelves = shelves
        return self._shelves


class _Numbers(dict[str, int]):
    """The number of the member with a given holder, or -1 if there is none."""

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        # Backwards, so that a bare node id gets the first of its incarnations.
        for number in range(len(members) - 1, -1, -1):
            self[members[number].node_id] = number
        self.update({member.holder: number for number, member in enumerate(members)})

    def __missing__(self, holder: str) -> int:
        number = self[holder] = self.get(holder.partition("/")[0], _NOBODY)
        return number


def assign(
    members: Iterable[Member],
    keys: KeySet | Iterable[str | bytes],
    held: Mapping[str, str] | None = None,
) -> Assignment:
    """Assign each key to the member that should lead it.

    The same members, keys and ``held`` give the same answer in every process. Each key stays with
    its holder as far as the loads allow. A view of the holders that shows some moves already made
    and others not gives the same answer as the view before the moves.

    Args:
        members: the members, in any order.
        keys: the keys. Make a `KeySet` once if you assign the same keys again.
        held: the holder of each key, as far as it is known: the values of the leader keys. Other
            keys, and holders that are not members, are ignored.

    Raises:
        ConfigError: if two members have the same node id and incarnation, or a key is not allowed.
    """
    ordered = _sorted(members)
    if not isinstance(keys, KeySet):
        keys = KeySet(keys)
    if not held:
        return _assigned(ordered, keys, array("i", [_NOBODY]) * len(keys))
    numbers = _Numbers(ordered)
    numbers[""] = _NOBODY
    get = held.get
    return _assigned(ordered, keys, array("i", [numbers[get(name, "")] for name in keys.names]))


def _sorted(members: Iterable[Member]) -> tuple[Member, ...]:
    ordered = sorted(members, key=lambda member: member.holder)
    for one, other in pairwise(ordered):
        if one.holder == other.holder:
            raise ConfigError(f"two members are {one.holder!r}: their incarnations must differ")
    return tuple(ordered)


def _assigned(members: tuple[Member, ...], keys: KeySet, owners: array[int]) -> Assignment:
    """Return the assignment, given the owner of each key now. Overwrites `owners`."""
    classes, allowed = keys.classes(members)
    if not members or not len(keys):
        return Assignment(keys, members, array("i", [_NOBODY]) * len(keys), classes, allowed)
    eligible = b"".join(allowed)
    sizes = array("i", bytes(4 * len(allowed)))
    had = array("i", bytes(4 * len(eligible)))
    count_had(classes, eligible, len(members), owners, sizes, had)
    hashes = node_hashes([m.node_id.encode("utf-8", "surrogateescape") for m in members])
    shares = fair_shares(members, len(keys))
    weights = array("q", [max(member.thousandths, 1) for member in members])
    counts = array("i", bytes(4 * len(eligible)))
    settle(
        eligible,
        sizes,
        array("i", sorted(range(len(allowed)), key=lambda number: sum(allowed[number]))),
        had,
        weights,
        shares.lows,
        shares.highs,
        shares.caps,
        _ranks(members, hashes),
        counts,
    )
    place(keys.hashes, classes, sizes, hashes, weights, counts, owners)
    return Assignment(keys, members, owners, classes, allowed)


def _ranks(members: Sequence[Member], hashes: array[int]) -> array[int]:
    """Return each member's rank by its hash, so that no name is favoured."""
    ranks = array("i", bytes(4 * len(members)))
    order = sorted(range(len(members)), key=lambda number: (hashes[number], number))
    for rank, number in enumerate(order):
        ranks[number] = rank
    return ranks
