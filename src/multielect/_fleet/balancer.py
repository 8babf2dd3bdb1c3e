"""Turns the membership of the fleet into what this node stands for.

Rules of this file:
    * Every member works out the same assignment from the same membership and plan, which come in
      one answer; nobody tells another what to do. Where two see different fleets for a moment, they
      contest a lease or leave it where it is.
    * The plan that follows from a changed fleet is the same whoever writes it down: the eldest
      does, and the others in turn if he does not.
    * A thread of its own does the work, late if it is starved of the GIL. What it is late with is
      moves: nothing that is led is lost by it, and the membership is polled without it.
    * Once a TTL a look is taken at who leads what is this node's: see `_fleet.unknown_leaders`.
    * A node that was missing from the membership itself does not believe at once that the others
      are gone: Redis may have forgotten all members.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from .._core.core import Core
from .._protocol.keys import KeyLayout, decode_key
from .._runtime.clock import Clock
from .._runtime.foreign import in_words
from .._runtime.interruptible import join
from .._settings.settings import BalanceSettings
from ..balance import Assignment, KeySet, Member
from ..errors import MultielectError, ProtocolError
from .membership import Entry, Membership, counted, describe, pack, parse
from .plan import Plan, following, planned, read_plan, succeeding
from .unknown_leaders import OtherLeader, UnknownLeaders, warning_about

_MS = 1_000_000
_NS = 1_000_000_000

POLLS_PER_TTL = 6
"""How often a member polls the membership in one TTL: that is its heartbeat."""

_SETTLE_S = 0.02

ENTRY_LASTS_POLLS = 4
"""For how many polls' time an entry lasts: it ends before the first lease of a node that died."""


