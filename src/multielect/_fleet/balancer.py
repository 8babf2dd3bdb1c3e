"""The balancer: turns the membership of the fleet into the elections that this node stands for.

Rules of this file:
    * Every member computes the same assignment from the same membership and plan, which come in one
      answer. No member commands another. If two members see different fleets for a moment, they
      contest a lease or leave it where it is.
    * The balancer has its own thread. If that is starved of the GIL, moves are late. No lease is
      lost by it, and the core polls the membership without it.
    * Once a TTL the balancer looks for nodes that lead this node's elections without being members:
      see `_fleet.unknown_leaders`.
    * If this node itself was missing from the membership, Redis may have lost all members. Then the
      balancer keeps counting the other members for a while.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from .._core.core import Core
from .._protocol.keys import KeyLayout
from .._runtime.clock import Clock
from .._runtime.interruptible import join
from .._settings.settings import BalanceSettings
from ..balance import Assignment, KeySet, Member
from ..errors import MultielectError
from .membership import (
    ENTRY_LASTS_POLLS,
    POLLS_PER_TTL,
    Entry,
    Membership,
    counted,
    describe,
    pack,
    parse,
)
from .plan import Plan, planned, succeeding
from .proposals import Proposals
from .reports import Reports
from .unknown_leaders import OtherLeader, UnknownLeaders

_MS = 1_000_000
_NS = 1_000_000_000

_SETTLE_S = 0.02
"""How long the balancer waits for more keys before it assigns new ones."""


class Balancer:
    """Keeps the elections that one node stands for in line with its fleet."""

    def __init__(
        self,
        core: Core,
        settings: BalanceSettings,
        *,
        holder: str,
        max_leases: int | None,
        ttl_ns: int,
        reconnect_ns: int,
        layout: KeyLayout,
        clock: Clock,
        on_error: Callable[[MultielectError], None],
        on_shared_out: Callable[[int, int, int], None],
        on_acted: Callable[[], None],
        wake: Callable[[], None],
        name: str,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            core: the node's core, which takes the assignment.
            settings: this node's weight, and who may lead what.
            holder: the value of this node's leases.
            max_leases: how many elections this node may lead; None for any number.
            ttl_ns: how long a lease lasts.
            reconnect_ns: how much longer than this node another node may need to connect to a
                restarted server.
            layout: the key names of the fleet.
            clock: the clock.
            on_error: takes errors, on any thread.
            on_shared_out: takes the number of members, of this node's elections and of all
                elections, when one of them has changed.
            on_acted: called each time that the balancer has acted on the newest answer.
            wake: called when the core was changed.
            name: the thread's name.
        """
        node_id, _, incarnation = holder.partition("/")
        self._core = core
        self._settings = settings
        self._me = Member(
            node_id,
            incarnation,
            weight=settings.weight,
            max_leases=max_leases,
            labels=settings.labels,
        )
        self._holder = _raw(holder)
        self._reconnect_ns = reconnect_ns
        self._period_ns = max(ttl_ns // POLLS_PER_TTL, _MS)
        self._ttl_ns = ttl_ns
        self._unknown_leaders = UnknownLeaders(ttl_ns)
        self._look_due_ns = 0
        self._heard_ns = 0
        self._layout = layout
        self._clock = clock
        self._reports = Reports(
            holder,
            calls_user=settings.only is not None,
            patience_ns=ttl_ns,
            on_error=on_error,
            on_shared_out=on_shared_out,
        )
        self._proposals = Proposals(self._period_ns)
        self._on_acted = on_acted
        self._heard = 0
        self._acted_on = 0
        self._own: tuple[Assignment, frozenset[bytes]] | None = None
        self._wake = wake
        self._changed = threading.Condition()
        self._entries: dict[str, Entry] = {}
        self._missed: dict[str, Entry] = {}
        self._missed_until_ns = 0
        self._since_ms = 0
        self._server_ahead_ms = 0
        self._malformed: frozenset[bytes] = frozenset()
        self._keys: KeySet | None = None
        self._keys_changed = True
        self._assigned: tuple[KeySet, tuple[Member, ...], Plan | None] | None = None
        self._assignment: Assignment | None = None
        self._turn = -1
        self._due_ns: int | None = None
        self._has_answer = False
        self._closed = False
        self._applying = threading.Lock()
        self._name = name
        self._thread = self._made_thread()

    def _made_thread(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=self._name, daemon=True)

    def start(self) -> None:
        """Become a member.

        Raises:
            RuntimeError: if no thread can be started.
        """
        self._thread.start()
        self.call()

    def unstart(self) -> None:
        """Undo `start`, because the node could not be started."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._closed = False
        self._thread = self._made_thread()

    def call(self) -> None:
        """Poll the membership now, and again and again."""
        with self._changed:
            self._poll()

    @property
    def members(self) -> list[Member]:
        """All members in the newest answer."""
        return [entry.member for entry in self.entries()]

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def share(self) -> frozenset[bytes] | None:
        """Return the keys that are assigned to this node.

        None while that is not known: no answer came yet, or the balancer has not acted on the
        newest answer, or the node is still in its join delay.
        """
        with self._changed:
            assignment = self._assignment
            is_known = bool(self._entries) and self._acted_on == self._heard
        if assignment is None or not is_known:
            return None
        holders = [member.holder for member in assignment.members]
        if self._me.holder not in holders:
            return None
        own = self._own
        if own is None or own[0] is not assignment:
            number = holders.index(self._me.holder)
            pairs = zip(assignment.keys_given.encoded, assignment.owners, strict=True)
            own = assignment, frozenset(raw for raw, owner in pairs if owner == number)
            self._own = own
        return own[1]

    def entries(self) -> list[Entry]:
        """Return the entries of all members in the newest answer."""
        with self._changed:
            return list(self._entries.values())

    @property
    def assignment(self) -> Assignment | None:
        """The newest assignment; None before the first."""
        return self._assignment

    # ---- any thread

    def hear(self, answer: bytes, now_ns: int) -> None:
        """Take the answer to a membership poll. The balancer's thread acts on it.

        Raises:
            ValueError: if the answer is malformed.
        """
        membership = parse(answer)
        found = {entry.member.holder: entry for entry in membership.entries}
        with self._changed:
            if not membership.was_there and self._since_ms:
                gone = self._entries.keys() - found.keys()
                self._missed |= {holder: self._entries[holder] for holder in gone}
                self._missed_until_ns = now_ns + 2 * self._period_ns + self._reconnect_ns
            for holder in self._missed.keys() & found.keys():
                del self._missed[holder]
            mine = found.get(self._me.holder)
            if mine is not None and mine.since_ms > membership.server_ms:
                # The server's clock was set back. When it has caught up, this node must not look
                # like a new member.
                self._since_ms = max(1, membership.server_ms - self._settings.join_delay_ms)
                self._poll(at_once=False)
            elif mine is not None and not self._since_ms:
                # Later polls carry this time, so a lost entry comes back with the same time.
                self._since_ms = mine.since_ms
                self._poll(at_once=False)
            self._entries = found
            self._heard_ns = now_ns
            self._take_plan(membership)
            self._server_ahead_ms = membership.server_ms - now_ns // _MS
            self._has_answer = True
            self._heard += 1
            self._changed.notify_all()
        others = [e.remaining_ms for h, e in found.items() if h != self._me.holder]
        if others:
            # A poll after an entry's end removes the entry of a silent member.
            self._core.fleet.poll_membership_by(now_ns + (min(others) + 1) * _MS)
        self._malformed = frozenset(membership.malformed)
        self._reports.malformed_entries(self._malformed)
        self._reports.blocked(now_ns)

    def on_keys_changed(self) -> None:
        """Note that elections were added or removed."""
        with self._changed:
            self._keys_changed = True
            self._heard += 1
            self._changed.notify_all()

    def retire(self) -> bool:
        """Announce that this node takes no more elections. Returns whether another member can."""
        with self._changed:
            self._me = replace(self._me, weight=0.0)
            self._poll()
            return any(
                holder != self._me.holder and entry.member.weight
                for holder, entry in self._entries.items()
            )

    def leave(self) -> None:
        """Leave the fleet, and name the successors of all elections that this node leads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._me = replace(self._me, weight=0.0)
            entries = self._entries | self._missed
            plan, assignment = self._proposals.plan, self._assignment
        server_ms = self._server_ms()
        members, _ = counted(entries.values(), server_ms)
        entries.pop(self._me.holder, None)
        others, _ = counted(entries.values(), server_ms)
        # The user's function may raise or be slow, so do not call it here.
        if others and assignment is not None and assignment.keys_given.knows(members):
            # The balancer may not have acted on the newest answer yet.
            now = planned(members, assignment.keys_given, plan)
            with self._applying:
                self._apply(succeeding(now, plan, others))
        lasts_ns = ENTRY_LASTS_POLLS * self._period_ns
        arguments = self._poll_arguments(0)
        self._core.fleet.set_membership_poll(
            *arguments, period_ns=self._period_ns, last_ns=lasts_ns
        )

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end."""
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            join(self._thread, timeout_s)

    # ---- inside

    def _poll(self, *, at_once: bool = True) -> None:
        if self._closed:
            # A late answer must not make a node a member again that has left.
            return
        arguments = self._poll_arguments(ENTRY_LASTS_POLLS * self._period_ns // _MS)
        self._core.fleet.set_membership_poll(*arguments, period_ns=self._period_ns, at_once=at_once)
        if at_once:
            self._wake()

    def _poll_arguments(self, lasts_ms: int) -> tuple[bytes, int]:
        """Return the keys and arguments of membership.lua as bytes, and how many there are."""
        arguments = (
            self._layout.members_key,
            self._layout.plan_key,
            self._holder,
            b"%d" % lasts_ms,
            b"%d" % self._since_ms,
            describe(self._me, self._settings.join_delay_ms),
            self._layout.channel,
            b"%d" % self._proposals.number,
            self._proposals.sent if lasts_ms else b"",
        )
        return pack(*arguments), len(arguments)

    def _server_ms(self) -> int:
        return self._clock.now_ns() // _MS + self._server_ahead_ms

    def _run(self) -> None:
        while self._wait():
            self.balance()

    def _wait(self) -> bool:
        with self._changed:
            while not (self._closed or self._has_answer or (self._keys_changed and self._entries)):
                left_s = None
                if self._due_ns is not None:
                    left_s = (self._due_ns - self._clock.now_ns()) / _NS
                    if left_s <= 0:
                        break
                self._changed.wait(left_s)
            if self._keys_changed and not self._has_answer:
                # More keys may follow at once.
                self._changed.wait_for(lambda: self._closed, _SETTLE_S)
            self._has_answer = False
            return not self._closed

    @property
    def due_ns(self) -> int | None:
        """When `balance` must run next, if no answer comes before."""
        return self._due_ns

    def balance(self) -> None:
        """Act on the membership. Runs on the balancer's thread."""
        with self._changed:
            heard = self._heard
            self._reports.begin(self._clock.now_ns())
        try:
            self._balance()
            self._reports.succeeded()
        # A function passed as `only` may raise anything.
        except BaseException as cause:  # noqa: BLE001
            self._reports.failed(cause)
            return
        finally:
            self._reports.end()
        with self._changed:
            self._acted_on = heard
        self._on_acted()

    def _balance(self) -> None:
        now_ns = self._clock.now_ns()
        with self._changed:
            entries = dict(self._entries)
            plan = self._proposals.plan
            if now_ns >= self._missed_until_ns:
                self._missed = {}
            entries |= self._missed
        server_ms = self._server_ms()
        members, next_ms = counted(entries.values(), server_ms)
        due_ns = [] if next_ms is None else [now_ns + (next_ms - server_ms) * _MS]
        if self._missed:
            due_ns.append(self._missed_until_ns)
        self._due_ns = min(due_ns, default=None)
        keys = self._current_keys()
        ordered = tuple(sorted(members, key=lambda member: member.holder))
        if self._assignment is None or self._assigned != (keys, ordered, plan):
            assignment = planned(ordered, keys, plan)
            with self._applying:
                if self._closed:
                    return
                self._apply(assignment)
            self._assigned = (keys, ordered, plan)
            self._assignment = assignment
            self._reports.shared_out(assignment)
        takers = {member.holder for member in ordered if member.weight}
        eldest = sorted((e.since_ms, h) for h, e in entries.items() if h in takers)
        self._propose(self._assignment, plan, [holder for _, holder in eldest], now_ns)
        self._watch(server_ms, sorted(takers))
        self._look_for_unknown_leaders(entries, now_ns)

    def _take_plan(self, membership: Membership) -> None:
        """Use the newest plan from now on. Called with the lock held."""
        try:
            is_newer = self._proposals.take(membership)
        except ValueError as cause:
            is_newer = True
            self._reports.malformed_plan(cause)
        if is_newer:
            self._poll(at_once=False)

    def _propose(
        self, assignment: Assignment, plan: Plan | None, eldest: list[str], now_ns: int
    ) -> None:
        """Send the plan that follows from the fleet, when it is this node's turn."""
        if self._me.holder not in eldest:
            return
        proposal, turn_ns = self._proposals.next(
            assignment, plan, holder=self._me.holder, eldest=eldest, now_ns=now_ns
        )
        if proposal and now_ns < turn_ns:
            self._due_ns = turn_ns if self._due_ns is None else min(self._due_ns, turn_ns)
        elif proposal != self._proposals.sent:
            with self._changed:
                self._proposals.sent = proposal
                self._poll(at_once=bool(proposal))

    def _current_keys(self) -> KeySet:
        with self._changed:
            if self._keys is not None and not self._keys_changed:
                return self._keys
            self._keys_changed = False
        keys = KeySet(self._core.elections.list_keys(), self._settings.only)
        self._keys = keys
        return keys

    def _apply(self, assignment: Assignment) -> None:
        holders = [_raw(member.holder) for member in assignment.members]
        own = holders.index(self._holder) if self._holder in holders else -1
        ineligible = assignment.ineligible(own) if own >= 0 else b"\1" * len(assignment.keys_given)
        self._core.fleet.assign(
            assignment.keys_given.encoded,
            assignment.owners,
            holders,
            own,
            ineligible,
            self._clock.now_ns(),
        )
        self._wake()

    def _look_for_unknown_leaders(self, entries: Mapping[str, Entry], now_ns: int) -> None:
        """Report nodes that lead this node's elections and are not members of the fleet."""
        if now_ns < self._look_due_ns:
            return
        self._look_due_ns = now_ns + self._ttl_ns
        if now_ns - self._heard_ns > self._ttl_ns:
            # New members may have joined since the last answer.
            self._unknown_leaders.forget()
            return
        members = {_raw(holder) for holder in entries} | self._malformed | {self._holder}
        leaders = [OtherLeader(*each) for each in self._core.fleet.other_leaders()]
        self._reports.unknown_leaders(self._unknown_leaders.look(leaders, members, now_ns))

    def _watch(self, server_ms: int, holders: list[str]) -> None:
        """Look for elections without a leader, so that each election is looked at once a TTL.

        The members take turns. In each turn every member looks at another part of the elections,
        and no two members look at the same part. A late member catches up on the turns that it
        missed, for one TTL at most.
        """
        if self._me.holder not in holders:
            return
        turn = server_ms // (self._period_ns // _MS)
        if turn == self._turn:
            return
        # The server's clock may have been set back.
        first = self._turn + 1 if self._turn < turn else turn
        self._turn = turn
        turns = POLLS_PER_TTL * len(holders)
        place = POLLS_PER_TTL * holders.index(self._me.holder)
        for missed in range(max(first, turn - POLLS_PER_TTL + 1), turn + 1):
            self._core.fleet.probe((missed + place) % turns, turns)
        self._wake()


def _raw(holder: str) -> bytes:
    return holder.encode("utf-8", "surrogateescape")
