"""The checker is checked: what is planted is found, and what is allowed is not.

Rules of this file:
    * A past is planted as it would be told: journals in files, lines of MONITOR, entries of the
      register. Each invariant is broken alone, in a past that is sound but for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from multielect import DemotionReason

from .checker import SERVER_LOST_DATA, Checker, Entry, Excuse, Findings, Heal, gaps_ms
from .journal import History, Journal, JournalFullError
from .ledger import Ledger

MS = 1_000_000
TTL = 500
ELECTIONS = 3
A, B = "node-a/1", "node-b/1"
EXPIRED = DemotionReason.EXPIRED


@dataclass
class Past:
    """What is planted, with times in ms."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    entries: list[Entry | None] = field(default_factory=list)
    heals: list[Heal] = field(default_factory=list)
    excuses: list[Excuse] = field(default_factory=list)
    ledger: Ledger = field(default_factory=lambda: Ledger(prefix="p", elections=ELECTIONS))
    histories: dict[str, History] = field(default_factory=dict)
    journals: dict[str, Journal] = field(default_factory=dict)

    def node(self, holder: str, name: str | None = None) -> Journal:
        name = name or holder
        if name not in self.journals:
            path = self.folder / name.replace("/", "-")
            self.journals[name] = Journal(path, elections=ELECTIONS, records=100)
            self.histories[name] = History(path, node=name, holder=holder, elections=ELECTIONS)
        return self.journals[name]

    def server(self, at: float, *lines: str) -> None:
        """What the server ran at a time."""
        micros = round(at * 1000)
        self.lines += [
            f"{micros // 1_000_000}.{micros % 1_000_000:06} [0 lua] {line}" for line in lines
        ]

    def granted(self, at: float, holder: str, epoch: int, election: int = 0) -> None:
        self.server(
            at,
            '"TIME"',
            f'"MGET" "p:{{1}}:k{election}:leader"',
            f'"SET" "p:{{1}}:k{election}:epoch" "{epoch}" "GET"',
            f'"SET" "p:{{1}}:k{election}:leader" "{holder}" "PX" "{TTL}" "NX"',
        )

    def extended(self, at: float, election: int = 0) -> None:
        ends_ms = round(at) + TTL
        self.server(at, '"TIME"', f'"PEXPIREAT" "p:{{1}}:k{election}:leader" "{ends_ms}"')

    def deleted(self, at: float, *elections: int) -> None:
        names = " ".join(f'"p:{{1}}:k{election}:leader"' for election in elections)
        self.server(at, f'"DEL" {names}')

    def believed(
        self,
        holder: str,
        epoch: int,
        began: float,
        ended: float | None,
        election: int = 0,
    ) -> None:
        """What callbacks were told."""
        node = self.node(holder)
        node.elected(election, epoch, began_ns=round(began * MS), told_ns=round(began * MS))
        if ended is not None:
            node.demoted(
                election, epoch, EXPIRED, ended_ns=round(ended * MS), told_ns=round(ended * MS)
            )

    def seen(
        self, holder: str, epoch: int, *at: float, election: int = 0, name: str | None = None
    ) -> None:
        """What looks found, each a tenth of a ms long."""
        for look in at:
            self.node(holder, name).sees(
                election, epoch, before_ns=round(look * MS), after_ns=round((look + 0.1) * MS)
            )

    def find(self) -> Findings:
        checker = Checker(ELECTIONS)
        for excuse in self.excuses:
            checker.excuse(excuse)
        lines, self.lines = self.lines, []
        if lines:
            self.ledger.feed("\n".join(lines).encode(), lambda micros: micros * 1000)
        for history in self.histories.values():
            history.read()
        return checker.check(self.histories.values(), self.ledger, self.entries, self.heals)

    def broken(self) -> list[str]:
        return sorted(violation.invariant for violation in self.find().violations)


@pytest.fixture
def past(tmp_path: Path) -> Past:
    """A sound past: one term, extended twice, and then another's."""
    past = Past(tmp_path)
    past.granted(1000, A, 10)
    past.extended(1160)
    past.extended(1320)
    past.granted(1821, B, 1821)
    past.believed(A, 10, 1001, 1770)
    past.seen(A, 10, 1002, 1300, 1769)
    past.node(A).sees_not(0)
    past.believed(B, 1821, 1822, None)
    past.seen(B, 1821, 1823, 1900)
    past.entries = [Entry(0, 10, A), Entry(0, 10, A), Entry(0, 1821, B), Entry(1, 3, A)]
    return past


