"""The flow decides the same for threads and for asyncio; here it is asked without either.

Each test plays the shell: it makes the requests, runs the handler and answers the commits.
"""

from __future__ import annotations

import random

import pytest

from multielect import ConfigError
from multielect.fencing import FencedScript, Write, Writer
from multielect.streams._entries import Entry
from multielect.streams._flow import TROUBLE_MAX_S, Flow, Writes
from multielect.streams._intake import POLL_S
from multielect.streams._reading import Ask, Work
from multielect.streams._settings import FlowSettings

COMMIT = Write.run(Writer(key="p", epoch=1), FencedScript("return 1"))


class Term:
    """A term that goes on until the test ends it."""

    def __init__(self, key: str, epoch: int = 1) -> None:
        self.key = key
        self.epoch = epoch
        self.is_leader = True
        self.heartbeats = 0

    def heartbeat(self) -> None:
        self.heartbeats += 1

    def finish_drain(self) -> bool:
        return True

    def learn_epoch(self, newest_epoch: int) -> bool:
        self.is_leader = False
        return newest_epoch > self.epoch


def entries(first: int, last: int) -> list[Entry]:
    return [Entry(f"{number}-0", [b"n", b"%d" % number]) for number in range(first, last + 1)]


class Shell:
    """One flow over streams whose entries are numbered from 1 on."""

    def __init__(self, *keys: str, lengths: int = 0, **settings: object) -> None:
        self.flow = Flow(FlowSettings(**settings), random.Random(1))  # type: ignore[arg-type]
        self.lengths = dict.fromkeys(keys, lengths)
        self.now_s = 0.0
        for key in keys:
            self.flow.add(key, key.encode())

    def lead(self, *keys: str, epoch: int = 1, checkpoint: str = "0-0") -> list[Term]:
        terms = [Term(key, epoch) for key in keys]
        for term in terms:
            self.flow.elected(term)
        for reading in self.writes().claims:
            self.flow.claimed(reading, checkpoint)
        return terms

    def writes(self) -> Writes:
        return self.flow.take_writes() or Writes([], [], [])

    def take_fetch(self, now_s: float | None = None) -> Ask | None:
        self.flow.tick(self.now_s if now_s is None else now_s)
        return self.flow.take_fetch()

    def answer(self, ask: Ask) -> None:
        found = {}
        for reading, position in zip(ask.readings, ask.positions, strict=True):
            after = int(position.split("-")[0])
            last = min(after + ask.count, self.lengths[reading.partition.key])
            if last > after:
                found[reading.partition.stream] = entries(after + 1, last)
        self.flow.fetched(ask, found, self.now_s)

    def fetch(self) -> list[Ask]:
        asks = []
        while (ask := self.take_fetch()) is not None:
            asks.append(ask)
            self.answer(ask)
        return asks

    def work(self) -> Work:
        work = self.flow.take_work()
        assert work is not None
        return work

    def pass_time(self) -> None:
        due_s = self.flow.next_due_s()
        assert due_s is not None
        self.now_s = max(self.now_s, due_s)
        self.flow.tick(self.now_s)


def ids(work: Work) -> list[int]:
    return [int(entry.id.split("-")[0]) for entry in work.entries]


def handle_all(shell: Shell) -> list[int]:
    """Handle and commit what there is; returns the numbers in the order of handling."""
    handled: list[int] = []
    while True:
        shell.fetch()
        work = shell.flow.take_work()
        if work is None:
            return handled
        handled += ids(work)
        shell.flow.handled(work, COMMIT)
        (same,) = shell.writes().commits
        shell.flow.committed(same)


def test_all_is_handled_in_order() -> None:
    shell = Shell("p", lengths=250, batch=10)
    shell.lead("p")
    assert handle_all(shell) == list(range(1, 251))
    assert shell.flow.in_hand == 0
    assert shell.flow.is_at_rest
    assert shell.flow.tally.handled == 250


def test_a_new_term_goes_on_at_the_checkpoint() -> None:
    shell = Shell("p", lengths=30, batch=10)
    shell.lead("p", checkpoint="20-0")
    assert handle_all(shell) == list(range(21, 31))


