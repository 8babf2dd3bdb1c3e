"""The program of a node: stands for many elections, writes under their epochs, and misbehaves.

    python -m tests.faults.node SPEC        # SPEC: a `NodeSpec` as JSON

Rules of this file:
    * The node writes its beliefs only to its journal. Callbacks write to it before they misbehave.
      The sampler trusts only `is_leader`.
    * The node writes under its newest terms and the terms before them, whether it leads or not. So
      the fence always has writes to refuse.
    * The node carries out one line of its standard input after another: see `_ORDERS`. It ends with
      its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import random
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.faults.journal import Journal
from tests.integration.candidate import others_behind, tell

from multielect import DemotionReason, Election, ElectionGroup, MultielectError, Term
from multielect._runtime.clock import Clock
from multielect.errors import ConfigError
from multielect.fencing import Fence, FencedScript, Write

PREFIX = "faults"
REGISTER = f"{PREFIX}-register"
APPEND = FencedScript("return redis.call('RPUSH', KEYS[1], ARGV[1])")

LOOK_S = 0.001
ELECTIONS_A_LOOK = 64
WRITE_S = 0.04
WRITES_A_PASS = 4
MAX_BLOCK_S = 30.0

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class NodeSpec:
    """The settings of a node.

    Attributes:
        url: the URL of its wire to the server.
        node_id: its name.
        elections: the number of elections.
        ttl_s: the TTL of the leases, in seconds.
        balance: whether the nodes share the elections out among themselves.
        journal: the file for its beliefs.
        records: the capacity of the journal.
        parent: the id of the process with which it ends.
    """

    url: str
    node_id: str
    elections: int
    ttl_s: float
    balance: bool
    journal: str
    records: int
    parent: int


class Sampler:
    """Reads `is_leader` of some elections at a time, from outside the callbacks."""

    def __init__(
        self, journal: Journal, now_ns: Callable[[], int], watched: list[Election]
    ) -> None:
        self.watched = watched
        self._journal = journal
        self._now_ns = now_ns
        self._looking = threading.Lock()

    def run(self, ending: threading.Event) -> None:
        """Look until `ending` is set, and then once more."""
        while not ending.is_set():
            for first in range(0, len(self.watched), ELECTIONS_A_LOOK):
                self._look(first, first + ELECTIONS_A_LOOK)
                if ending.wait(LOOK_S):
                    break
        self.look_at_all()
        for number in range(len(self.watched)):
            self._journal.sees_not(number)

    def look_at_all(self) -> None:
        """Look at every election once."""
        self._look(0, len(self.watched))

    def _look(self, first: int, after: int) -> None:
        with self._looking:
            before_ns = self._now_ns()
            for number in range(first, min(after, len(self.watched))):
                election = self.watched[number]
                epoch = election.epoch
                leads = election.is_leader
                after_ns = self._now_ns()
                if not leads:
                    self._journal.sees_not(number)
                elif election.epoch == epoch:
                    self._journal.sees(number, epoch, before_ns=before_ns, after_ns=after_ns)
                before_ns = after_ns


class Writes:
    """Writes to the register under this node's newest term and the one before."""

    def __init__(self, spec: NodeSpec, group: ElectionGroup, now_ns: Callable[[], int]) -> None:
        self._terms: dict[int, list[Term]] = {}
        self._random = random.Random(spec.node_id)
        self._holder = group.holder
        self._now_ns = now_ns
        self._client = redis.Redis.from_url(
            spec.url,
            socket_timeout=spec.ttl_s,
            socket_connect_timeout=spec.ttl_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._fence = Fence(self._client, group, raise_stale=False)

    def elected(self, number: int, term: Term) -> None:
        """Write under this term too from now on."""
        self._terms[number] = [*self._terms.get(number, []), term][-2:]

    def run(self, ending: threading.Event) -> None:
        """Write a few at a time, until the end."""
        while not ending.wait(WRITE_S):
            numbers = list(self._terms)
            some = self._random.sample(numbers, min(WRITES_A_PASS, len(numbers)))
            writes = [self._write(one, term) for one in some for term in self._terms[one]]
            # A write that fails or is refused is not repeated. Another one follows soon.
            with contextlib.suppress(redis.RedisError, ConfigError):
                self._fence.write_many(writes)

    def _write(self, number: int, term: Term) -> Write:
        entry = f"{number} {term.epoch} {self._now_ns()} {self._holder}"
        return Write.run(term, APPEND, [REGISTER], [entry])


class Node:
    """A group, its callbacks, and the orders of the parent."""

    def __init__(self, spec: NodeSpec) -> None:
        self._spec = spec
        self._now_ns = Clock().now_ns
        self._journal = Journal(Path(spec.journal), elections=spec.elections, records=spec.records)
        self._numbers = {key_of(number): number for number in range(spec.elections)}
        self._group = ElectionGroup(
            spec.url,
            prefix=PREFIX,
            ttl=spec.ttl_s,
            node_id=spec.node_id,
            balance=spec.balance,
            on_elected=self._elected,
            on_demoted=self._demoted,
            on_error=self._failed,
        )
        self._group.add_many(self._numbers)
        self._sampler = Sampler(
            self._journal, self._now_ns, [self._group[key] for key in self._numbers]
        )
        self._writes = Writes(spec, self._group, self._now_ns)
        self._misbehaves: Callable[[Term], None] = lambda _: None
        self._unblocked = threading.Event()
        self._ending = threading.Event()
        self._errors = 0

    def run(self) -> None:
        """Stand for all elections until the order to stop, or the end of the input."""
        threads = [
            threading.Thread(target=work, args=(self._ending,), daemon=True)
            for work in (self._sampler.run, self._writes.run)
        ]
        for thread in threads:
            thread.start()
        self._group.start()
        tell("started", holder=self._group.holder)
        for number, line in enumerate(sys.stdin, 1):
            order, *arguments = line.split()
            if order == "stop":
                break
            _ORDERS[order](self, *arguments)
            tell("obeyed", number=number)
        else:
            # The rig is gone, so no other node waits for the leases.
            os._exit(1)
        self._unblocked.set()
        self._group.stop()
        self._ending.set()
        for thread in threads:
            thread.join()
        tell("stopped", errors=self._errors)

    # ---- callbacks

    def _elected(self, term: Term) -> None:
        number = self._numbers[term.key]
        assert term.began_ns is not None
        self._journal.elected(number, term.epoch, began_ns=term.began_ns, told_ns=self._now_ns())
        self._writes.elected(number, term)
        self._misbehaves(term)

    def _demoted(self, term: Term, reason: DemotionReason) -> None:
        assert term.ended_ns is not None
        self._journal.demoted(
            self._numbers[term.key],
            term.epoch,
            reason,
            ended_ns=term.ended_ns,
            told_ns=self._now_ns(),
        )
        self._misbehaves(term)

    def _failed(self, _error: MultielectError) -> None:
        self._errors += 1

    # ---- orders

    def _freeze(self) -> None:
        with others_behind():
            signal.raise_signal(signal.SIGSTOP)
            self._sampler.look_at_all()

    def _resign(self, *numbers: str) -> None:
        for number in numbers:
            self._sampler.watched[int(number)].resign()

    def _campaign(self, *numbers: str) -> None:
        for number in numbers:
            self._sampler.watched[int(number)].campaign()

    def _block(self) -> None:
        self._unblocked.clear()
        self._misbehaves = lambda _: self._wait_unblocked()

    def _wait_unblocked(self) -> None:
        self._unblocked.wait(MAX_BLOCK_S)

    def _raise(self) -> None:
        def fail(term: Term) -> None:
            raise LookupError(f"a planted error in a callback of {term.key}")

        self._misbehaves = fail

    def _reenter(self) -> None:
        resigned: set[str] = set()

        def reenter(term: Term) -> None:
            number = self._numbers[term.key]
            if term.reason is None:
                if term.key not in resigned:
                    resigned.add(term.key)
                    term.resign()
                return
            if term.reason is DemotionReason.RESIGNED and number % 2:
                self._group.remove(term.key)
                self._sampler.watched[number] = self._group.add(term.key)
            self._group[term.key].campaign()
            assert len(self._group.led) <= self._spec.elections

        self._misbehaves = reenter

    def _behave(self) -> None:
        self._misbehaves = lambda _: None
        self._unblocked.set()

    def _keep_gil(self, seconds: str) -> None:
        ctypes.PyDLL(None).usleep(round(float(seconds) * 1e6))

    def _fork(self, journal: str, seconds: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child:
            threading.Thread(target=os.waitpid, args=(child, 0), daemon=True).start()
            return
        try:
            # The parent's journal is shared memory, so the child writes to its own journal.
            signal.alarm(round(float(seconds)) + 10)
            sampler = Sampler(
                Journal(Path(journal), elections=self._spec.elections, records=100_000),
                self._now_ns,
                self._sampler.watched,
            )
            ending = threading.Event()
            threading.Timer(float(seconds), ending.set).start()
            sampler.run(ending)
        finally:
            os._exit(0)


_ORDERS: dict[str, Callable[..., None]] = {
    "freeze": Node._freeze,
    "resign": Node._resign,
    "campaign": Node._campaign,
    "block": Node._block,
    "raise": Node._raise,
    "reenter": Node._reenter,
    "behave": Node._behave,
    "keep_gil": Node._keep_gil,
    "fork": Node._fork,
}


def key_of(number: int) -> str:
    """Return the key of an election."""
    return f"k{number}"


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    """Be a node."""
    spec = NodeSpec(**json.loads(sys.argv[1]))
    _die_with(spec.parent)
    # The exit status shows a crash. Core files of all kills would fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.basicConfig(filename=spec.journal + ".log", format="%(asctime)s %(message)s")
    Node(spec).run()


if __name__ == "__main__":
    main()