class Balancer:
    """Keeps what one node stands for in line with its fleet."""

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
            core: what to tell who is to lead what.
            settings: this node's share, and who may lead what.
            holder: the value of this node's leases.
            max_leases: how many elections this node may lead; None for any number.
            ttl_ns: how long a lease lasts.
            reconnect_ns: how much longer than this node another may take to find a server that was
                restarted.
            layout: where the fleet is kept.
            clock: the time.
            on_error: takes what went wrong, on any thread.
            on_shared_out: takes how many members the fleet has, how many elections are this node's
                and of how many, where that has changed.
            on_acted: called each time that what was heard has been acted on.
            wake: called when the core was changed.
            name: of the thread.
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
        self._on_error = on_error
        self._on_shared_out = on_shared_out
        self._on_acted = on_acted
        self._heard = 0
        self._acted_on = 0
        self._own: tuple[Assignment, frozenset[bytes]] | None = None
        self._shares: tuple[int, int, int] | None = None
        self._wake = wake
        self._changed = threading.Condition()
        self._entries: dict[str, Entry] = {}
        self._missed: dict[str, Entry] = {}
        self._missed_until_ns = 0
        self._since_ms = 0
        self._server_ahead_ms = 0
        self._plan: Plan | None = None
        self._plan_number = 0
        self._plan_kept = 0
        self._proposal = b""
        self._proposed_ns = 0
        self._written = b""
        self._unread: frozenset[bytes] = frozenset()
        self._failure = ""
        self._began_ns: int | None = None
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
            RuntimeError: if there is no thread to be had.
        """
        self._thread.start()
        self.call()

    def unstart(self) -> None:
        """Be as before `start`: the node could not be started."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._closed = False
        self._thread = self._made_thread()

    def call(self) -> None:
        """Say that this node is there, and ask who else is, now and every so often."""
        with self._changed:
            self._poll()

    @property
    def members(self) -> list[Member]:
        """All members, as last heard."""
        return [entry.member for entry in self.entries()]

    @property
    def is_running(self) -> bool:
        """Whether its thread is at work."""
        return self._thread.is_alive()

    def share(self) -> frozenset[bytes] | None:
        """Return the keys that this node is to lead.

        None while that is not known: nothing was heard of the fleet, or what was heard last is
        still to be acted on, or the node joins and is given nothing yet.
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
        """Return what all members say of themselves, as last heard."""
        with self._changed:
            return list(self._entries.values())

    @property
    def assignment(self) -> Assignment | None:
        """Who is to lead what, as this node sees it; None before it knows."""
        return self._assignment

    # ---- any thread

    def hear(self, answer: bytes, now_ns: int) -> None:
        """Take an answer to a membership poll, to be acted on by the balancer's thread.

        Raises:
            ValueError: for an answer that is malformed.
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
                # The server's clock was set back: when it has caught up, this node must not look
                # like one that has just come.
                self._since_ms = max(1, membership.server_ms - self._settings.join_delay_ms)
                self._poll(at_once=False)
            elif mine is not None and not self._since_ms:
                # Told to the server from now on: an entry that was lost comes back as it was.
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
            # Whoever falls silent is taken out by the first who asks after his time.
            self._core.fleet.poll_membership_by(now_ns + (min(others) + 1) * _MS)
        self._report_unread(frozenset(membership.unread))
        self._report_if_blocked(now_ns)

    def on_keys_changed(self) -> None:
        """Elections were added or removed."""
        with self._changed:
            self._keys_changed = True
            self._heard += 1
            self._changed.notify_all()

    def retire(self) -> bool:
        """Say that this node takes nothing any more. Returns whether anybody else is there."""
        with self._changed:
            self._me = replace(self._me, weight=0.0)
            self._poll()
            return any(
                holder != self._me.holder and entry.member.weight
                for holder, entry in self._entries.items()
            )

    def leave(self) -> None:
        """Leave the fleet, and name the successors of all that this node leads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._me = replace(self._me, weight=0.0)
            entries = self._entries | self._missed
            plan, assignment = self._plan, self._assignment
        server_ms = self._server_ms()
        members, _ = counted(entries.values(), server_ms)
        entries.pop(self._me.holder, None)
        others, _ = counted(entries.values(), server_ms)
        # A function of the user's may raise, or take its time: nothing waits for it here.
        if others and assignment is not None and assignment.keys_given.knows(members):
            # What was heard a moment ago may not have been acted on yet.
            now = planned(members, assignment.keys_given, plan)
            with self._applying:
                self._apply(succeeding(now, plan, others))
        lasts_ns = ENTRY_LASTS_POLLS * self._period_ns
        self._core.fleet.set_membership_poll(
            *self._words(0), period_ns=self._period_ns, last_ns=lasts_ns
        )

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end."""
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            join(self._thread, timeout_s)

    # ---- inside

    def _poll(self, *, at_once: bool = True) -> None:
        if self._closed:
            # Who has left, and only now hears that it was a member, must not come back.
            return
        lasts_ms = ENTRY_LASTS_POLLS * self._period_ns // _MS
        words = self._words(lasts_ms)
        self._core.fleet.set_membership_poll(*words, period_ns=self._period_ns, at_once=at_once)
        if at_once:
            self._wake()

    def _words(self, lasts_ms: int) -> tuple[bytes, int]:
        words = (
            self._layout.members_key,
            self._layout.plan_key,
            self._holder,
            b"%d" % lasts_ms,
            b"%d" % self._since_ms,
            describe(self._me, self._settings.join_delay_ms),
            self._layout.channel,
            b"%d" % self._plan_number,
            self._written if lasts_ms else b"",
        )
        return pack(*words), len(words)

    def _server_ms(self) -> int:
        return self._clock.now_ns() // _MS + self._server_ahead_ms

    def _run(self) -> None:
        while self._wait():
            self.balance()

    def _report_failure(self, cause: BaseException) -> None:
        # It is tried again with each poll; the same failure is told once.
        failure = in_words(cause)
        if failure != self._failure:
            self._failure = failure
            error = MultielectError(f"the elections cannot be shared out: {failure}")
            error.__cause__ = cause
            self._on_error(error)

    def _report_if_blocked(self, now_ns: int) -> None:
        began_ns = self._began_ns
        if began_ns is None or self._settings.only is None or now_ns - began_ns < self._ttl_ns:
            return
        # Once for each call that holds it up.
        self._began_ns = None
        self._on_error(
            MultielectError(
                f"the elections are not shared out: the function given as only has not returned for"
                f" {(now_ns - began_ns) / _NS:.1f} s. It is to answer at once, from what it has at"
                " hand"
            )
        )

    def _report_unread(self, unread: frozenset[bytes]) -> None:
        new = unread - self._unread
        self._unread = unread
        if new:
            names = ", ".join(sorted(decode_key(holder)[:100] for holder in new)[:3])
            self._on_error(
                ProtocolError(f"{len(new)} entries of the membership are malformed, of {names}")
            )

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
                # More may follow at once.
                self._changed.wait_for(lambda: self._closed, _SETTLE_S)
            self._has_answer = False
            return not self._closed

    @property
    def due_ns(self) -> int | None:
        """When `balance` is to be called next, if nothing is heard before."""
        return self._due_ns

    def balance(self) -> None:
        """Do what follows from the membership. On the balancer's thread."""
        with self._changed:
            heard = self._heard
            self._began_ns = self._clock.now_ns()
        try:
            self._balance()
            self._failure = ""
        # Also what a function given as `only` raises.
        except BaseException as cause:  # noqa: BLE001
            self._report_failure(cause)
            return
        finally:
            self._began_ns = None
        with self._changed:
            self._acted_on = heard
        self._on_acted()

    def _balance(self) -> None:
        now_ns = self._clock.now_ns()
        with self._changed:
            entries = dict(self._entries)
            plan = self._plan
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
            self._report_shares(assignment)
        takers = {member.holder for member in ordered if member.weight}
        eldest = sorted((e.since_ms, h) for h, e in entries.items() if h in takers)
        self._propose(self._assignment, plan, [holder for _, holder in eldest], now_ns)
        self._watch(server_ms, sorted(takers))
        self._look_for_unknown_leaders(entries, now_ns)

    def _report_shares(self, assignment: Assignment) -> None:
        holders = [member.holder for member in assignment.members]
        own = holders.index(self._me.holder) if self._me.holder in holders else -1
        share = 0 if own < 0 else assignment.owners.count(own)
        shares = (len(holders), share, len(assignment.owners))
        if shares != self._shares:
            self._shares = shares
            self._on_shared_out(*shares)

    def _take_plan(self, membership: Membership) -> None:
        """Go by the newest plan from now on. With the lock held."""
        self._plan_kept = membership.plan_number
        if membership.plan_number <= self._plan_number:
            return
        self._plan_number = membership.plan_number
        try:
            self._plan = read_plan(membership.plan_number, membership.plan_text)
        except ValueError as cause:
            self._plan = None
            error = ProtocolError(f"the plan of the fleet is malformed: {cause}")
            error.__cause__ = cause
            self._on_error(error)
        self._poll(at_once=False)

    def _propose(
        self, assignment: Assignment, plan: Plan | None, eldest: list[str], now_ns: int
    ) -> None:
        """Have the plan written down that follows from the fleet, when it is this node's turn."""
        if self._me.holder not in eldest:
            return
        if plan is not None and self._plan_kept < plan.number:
            words = plan.words  # the server has forgotten it
        else:
            text = following(assignment, plan)
            words = b"" if text is None else b"%d %s" % (self._plan_number + 1, text)
        if words != self._proposal:
            self._proposal = words
            self._proposed_ns = now_ns
        turn = min(eldest.index(self._me.holder), POLLS_PER_TTL)
        turn_ns = self._proposed_ns + turn * self._period_ns
        if words and now_ns < turn_ns:
            self._due_ns = turn_ns if self._due_ns is None else min(self._due_ns, turn_ns)
        elif words != self._written:
            with self._changed:
                self._written = words
                self._poll(at_once=bool(words))

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
        """See whether somebody leads what is this node's who is no member, and tell of it."""
        if now_ns < self._look_due_ns:
            return
        self._look_due_ns = now_ns + self._ttl_ns
        if now_ns - self._heard_ns > self._ttl_ns:
            # Members may have come that this node has not heard of.
            self._unknown_leaders.forget()
            return
        members = {_raw(holder) for holder in entries} | self._unread | {self._holder}
        leaders = [OtherLeader(*each) for each in self._core.fleet.other_leaders()]
        unknown_leaders = self._unknown_leaders.look(leaders, members, now_ns)
        if unknown_leaders:
            self._on_error(MultielectError(warning_about(unknown_leaders)))

    def _watch(self, server_ms: int, holders: list[str]) -> None:
        """See whether something has no leader, so that each election is looked at once a TTL.

        The members take turns: in each turn each looks at another part, and no two at the same.
        A member that is late makes up for the turns that it missed, of one TTL at the most.
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
            self._core.fleet.watch((missed + place) % turns, turns)
        self._wake()


def _raw(holder: str) -> bytes:
    return holder.encode("utf-8", "surrogateescape")