def test_of_a_partition_one_batch_at_a_time_is_at_the_handler() -> None:
    shell = Shell("p", "q", lengths=30, batch=10)
    shell.lead("p", "q")
    shell.fetch()
    first, second = shell.work(), shell.work()
    assert {first.reading.partition.key, second.reading.partition.key} == {"p", "q"}
    assert shell.flow.take_work() is None
    shell.flow.handled(first, COMMIT)
    assert shell.flow.take_work() is None, "its commit is not answered yet"
    shell.flow.committed(shell.writes().commits[0])
    assert shell.work().reading is first.reading


def test_a_new_term_waits_for_the_handler_of_the_old() -> None:
    shell = Shell("p", lengths=5, batch=10)
    (old,) = shell.lead("p")
    shell.fetch()
    work = shell.work()
    old.is_leader = False
    shell.flow.demoted(old)
    shell.lead("p", epoch=2)
    shell.fetch()
    assert shell.flow.take_work() is None
    shell.flow.handled(work, COMMIT)
    shell.flow.refused(shell.writes().commits[0])
    again = shell.work()
    assert again.reading.term.epoch == 2
    assert ids(again) == [1, 2, 3, 4, 5]


def test_a_term_that_ended_is_given_no_more_work() -> None:
    shell = Shell("p", lengths=5)
    (term,) = shell.lead("p")
    shell.fetch()
    term.is_leader = False
    assert shell.flow.take_work() is None


@pytest.mark.parametrize("most", [1, 7, 64, 1000])
def test_no_more_is_in_hand_than_was_allowed(most: int) -> None:
    keys = [f"p{number}" for number in range(20)]
    batch = min(10, most)
    shell = Shell(*keys, lengths=1000, batch=batch, max_in_hand=most, readers=2)
    shell.lead(*keys)
    for _ in range(50):
        asks = []
        while (ask := shell.take_fetch() or shell.flow.take_watch()) is not None:
            asks.append(ask)
        assert shell.flow.in_hand + sum(ask.reserved for ask in asks) <= most
        for ask in asks:
            shell.answer(ask)
        assert shell.flow.in_hand <= most
        for partition in shell.flow.partitions.values():
            assert partition.reading is not None
            assert partition.reading.held <= 2 * batch
        work = shell.flow.take_work()
        if work is not None:
            shell.flow.handled(work, COMMIT)
            shell.flow.committed(shell.writes().commits[0])
    assert shell.flow.tally.handled > 0


def test_what_was_not_answered_gives_its_room_back() -> None:
    shell = Shell("p", lengths=10, batch=10, max_in_hand=10)
    shell.lead("p")
    for _ in range(3):
        ask = shell.take_fetch()
        assert ask is not None
        assert shell.take_fetch() is None
        shell.flow.unread(ask, shell.now_s)
    assert handle_all(shell) == list(range(1, 11))


def test_a_stream_that_is_caught_up_is_waited_for_or_asked_now_and_then() -> None:
    shell = Shell("p")
    shell.lead("p")
    shell.fetch()
    assert shell.take_fetch(POLL_S / 2) is None
    shell.now_s = POLL_S
    assert len(shell.fetch()) == 1
    watch = shell.flow.take_watch()
    assert watch is not None
    assert watch.is_watch
    assert shell.take_fetch(1e9) is None, "a request for it is on its way"


def test_a_batch_that_fails_is_tried_again_entry_by_entry() -> None:
    shell = Shell("p", lengths=6, batch=4, attempts=3)
    shell.lead("p")
    shell.fetch()
    assert shell.flow.failed(shell.work(), ValueError("one of them"), shell.now_s) == "retry"
    assert shell.flow.in_hand == 0, "what waits for another attempt takes no room"
    shell.fetch()
    assert shell.flow.take_work() is None, "not before the pause is over"
    shell.pass_time()
    assert handle_all(shell) == [1, 2, 3, 4, 5, 6]
    assert shell.flow.tally.batches == 5, "what follows is handled together again"


