"""Fleets and keys for the tests of `multielect.balance`.

Rules of this file:
    * Examples are the same in every run, and few enough for a small machine.
    * What a test holds an answer against is worked out here again, in the plainest way.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from multielect.balance import Assignment, KeySet, Member

LABELS = "abcd"


def examples(count: int) -> settings:
    """Return settings that try so many examples."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


WEIGHTS = st.one_of(
    st.just(1.0),
    st.sampled_from([0.5, 1.0, 2.0, 4.0, 16.0]),
    st.integers(1, 1_000_000).map(lambda thousandths: thousandths / 1000),
)
KEY_COUNTS = st.sampled_from([1, 2, 3, 10, 20, 64, 100, 333, 1000])
CAPS = st.one_of(st.none(), st.integers(0, 40))
EQUAL = st.just(1.0)
NO_CAPS: st.SearchStrategy[int | None] = st.none()
NO_LABELS: st.SearchStrategy[frozenset[str]] = st.just(frozenset())
LABEL_SETS = st.frozensets(st.sampled_from(LABELS))


def keys_named(count: int) -> list[str]:
    return [f"partition-{number}" for number in range(count)]


def fleets(
    *,
    weights: st.SearchStrategy[float] = EQUAL,
    caps: st.SearchStrategy[int | None] = NO_CAPS,
    labels: st.SearchStrategy[frozenset[str]] = NO_LABELS,
    most: int = 64,
    least: int = 1,
) -> st.SearchStrategy[list[Member]]:
    """Draw members; their names are numbered, in no order that means anything."""
    member = st.tuples(weights, caps, labels)
    # The size is drawn by itself: lists alone would seldom be long.
    return (
        st.integers(least, most)
        .flatmap(lambda size: st.lists(member, min_size=size, max_size=size))
        .map(
            lambda drawn: [
                Member(f"node-{number}", "1", weight, cap, labelled)
                for number, (weight, cap, labelled) in enumerate(drawn)
            ]
        )
    )


@st.composite
def labelled_keys(draw: st.DrawFn, most: int = 200) -> KeySet:
    """Draw keys, some of which only nodes with certain labels may lead."""
    names = keys_named(draw(st.integers(1, most)))
    kinds = draw(
        st.lists(
            st.one_of(st.none(), st.frozensets(st.sampled_from(LABELS), min_size=1)),
            min_size=1,
            max_size=6,
        )
    )
    wanted = {name: kinds[number % len(kinds)] for number, name in enumerate(names)}
    return KeySet(names, {name: labels for name, labels in wanted.items() if labels is not None})


def may_lead(keys: KeySet, member: Member, key: str) -> bool:
    """Ask the keys' own words whether this member may lead this key."""
    wanted = keys.only.get(key) if isinstance(keys.only, dict) else None
    return wanted is None or bool(set(wanted) & member.labels)


def reaches(answer: Assignment, taker: Member) -> tuple[set[str], set[str]]:
    """Return who could pass a key on to `taker`, through others if need be.

    Returns:
        The holders of the members, and the keys without a member, from which a chain leads there.
    """
    keys = answer.keys_given
    reached, waiting, loose = {taker.holder}, [taker], set()
    while waiting:
        member = waiting.pop()
        for key in keys.names:
            if may_lead(keys, member, key):
                owner = answer.get(key)
                if owner is None:
                    loose.add(key)
                elif owner.holder not in reached:
                    reached.add(owner.holder)
                    waiting.append(owner)
    return reached, loose


def min_moves(before: dict[str, str], after: Assignment) -> int:
    """Return with how few moves the loads of `after` can be had, by the textbook: shortest paths.

    One key after the other goes to a place; it costs nothing where the key was, and 1 elsewhere.
    """
    keys, members = after.keys_given, after.members
    room = Counter(after.loads)
    room[""] = len(after.unassigned)
    owner: dict[str, str] = {}
    places = [*(member.holder for member in members), ""]
    allowed = {
        key: [m.holder for m in members if may_lead(keys, m, key)] + [""] for key in keys.names
    }

    def cost(key: str, place: str) -> int:
        return int(key in before and before[key] != place)

    for key in keys.names:
        distance = {place: cost(key, place) for place in allowed[key]}
        by: dict[str, tuple[str, str]] = {}
        for _ in places:
            changed = False
            for other, place in list(owner.items()):
                if place not in distance:
                    continue
                for target in allowed[other]:
                    far = distance[place] + cost(other, target) - cost(other, place)
                    if target != place and far < distance.get(target, 1 << 30):
                        distance[target], by[target] = far, (other, place)
                        changed = True
            if not changed:
                break
        end = min((p for p in distance if room[p]), key=lambda p: distance[p])
        room[end] -= 1
        while end in by:
            other, place = by[end]
            owner[other] = end
            end = place
        owner[key] = end
    return sum(cost(key, place) for key, place in owner.items())