def test_a_sound_past_is_sound(past: Past) -> None:
    past.heals = [Heal(1500 * MS, 1900 * MS)]
    # The others were led all the time.
    for election in (1, 2):
        past.granted(1000, A, 10, election)
        for at in range(1100, 2500, 100):
            past.extended(at, election)
        past.believed(A, 10, 1001, None, election)
        past.seen(A, 10, 1002, 2000, election=election)
    assert past.find() == Findings([], [])


# ---- I1


def test_two_callbacks_that_overlap(past: Past) -> None:
    past.believed(A, 1800, 1830, 1850)
    assert "I1" in past.broken()


def test_looks_that_overlap(past: Past) -> None:
    # Callbacks tell of the end in time; the looks know better.
    past.seen(A, 10, 1829, 1830)
    found = past.find().violations
    assert {violation.invariant for violation in found} == {"I1", "I4"}
    overlap = next(violation for violation in found if violation.invariant == "I1")
    assert overlap.at_ns == 1822 * MS
    assert overlap.lasted_ms == 8.0
    assert A in str(overlap)
    assert B in str(overlap)


def test_a_child_that_believes_what_its_parent_does(past: Past) -> None:
    past.seen(B, 1821, 1850, 1890, name="node-b's child")
    assert past.broken() == ["I1"]


def test_beliefs_that_touch_do_not_overlap(past: Past) -> None:
    past.granted(2500, A, 2500)
    past.believed(A, 2500, 2501, 2501)
    past.granted(2502, B, 2502)
    past.node(B).demoted(0, 1821, EXPIRED, ended_ns=2270 * MS, told_ns=2270 * MS)
    past.believed(B, 2502, 2503, None)
    assert past.broken() == []


def test_one_look_alone_proves_no_time(past: Past) -> None:
    past.seen(A, 11, 1850)
    assert "I1" not in past.broken()


# ---- I2


@pytest.mark.parametrize("epoch", [1821, 1820, 10])
def test_an_epoch_that_does_not_rise(past: Past, epoch: int) -> None:
    past.granted(2400, A, epoch)
    assert past.broken() == ["I2"]


def test_an_epoch_that_was_not_granted(past: Past) -> None:
    past.node(B).demoted(0, 1821, EXPIRED, ended_ns=1950 * MS, told_ns=1950 * MS)
    past.believed(B, 1822, 1951, None)
    assert past.broken() == ["I2"]


def test_an_epoch_that_was_granted_to_another(past: Past) -> None:
    past.granted(2400, A, 2400)
    past.node(B).demoted(0, 1821, EXPIRED, ended_ns=1950 * MS, told_ns=1950 * MS)
    past.believed(B, 2400, 2401, None)
    # And the key is not in its name.
    past.seen(B, 2400, 2402, 2450)
    assert past.broken() == ["I2", "I4"]


def test_a_successors_lease_is_no_grant(past: Past) -> None:
    past.server(1950, '"TIME"', f'"SET" "p:{{1}}:k0:leader" "{A}" "PX" "{TTL}"')
    past.granted(1960, A, 1960)
    assert past.broken() == []
    assert [grant.epoch for grant in past.ledger.grants(0)] == [10, 1821, 1960]


def test_an_epoch_that_was_minted_and_refused_is_no_grant(past: Past) -> None:
    past.server(1950, '"TIME"', '"SET" "p:{1}:k0:epoch" "9007199254740991"')
    past.server(1960, '"TIME"', f'"SET" "p:{{1}}:k0:leader" "{A}" "PX" "{TTL}"')
    past.granted(2600, A, 2600)
    assert past.broken() == []


# ---- I3


def test_a_register_that_takes_a_lower_epoch(past: Past) -> None:
    past.entries += [Entry(0, 1820, A)]
    assert past.broken() == ["I3"]


def test_a_register_that_was_lost_is_another(past: Past) -> None:
    past.entries += [None, Entry(0, 10, A), Entry(0, 1821, B)]
    assert past.broken() == []


# ---- I4


def test_a_belief_that_outlasts_the_key(past: Past) -> None:
    past.seen(B, 1821, 2331)
    found = past.find().violations
    assert [violation.invariant for violation in found] == ["I4"]
    # It was granted at 1821, for a TTL.
    assert (found[0].at_ns, found[0].lasted_ms) == (2321 * MS, 10.0)


def test_a_belief_in_a_key_that_somebody_deleted(past: Past) -> None:
    past.deleted(1850, 0)
    assert past.broken() == ["I4"]


def test_a_belief_in_one_of_the_keys_that_were_deleted_at_once(past: Past) -> None:
    past.deleted(1850, 1, 0, 2)
    assert past.broken() == ["I4"]


