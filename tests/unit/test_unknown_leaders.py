"""Who is reported as an unknown leader, and who is not."""

from __future__ import annotations

from multielect._fleet.unknown_leaders import OtherLeader, UnknownLeaders, warning_about

TTL = 1_000
MEMBERS = frozenset({b"member/1", b"member/2"})


class Watch:
    """Looks once a TTL, while the server goes on naming whoever is there."""

    def __init__(self) -> None:
        self.unknown_leaders = UnknownLeaders(TTL)
        self.now = 50_000
        self.named = 0
        self.told: list[str] = []

    def look(self, *holders: bytes, members: frozenset[bytes] = MEMBERS, named: int = 3) -> None:
        self.now += TTL
        self.named += named
        leaders = [OtherLeader(holder, self.named, 2) for holder in holders]
        found = self.unknown_leaders.look(leaders, members, self.now)
        self.told += [leader.holder.decode() for leader in found]


def test_an_unknown_leader_is_reported_once_and_after_a_dead_nodes_leases_would_have_ended() -> (
    None
):
    watch = Watch()
    for _ in range(3):
        watch.look(b"other/1")
    assert watch.told == []
    for _ in range(20):
        watch.look(b"other/1")
    assert watch.told == ["other/1"]


def test_a_member_is_no_unknown_leader() -> None:
    watch = Watch()
    for _ in range(10):
        watch.look(b"member/1", b"member/2")
    assert watch.told == []


def test_a_member_that_is_heard_of_late_is_no_unknown_leader() -> None:
    watch = Watch()
    for _ in range(2):
        watch.look(b"late/1")
    for _ in range(10):
        watch.look(b"late/1", members=MEMBERS | {b"late/1"})
    assert watch.told == []


def test_whoever_left_or_died_a_moment_ago_is_no_unknown_leader() -> None:
    watch = Watch()
    for round_ in range(10):
        gone = b"gone/%d" % round_
        watch.look(gone)
        watch.look(gone)
        watch.look()
    assert watch.told == []


def test_whoever_the_server_names_no_more_is_no_unknown_leader() -> None:
    # As where it refuses every acquire: the last answer was long ago.
    watch = Watch()
    for _ in range(10):
        watch.look(b"gone/1", named=0)
    assert watch.told == []


def test_a_look_that_comes_late_begins_anew() -> None:
    watch = Watch()
    for _ in range(2):
        watch.look(b"other/1")
    watch.now += 100 * TTL  # this machine was suspended
    for _ in range(3):
        watch.look(b"other/1")
    assert watch.told == []
    watch.look(b"other/1")
    assert watch.told == ["other/1"]


def test_what_was_seen_is_forgotten_where_members_may_have_come_unheard() -> None:
    watch = Watch()
    for _ in range(3):
        watch.look(b"other/1")
    watch.unknown_leaders.forget()
    watch.look(b"other/1")
    assert watch.told == []


def test_one_that_comes_later_is_told_of_with_those_that_are_still_there() -> None:
    watch = Watch()
    for _ in range(10):
        watch.look(b"other/1")
    for _ in range(10):
        watch.look(b"other/1", b"other/2")
    assert watch.told == ["other/1", "other/1", "other/2"]


def test_one_that_went_and_came_back_is_told_of_again() -> None:
    watch = Watch()
    for _ in range(5):
        watch.look(b"other/1")
    watch.look()
    for _ in range(5):
        watch.look(b"other/1")
    assert watch.told == ["other/1", "other/1"]


def test_the_message_names_some_counts_all_and_says_what_to_do() -> None:
    few = warning_about([OtherLeader(b"a/1", 9, 5), OtherLeader(b"b/2", 9, 1)])
    assert few.startswith(
        "6 election(s) of this node are led by nodes that are no members of its fleet"
    )
    assert "'a/1' (5), 'b/2' (1)." in few
    assert "balance=True" in few
    many = warning_about([OtherLeader(b"n%d/1" % number, 9, 1) for number in range(9)])
    assert "'n0/1' (1), 'n1/1' (1), 'n2/1' (1), 6 more." in many