def test_an_entry_that_fails_for_good_is_set_aside_and_the_next_goes_on() -> None:
    shell = Shell("p", lengths=2, batch=1, attempts=3)
    shell.lead("p")
    pauses: list[float] = []
    outcome = "none yet"
    for attempt in (1, 2, 3):
        shell.fetch()
        work = shell.work()
        assert ids(work) == [1]
        assert work.attempt == attempt
        began_s = shell.now_s
        outcome = shell.flow.failed(work, ValueError("bad"), shell.now_s)
        if attempt < 3:
            assert outcome == "retry"
            shell.pass_time()
            pauses.append(shell.now_s - began_s)
    assert outcome == "dead-letter"
    assert 0.05 <= pauses[0] <= 0.1 <= pauses[1] <= 0.2
    (aside,) = shell.writes().commits
    assert isinstance(aside.cause, ValueError)
    shell.flow.committed(aside)
    assert shell.flow.tally.dead_letters == 1
    assert handle_all(shell) == [2]


def test_a_halted_partition_goes_on_when_told() -> None:
    shell = Shell("p", lengths=3, batch=1, attempts=1, on_failure="halt")
    shell.lead("p")
    shell.fetch()
    assert shell.flow.failed(shell.work(), ValueError("bad"), shell.now_s) == "halt"
    shell.now_s += 1e6
    shell.flow.tick(shell.now_s)
    assert handle_all(shell) == []
    assert shell.flow.resume("p")
    assert not shell.flow.resume("p")
    (reading,) = shell.writes().claims
    shell.flow.claimed(reading, "0-0")
    assert handle_all(shell) == [1, 2, 3]


def test_a_drain_waits_for_the_batch_at_work_and_for_nothing_else() -> None:
    shell = Shell("busy", "idle", lengths=30, batch=10)
    busy, idle = shell.lead("busy", "idle")
    shell.lengths["idle"] = 0
    shell.fetch()
    work = shell.work()
    shell.flow.draining(idle)
    shell.flow.draining(busy)
    assert shell.writes().handed_over == [idle]
    shell.flow.handled(work, COMMIT)
    shell.flow.committed(shell.writes().commits[0])
    assert shell.writes().handed_over == [busy]
    assert shell.flow.take_work() is None
    assert shell.flow.in_hand == 0


def test_a_commit_without_an_answer_is_made_again() -> None:
    shell = Shell("p", lengths=5)
    shell.lead("p")
    shell.fetch()
    work = shell.work()
    shell.flow.handled(work, COMMIT)
    (sent,) = shell.writes().commits
    shell.flow.not_committed(sent, shell.now_s)
    assert not shell.writes().commits
    shell.now_s = 1.0
    shell.flow.tick(shell.now_s)
    assert shell.writes().commits == [work]


def test_a_commit_without_an_answer_of_a_term_that_ended_is_dropped() -> None:
    shell = Shell("p", lengths=5)
    (term,) = shell.lead("p")
    shell.fetch()
    shell.flow.handled(shell.work(), COMMIT)
    (sent,) = shell.writes().commits
    shell.flow.demoted(term)
    shell.flow.not_committed(sent, shell.now_s)
    assert shell.flow.is_at_rest
    assert shell.flow.in_hand == 0
    assert shell.flow.tally.dropped == 1


def test_a_checkpoint_that_others_moved_is_read_again() -> None:
    shell = Shell("p", lengths=5)
    shell.lead("p")
    shell.fetch()
    shell.flow.handled(shell.work(), COMMIT)
    shell.flow.moved(shell.writes().commits[0])
    (reading,) = shell.writes().claims
    shell.flow.claimed(reading, "3-0")
    assert handle_all(shell) == [4, 5]


def test_one_stream_that_cannot_be_read_keeps_none_of_the_others_back() -> None:
    keys = [f"p{number}" for number in range(9)]
    shell = Shell(*keys, lengths=3)
    shell.lead(*keys)

    def read(ask: Ask) -> None:
        if b"p5" not in ask.streams:
            shell.answer(ask)
        elif len(ask.readings) == 1:
            shell.flow.unreadable(ask, shell.now_s)
        else:
            for half in shell.flow.split(ask):
                read(half)

    ask = shell.take_fetch()
    assert ask is not None
    read(ask)
    read_keys = {shell.work().reading.partition.key for _ in range(8)}
    assert read_keys == set(keys) - {"p5"}
    assert shell.flow.take_work() is None


def test_the_watchdog_is_told_of_all_but_those_at_the_handler() -> None:
    shell = Shell("busy", lengths=5)
    (busy,) = shell.lead("busy")
    shell.flow.send_heartbeats(shell.now_s, 10.0)
    shell.fetch()
    work = shell.work()
    shell.flow.send_heartbeats(shell.now_s, 10.0)
    assert busy.heartbeats == 1
    shell.flow.handled(work, COMMIT)
    shell.flow.send_heartbeats(shell.now_s, 10.0)
    assert busy.heartbeats == 2