def test_a_grant_that_a_key_of_another_type_stood_against(past: Past) -> None:
    past.granted(1850, A, 1850)
    past.server(1850, '"GET" "p:{1}:k0:leader"')
    assert past.broken() == []
    # Asked for again in another script, it says nothing of the grant before.
    past.granted(1860, A, 1860)
    past.server(1861, '"TIME"', '"GET" "p:{1}:k0:leader"')
    assert past.broken() == ["I4"]


def test_a_belief_in_a_key_that_another_took(past: Past) -> None:
    past.granted(1850, A, 1850)
    assert past.broken() == ["I4"]


def test_a_lease_that_was_extended_to_what_was_past_by_then_had_lasted_until_then(
    past: Past,
) -> None:
    past.server(1850, '"TIME"', '"PEXPIREAT" "p:{1}:k0:leader" "1400"')
    (found,) = past.find().violations
    assert (found.invariant, found.at_ns) == ("I4", 1850 * MS)


def test_a_belief_from_before_a_flush(past: Past) -> None:
    past.lines.append('1.850000 [0 unix:/server.sock] "FLUSHALL"')
    assert past.broken() == ["I4"]


def test_a_key_that_is_taken_over_by_its_holder_has_no_gap(past: Past) -> None:
    past.granted(2100, B, 2100)
    past.seen(B, 1821, 2500)
    assert past.broken() == []


def test_what_nobody_listened_to_is_not_held_against_anybody(past: Past) -> None:
    past.find()
    past.ledger.went_blind(1990 * MS, 2200 * MS, TTL * MS)
    past.seen(B, 1821, 2600)
    past.believed(A, 2650, 2651, 2652)
    assert past.broken() == []


def test_the_last_line_says_how_far_it_was_told(past: Past) -> None:
    past.server(2000.25, '"GET" "other"')
    past.find()
    assert past.ledger.read_to_ns == 2_000_250_000


# ---- I5


def test_an_election_that_is_not_led_again(past: Past) -> None:
    past.heals = [Heal(1850 * MS, 2850 * MS)]
    found = past.find().violations
    assert [(each.invariant, each.election) for each in found] == [("I5", 1), ("I5", 2)]


def test_an_election_that_is_led_again_too_late(past: Past) -> None:
    past.heals = [Heal(1771 * MS, 1821 * MS)]
    assert {(each.invariant, each.election) for each in past.find().violations} >= {("I5", 0)}
    past.heals = [Heal(1771 * MS, 1822 * MS)]
    assert {(each.invariant, each.election) for each in past.find().violations} & {
        ("I5", 0)
    } == set()


# ---- I6


def elected_twice(journal: Journal) -> None:
    journal.elected(0, 1822, began_ns=1890 * MS, told_ns=1890 * MS)


def the_same_twice(journal: Journal) -> None:
    journal.elected(0, 1821, began_ns=1822 * MS, told_ns=1890 * MS)


def ended_twice(journal: Journal) -> None:
    for _ in range(2):
        journal.demoted(0, 1821, EXPIRED, ended_ns=1890 * MS, told_ns=1890 * MS)


def ended_unbegun(journal: Journal) -> None:
    journal.demoted(1, 7, EXPIRED, ended_ns=1890 * MS, told_ns=1890 * MS)


def another_ended(journal: Journal) -> None:
    journal.demoted(0, 1820, EXPIRED, ended_ns=1890 * MS, told_ns=1890 * MS)


@pytest.mark.parametrize(
    "plant", [elected_twice, the_same_twice, ended_twice, ended_unbegun, another_ended]
)
def test_callbacks_that_are_no_pairs(past: Past, plant: Callable[[Journal], None]) -> None:
    plant(past.node(B))
    assert "I6" in past.broken()


def test_a_process_that_ended_by_itself_has_told_every_end(past: Past) -> None:
    past.find()
    past.histories[B].end(by_itself=True)
    assert past.broken() == ["I6"]


def test_a_process_that_was_killed_has_not(past: Past) -> None:
    past.find()
    past.histories[B].end(by_itself=False)
    assert past.broken() == []


# ---- excuses


@pytest.mark.parametrize(
    ("excuse", "holds"),
    [
        (Excuse("lost", SERVER_LOST_DATA, 1700 * MS, 2000 * MS), True),
        (Excuse("lost", SERVER_LOST_DATA, 1700 * MS, 2000 * MS, frozenset({0, 2})), True),
        (Excuse("another's", SERVER_LOST_DATA, 1700 * MS, 2000 * MS, frozenset({1})), False),
        (Excuse("over", SERVER_LOST_DATA, 1700 * MS, 1830 * MS), False),
        (Excuse("not yet", SERVER_LOST_DATA, 1830 * MS, 2000 * MS), False),
        (Excuse("of others", frozenset({"I2"}), 1700 * MS, 2000 * MS), False),
    ],
    ids=lambda value: value.why if isinstance(value, Excuse) else "",
)
def test_an_excuse_is_for_its_time_and_its_elections(
    past: Past, excuse: Excuse, holds: bool
) -> None:
    past.lines = past.lines[:-4]
    past.granted(1750, B, 1821)
    past.seen(A, 10, 1839, 1840)
    past.excuses = [excuse]
    found = past.find()
    assert (found.violations == []) is holds
    assert {each.invariant for each in found.excused} == ({"I1", "I4"} if holds else set())


