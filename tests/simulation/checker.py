"""Holds a story against what the design promises, after each thing that happens.

Rules of this file:
    * What it knows it knows from outside: what nodes believe and are told, and what the server
      holds, was asked and answered.
    * A promise is excused only by the faults that the design excuses it for, and no longer than
      these can reach: one TTL, as no belief lasts longer than that.
    * A term in which a node was seen to believe no more is over, whatever it is answered later.

| | invariant | excused |
| --- | --- | --- |
| I1 | at most one node believes that it leads | after loss, or the server's clock set forward |
| I2 | epochs rise in the order they were granted | after loss: see `Checker.granted` |
| I3 | a fenced register takes no lower epoch after a higher | never |
| I4 | belief ends before the key does | as I1 |
| I5 | once all is well, every election is led within a bound | never |
| I6 | each term that was told as begun is told as ended, in order | for a process that died |
| I7 | who learned of a newer epoch leads no more under the older | never |
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NoReturn

from multielect import DemotionReason, ElectionGroup, Term
from multielect._core.candidacy import BaseCandidacy
from multielect._protocol.keys import KeyLayout
from multielect.testing import Refusal, SimulatedNode, SimulatedWorld
from multielect.testing._model import Batch
from multielect.testing._resp import Reply

MS = 1_000_000
SLOWEST = 1.05
"""By how much longer than a TTL a node with a slow clock may believe."""


class BrokenPromiseError(AssertionError):
    """The world did what the design says it never does.

    Attributes:
        promise: which, as ``"I1"``; ``"failed"`` where the library itself did.
    """

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


@dataclass
class Actor:
    """One incarnation of a node, and what its callbacks were told.

    Attributes:
        number: which node of the plan it is.
        node: its process.
        group: its group.
        open_terms: the epoch of the term that it was told to have begun, of each election.
        latest: the newest epoch that it was told of.
        led: the epochs of the terms in which it was last seen to believe.
        over: the epoch of the term in which it was last seen to believe no more.
    """

    number: int
    node: SimulatedNode
    group: ElectionGroup
    open_terms: dict[str, int] = field(default_factory=dict)
    latest: dict[str, int] = field(default_factory=dict)
    led: dict[bytes, int] = field(default_factory=dict)
    over: dict[bytes, int] = field(default_factory=dict)
    candidacies: dict[tuple[int, int], BaseCandidacy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.holder = self.group.holder.encode()


@dataclass
class Checker:
    """What has been seen, and what must be so.

    Attributes:
        terms: how many terms began.
        demoted: how many ended, for each reason.
        excused: how often two believed, or belief outlasted a key, and that was excused.
        broken: the first promise that was broken.
        writes: what became of the fenced writes.
        stale: holder, key and epoch of the terms that learned of a newer epoch.
    """

    world: SimulatedWorld
    layout: KeyLayout
    keys: list[bytes]
    ttl_ms: int
    epochs: str
    actors: list[Actor] = field(default_factory=list)
    terms: int = 0
    demoted: Counter[DemotionReason] = field(default_factory=Counter)
    excused: int = 0
    broken: BrokenPromiseError | None = None
    writes: Counter[str] = field(default_factory=Counter)
    stale: set[tuple[bytes, bytes, int]] = field(default_factory=set)
    _newest: dict[bytes, int] = field(default_factory=dict)
    _owners: dict[bytes, dict[int, set[bytes]]] = field(default_factory=dict)
    _lost: set[bytes] = field(default_factory=set)
    _fallen: set[bytes] = field(default_factory=set)
    _excused_until_ns: int = 0
    _seen: dict[tuple[bytes, bytes], tuple[int, int]] = field(default_factory=dict)
    _overlapping: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._leader_keys = {key: self.layout.leader_key(key) for key in self.keys}
        self._names = {name: key for key, name in self._leader_keys.items()}
        self.world.observe = self.check
        self.world.server.model.observe = self.answered

    def broke(self, promise: str, what: str) -> NoReturn:
        """Say that a promise was broken.

        What is raised in a callback is the node's affair: so it is raised again from outside.
        """
        self.broken = self.broken or BrokenPromiseError(promise, what)
        raise self.broken

    # ---- what excuses

    def lease_may_end_early(self) -> None:
        """The server's clock was set forward, or it lost data: for a TTL, no more than I2 holds."""
        until_ns = self.world.now_ns + int(self.ttl_ms * MS * SLOWEST) + MS
        self._excused_until_ns = max(self._excused_until_ns, until_ns)

    def data_was_lost(self) -> None:
        """The server may have forgotten leases and epochs."""
        self.lease_may_end_early()
        self._lost.update(self.keys)

    def may_lead_elsewhere(self, span_ms: int) -> None:
        """For so long a node may be given leases by a server that nobody else knows."""
        until_ns = self.world.now_ns + span_ms * MS + int(self.ttl_ms * MS * SLOWEST) + MS
        self._excused_until_ns = max(self._excused_until_ns, until_ns)

    @property
    def is_excused(self) -> bool:
        """Whether I1 and I4 need not hold now."""
        return self.world.now_ns < self._excused_until_ns

    # ---- I1 and I4: belief

    def check(self) -> None:
        """See what all nodes believe now."""
        if self.broken is not None:
            raise self.broken
        believers: dict[bytes, bytes] = {}
        for actor in self.actors:
            if actor.node.is_alive:
                self._check_actor(actor, believers)
        self._overlapping.intersection_update(believers)

    def _check_actor(self, actor: Actor, believers: dict[bytes, bytes]) -> None:
        node, holder = actor.group._node, actor.holder
        led: dict[bytes, int] = {}
        for key, number, generation in node._core.elections.led(node.clock.now_ns()):
            if key in believers:
                self._overlaps(key, f"{believers[key]!r} and {holder!r} lead {key!r}")
            believers[key] = holder
            candidacy = actor.candidacies.get((number, generation))
            if candidacy is None:
                candidacy = BaseCandidacy(node.slots, node.clock, number, generation)
                actor.candidacies[number, generation] = candidacy
            led[key] = candidacy.epoch
            if actor.over.get(key) == led[key] and key not in self._fallen:
                self.broke("I1", f"{holder!r} leads {key!r} again, in a term that was over")
            if (holder, key, led[key]) in self.stale:
                self.broke("I7", f"{holder!r} leads {key!r} on under stale epoch {led[key]}")
            self._check_lease(actor, key, candidacy)
        # A term that was seen to be over is over.
        for key, epoch in actor.led.items():
            if led.get(key) != epoch:
                actor.over[key] = epoch
        actor.led = led

    def _check_lease(self, actor: Actor, key: bytes, candidacy: BaseCandidacy) -> None:
        store, holder = self.world.server.model.store, actor.holder
        stored = store.find(self._leader_keys[key])
        if stored is None or stored[0] != holder:
            self._overlaps(key, f"{holder!r} leads {key!r} without a lease", promise="I4")
            return
        deadline_ns = actor.node.clock.now_ns() + round(candidacy.remaining * 1e9)
        ends_ms = stored[1]
        if ends_ms is None or self._seen.get((key, holder)) == (deadline_ns // MS, ends_ms):
            return
        self._seen[key, holder] = (deadline_ns // MS, ends_ms)
        # Both clocks go on as they go now: what would come is known before it does.
        lasts_ns = actor.node.clock.world_ns(deadline_ns) - self.world.now_ns
        clock = self.world.server.clock
        ends_ns = clock.now_ns() + (ends_ms - store.now_ms()) * MS
        left_ns = clock.world_ns(ends_ns) - self.world.now_ns
        if lasts_ns > left_ns:
            late_ms = (lasts_ns - left_ns) / MS
            what = f"{holder!r} is to lead {key!r} for {late_ms:.3f} ms more than its lease lasts"
            self._overlaps(key, what, promise="I4")

    def _overlaps(self, key: bytes, what: str, promise: str = "I1") -> None:
        if not self.is_excused:
            self.broke(promise, what)
        if key not in self._overlapping:
            self._overlapping.add(key)
            self.excused += 1

    # ---- I2 and I3: what the server granted and took

    def answered(self, batch: Batch, reply: Reply) -> None:
        """See what the server answered."""
        if batch.request == "acquire" and isinstance(reply, list):
            for leader_key, outcome in zip(batch.keys[::2], reply[2:], strict=True):
                if isinstance(outcome, int) and outcome > 0:
                    self.granted(self._names[leader_key], outcome, batch.arguments[0])

    def answered_elsewhere(self, batch: Batch, reply: Reply) -> None:
        """See what a server answered that has lost its office: nobody else knows of it."""
        if batch.request == "acquire" and isinstance(reply, list):
            for leader_key, outcome in zip(batch.keys[::2], reply[2:], strict=True):
                if isinstance(outcome, int) and outcome > 0:
                    owners = self._owners.setdefault(self._names[leader_key], {})
                    owners.setdefault(outcome, set()).add(batch.arguments[0])

    def granted(self, key: bytes, epoch: int, holder: bytes) -> None:
        """See a grant.

        Where the counter is lost, epochs rise again once the server's clock has passed the last
        one: it runs ahead of the clock where that was set back, or two terms began in one
        millisecond. With `epochs="counter"` nothing is promised after a loss.
        """
        newest = self._newest.get(key, 0)
        if epoch <= newest:
            has_no_choice = self.epochs == "counter" or self.world.server.model.now_ms() <= newest
            if not (key in self._lost and has_no_choice):
                self.broke("I2", f"{key!r} was granted under epoch {epoch}, not above {newest}")
            self._fallen.add(key)
            # From now on terms may have the epochs of older ones.
            self.stale = {each for each in self.stale if each[1] != key or each[2] < epoch}
        self._lost.discard(key)
        self._newest[key] = epoch
        # What is remembered is bounded: a term is told soon after it was granted, or not at all.
        owners = self._owners.setdefault(key, {})
        owners.setdefault(epoch, set()).add(holder)
        if len(owners) > 200:
            del owners[next(iter(owners))]

    def written(self, before: bytes | None, epoch: int, reply: Reply) -> None:
        """See a fenced write: what the register held before, and what became of it."""
        if isinstance(reply, Refusal):
            self.writes["refused"] += 1
            return
        assert isinstance(reply, list)
        assert isinstance(reply[0], list)
        outcome = reply[0][0]
        self.writes["made" if outcome == 1 else "stale" if outcome == 0 else "failed"] += 1
        if outcome == 1 and before is not None and int(before) > epoch:
            self.broke("I3", f"epoch {epoch} wrote over epoch {int(before)}")

    # ---- I5

    def all_is_led(self) -> None:
        """See that each election that somebody stands for is led by one node."""
        for key in self.keys:
            leaders = [
                actor.group.holder
                for actor in self.actors
                if actor.node.is_alive and key in actor.group and actor.group[key].is_leader
            ]
            if len(leaders) != 1:
                self.broke("I5", f"{key!r} is led by {leaders or 'nobody'}")

    # ---- I6: what callbacks are told

    def began(self, actor: Actor, term: Term) -> None:
        """See that a term was told as begun."""
        self.terms += 1
        key, epoch = term.key, term.epoch
        if key in actor.open_terms:
            self.broke("I6", f"{key!r}: epoch {epoch} began before {actor.open_terms[key]} ended")
        if epoch <= actor.latest.get(key, 0) and key.encode() not in self._fallen:
            self.broke("I2", f"{key!r}: a term began under old epoch {epoch}")
        owners = self._owners.get(key.encode(), {}).get(epoch, set())
        if owners and actor.holder not in owners:
            self.broke("I2", f"{key!r}: epoch {epoch} is of {owners}")
        actor.open_terms[key] = actor.latest[key] = epoch

    def drains(self, actor: Actor, term: Term) -> None:
        """See that a term was told as draining."""
        if actor.open_terms.get(term.key) != term.epoch:
            self.broke("I6", f"{term.key!r}: epoch {term.epoch} drains, but is not")

    def ended(self, actor: Actor, term: Term, reason: DemotionReason) -> None:
        """See that a term was told as ended."""
        self.demoted[reason] += 1
        key = term.key.encode()
        if actor.open_terms.pop(term.key, None) != term.epoch:
            self.broke("I6", f"{term.key!r}: epoch {term.epoch} ended, which had not begun")
        # Where epochs fell, a newer term may have the same.
        if term.is_leader and key not in self._fallen:
            self.broke("I6", f"{term.key!r}: epoch {term.epoch} ended, and leads")

    def over(self, actor: Actor) -> None:
        """See that all terms of a group that has stopped were told as ended."""
        if actor.open_terms:
            self.broke("I6", f"never told as ended: {actor.open_terms}")