def test_a_partition_that_comes_back_waits_for_the_handler_of_before() -> None:
    shell = Shell("p", lengths=5)
    shell.lead("p")
    shell.fetch()
    work = shell.work()
    shell.flow.remove("p")
    assert shell.flow.add("p", b"p")
    shell.lead("p", epoch=2)
    shell.fetch()
    assert shell.flow.take_work() is None
    shell.flow.handled(work, COMMIT)
    shell.flow.refused(shell.writes().commits[0])
    assert shell.work().reading.term.epoch == 2


def test_one_stream_is_of_one_partition() -> None:
    shell = Shell("p")
    assert not shell.flow.add("p", b"p")
    with pytest.raises(ConfigError, match="already"):
        shell.flow.add("p", b"other")
    with pytest.raises(ConfigError, match="already"):
        shell.flow.add("other", b"p")


def test_a_drain_does_not_wait_for_the_pause_of_a_commit() -> None:
    shell = Shell("p", lengths=5)
    (term,) = shell.lead("p")
    shell.fetch()
    work = shell.work()
    shell.flow.handled(work, COMMIT)
    shell.flow.not_committed(shell.writes().commits[0], shell.now_s)
    assert not shell.writes().commits
    shell.flow.draining(term)
    due = shell.writes()
    assert due.commits == [work]
    assert due.handed_over == []
    shell.flow.committed(work)
    assert shell.writes().handed_over == [term]
    shell.now_s = 1e6
    shell.flow.tick(shell.now_s)
    assert shell.flow.take_writes() is None, "the pause that it did not wait for is over"


def test_a_commit_stands_back_for_no_longer_than_its_own_bound() -> None:
    shell = Shell("p", lengths=5, retry_base_s=1e4, retry_max_s=1e5)
    shell.lead("p")
    shell.fetch()
    shell.flow.handled(shell.work(), COMMIT)
    for _ in range(50):
        (work,) = shell.writes().commits
        shell.flow.not_committed(work, shell.now_s)
        shell.now_s += TROUBLE_MAX_S
        shell.flow.tick(shell.now_s)


def test_what_became_of_a_key_before_it_was_removed_ends_no_newer_term() -> None:
    shell = Shell("p", lengths=5)
    old = Term("p", epoch=1)
    shell.flow.remove("p")
    shell.flow.add("p", b"p")
    shell.lead("p", epoch=2)
    shell.flow.elected(old)
    shell.flow.demoted(old)
    shell.flow.draining(old)
    assert handle_all(shell) == [1, 2, 3, 4, 5]


def test_a_partition_that_is_removed_while_it_drains_is_not_handed_over_twice() -> None:
    shell = Shell("p", lengths=5)
    (term,) = shell.lead("p")
    shell.fetch()
    work = shell.work()
    shell.flow.draining(term)
    shell.flow.remove("p")
    shell.flow.handled(work, COMMIT)
    due = shell.writes()
    assert due.commits == [work]
    assert due.handed_over == []
    shell.flow.committed(work)
    assert shell.flow.take_writes() is None
    assert shell.flow.is_at_rest


def test_the_watchdog_is_not_told_of_those_that_wait_for_handlers_which_are_stuck() -> None:
    shell = Shell("stuck", "waits", "idle", lengths=5)
    _, waits, idle = shell.lead("stuck", "waits", "idle")
    shell.lengths["idle"] = 0
    shell.fetch()
    work = shell.work()
    assert work.reading.partition.key == "stuck"
    shell.flow.send_heartbeats(0.0, 10.0)
    shell.flow.send_heartbeats(5.0, 10.0)
    assert (waits.heartbeats, idle.heartbeats) == (2, 2)
    shell.flow.send_heartbeats(10.0, 10.0)
    assert (waits.heartbeats, idle.heartbeats) == (2, 3), "no handler has returned for ten seconds"
    shell.flow.handled(work, COMMIT)
    shell.flow.send_heartbeats(15.0, 10.0)
    assert (waits.heartbeats, idle.heartbeats) == (3, 4)