def test_nothing_excuses_epochs_that_fall(past: Past) -> None:
    past.excuses = [Excuse("lost", SERVER_LOST_DATA, 0, 9000 * MS)]
    past.granted(2400, A, 1821)
    assert past.broken() == ["I2"]


def test_a_violation_is_reported_once(past: Past) -> None:
    past.seen(B, 1821, 2331)
    checker = Checker(ELECTIONS)
    past.ledger.feed("\n".join(past.lines).encode(), lambda micros: micros * 1000)
    for expected in (1, 0):
        past.seen(B, 1821, 2340)
        past.histories[A].read()
        past.histories[B].read()
        assert len(checker.check(past.histories.values(), past.ledger).violations) == expected


# ---- I7


def written(holder: str, epoch: int, sent: float) -> Entry:
    return Entry(0, epoch, holder, round(sent * MS))


@pytest.mark.parametrize(
    ("entry", "holds"),
    [
        pytest.param(written(B, 1821, 1850), True, id="in time"),
        pytest.param(written(B, 1821, 1899), False, id="too late"),
        pytest.param(written(A, 10, 1771), False, id="by who led before"),
        pytest.param(written(A, 1821, 1850), False, id="by another"),
        pytest.param(written(B, 1822, 1850), False, id="by another epoch"),
        pytest.param(None, False, id="lost"),
    ],
)
def test_a_leader_whose_writes_are_not_accepted(
    past: Past, entry: Entry | None, holds: bool
) -> None:
    heal = Heal(1760 * MS, 1890 * MS, accepts=True)
    past.heals = [heal]
    # What was accepted before the heal says nothing of what is after it.
    past.entries += [written(A, 10, 1759), entry]
    past.excuses = [Excuse("lost", SERVER_LOST_DATA, 0, 9000 * MS)]
    found = [each for each in past.find().violations if each.election == 0]
    assert [each.invariant for each in found if each.invariant != "I3"] == ([] if holds else ["I7"])


def test_a_leader_that_wrote_before_its_term_ended(past: Past) -> None:
    past.heals = [Heal(1760 * MS, 1890 * MS, accepts=True)]
    past.entries = [written(A, 10, 1765)]
    assert ("I7", 0) not in {(each.invariant, each.election) for each in past.find().violations}


# ---- the parts


def test_what_an_orphaned_primary_granted_makes_leaders(past: Past) -> None:
    granted, past.lines = past.lines, []
    past.granted(1830, A, 1830)
    orphan = Ledger(prefix="p", elections=ELECTIONS)
    orphan.feed("\n".join(past.lines).encode(), lambda micros: micros * 1000)
    past.lines = granted
    assert past.broken() == []
    assert [grant.epoch for grant in past.ledger.take_grants(orphan)] == [1830]
    past.believed(A, 1830, 1831, 1840)
    # It was granted, and yet the key did not hold it where it counts.
    assert past.broken() == ["I1", "I4"]


def test_a_killed_writers_last_look_counts(past: Past) -> None:
    past.find()
    past.seen(B, 1821, 1999)
    past.histories[B].end(by_itself=False)
    (term,) = (term for term in past.histories[B].terms() if term.epoch == 1821)
    assert (term.began_ns, term.ended_ns, term.is_open) == (1822 * MS, 1999 * MS, False)


def test_gaps_are_between_terms(past: Past) -> None:
    past.find()
    terms = [term for history in past.histories.values() for term in history.terms()]
    assert gaps_ms(terms, 0) == [52.0]
    assert gaps_ms(terms, 1900 * MS) == []


def test_what_is_forgotten_is_over(past: Past) -> None:
    past.find()
    past.ledger.forget(1850 * MS)
    for history in past.histories.values():
        history.forget(1850 * MS)
    assert past.histories[A].terms() == []
    assert [lease.holder for lease in past.ledger.leases(0)] == [B]
    past.granted(2400, A, 1821)
    assert past.broken() == ["I2"]


def test_a_journal_that_is_full_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", elections=1, records=1)
    journal.elected(0, 1, began_ns=1, told_ns=1)
    with pytest.raises(JournalFullError, match="more than 1 records"):
        journal.elected(0, 2, began_ns=1, told_ns=1)
