"""Turns the roll of the fleet into what this node stands for.

Rules of this file:
    * Every member works out the same assignment from the same roll; nobody tells another what to
      do. Where two see different fleets for a moment, they contest a lease or leave it where it is.
    * A thread of its own does the work, late if it is starved of the GIL. What it is late with is
      moves: nothing that is led is lost by it, and the roll is called without it.
    * Whoever was missing from the roll himself does not believe at once that the others are gone:
      it may be that Redis forgot all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from ._clock import Clock
from ._core.fleet import FleetCore
from ._keys import KeyLayout
from ._roll import Entry, counted, describe, pack, parse
from ._settings import BalanceSettings
from .balance import MOST_LEASES, Assignment, KeySet, Member, assign
from .errors import MultielectError

_MS = 1_000_000
_NS = 1_000_000_000

CALLS_A_TTL = 6
"""How often a member says in one TTL that it is there."""

_SETTLE_S = 0.02

LASTING_CALLS = 4
"""For how many calls' time an entry lasts: it ends before the first lease of a node that died."""


class Balancer:
    """Keeps what one node stands for in line with its fleet."""

    def __init__(
        self,
        core: FleetCore,
        settings: BalanceSettings,
        *,
        holder: str,
        max_leases: int,
        ttl_ns: int,
        layout: KeyLayout,
        clock: Clock,
        on_error: Callable[[MultielectError], None],
        wake: Callable[[], None],
        name: str,
    ) -> None:
        """Prepare; `start` begins."""
        node_id, _, incarnation = holder.partition("/")
        self._core = core
        self._settings = settings
        self._me = Member(
            node_id,
            incarnation,
            weight=settings.weight,
            max_leases=max_leases if max_leases <= MOST_LEASES else None,
            labels=settings.labels,
        )
        self._holder = holder.encode("utf-8", "surrogateescape")
        self._period_ns = max(ttl_ns // CALLS_A_TTL, _MS)
        self._layout = layout
        self._clock = clock
        self._on_error = on_error
        self._wake = wake
        self._changed = threading.Condition()
        self._entries: dict[str, Entry] = {}
        self._missed: dict[str, Entry] = {}
        self._missed_until_ns = 0
        self._since_ms = 0
        self._server_ahead_ms = 0
        self._keys: KeySet | None = None
        self._keys_changed = True
        self._assigned: tuple[KeySet, tuple[Member, ...]] | None = None
        self._turn = -1
        self._due_ns: int | None = None
        self._news = False
        self._closed = False
        self._applying = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Become a member."""
        self._call()
        self._thread.start()

    @property
    def members(self) -> list[Member]:
        """All members, as last heard."""
        with self._changed:
            return [entry.member for entry in self._entries.values()]

    # ---- any thread

    def hear(self, answer: bytes, now_ns: int) -> None:
        """Take an answer to the roll. What follows from it is done on the balancer's thread.

        Raises:
            ValueError: for an answer that makes no sense.
        """
        roll = parse(answer)
        found = {entry.member.holder: entry for entry in roll.entries}
        with self._changed:
            if not roll.was_there and self._since_ms:
                gone = self._entries.keys() - found.keys()
                self._missed = {holder: self._entries[holder] for holder in gone}
                self._missed_until_ns = now_ns + 2 * self._period_ns
            mine = found.get(self._me.holder)
            if mine is not None and not self._since_ms:
                # Told to the server from now on: an entry that was lost comes back as it was.
                self._since_ms = mine.since_ms
                self._call()
            self._entries = found
            self._server_ahead_ms = roll.server_ms - now_ns // _MS
            self._news = True
            self._changed.notify_all()
        others = [e.remaining_ms for h, e in found.items() if h != self._me.holder]
        if others:
            # Whoever falls silent is taken out by the first who asks after his time.
            self._core.call_roll_by(now_ns + (min(others) + 1) * _MS)

    def note_keys(self) -> None:
        """Elections were added or removed."""
        with self._changed:
            self._keys_changed = True
            self._changed.notify_all()

    def retire(self) -> bool:
        """Say that this node takes nothing any more. Returns whether anybody else is there."""
        with self._changed:
            self._me = replace(self._me, weight=0.0)
            self._call()
            return any(
                holder != self._me.holder and entry.member.weight
                for holder, entry in self._entries.items()
            )

    def leave(self) -> None:
        """Leave the fleet, and name the heirs of all that this node leads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._me = replace(self._me, weight=0.0)
            entries = [e for h, e in self._entries.items() if h != self._me.holder]
        members, _ = counted(entries, self._server_ms())
        if members:
            assignment = assign(members, self._current_keys())
            with self._applying:
                self._apply(assignment)
        self._core.set_roll(*self._words(0), period_ns=self._period_ns, last=True)

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end."""
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(timeout_s)

    # ---- inside

    def _call(self) -> None:
        if self._closed:
            # Who has left, and only now hears that it was a member, must not come back.
            return
        lasts_ms = LASTING_CALLS * self._period_ns // _MS
        self._core.set_roll(*self._words(lasts_ms), period_ns=self._period_ns)
        self._wake()

    def _words(self, lasts_ms: int) -> tuple[bytes, int]:
        words = (
            self._layout.members_key,
            self._holder,
            b"%d" % lasts_ms,
            b"%d" % self._since_ms,
            describe(self._me, self._settings.join_delay_ms),
            self._layout.channel,
        )
        return pack(*words), len(words)

    def _server_ms(self) -> int:
        return self._clock.now_ns() // _MS + self._server_ahead_ms

    def _run(self) -> None:
        while self._wait():
            try:
                self._balance()
            # Also what a function given as `only` raises.
            except BaseException as cause:  # noqa: BLE001
                error = MultielectError(f"the elections cannot be shared out: {cause!r}")
                error.__cause__ = cause
                self._on_error(error)

    def _wait(self) -> bool:
        with self._changed:
            while not (self._closed or self._news or (self._keys_changed and self._entries)):
                left_s = None
                if self._due_ns is not None:
                    left_s = (self._due_ns - self._clock.now_ns()) / _NS
                    if left_s <= 0:
                        break
                self._changed.wait(left_s)
            if self._keys_changed and not self._news:
                # More may follow at once.
                self._changed.wait_for(lambda: self._closed, _SETTLE_S)
            self._news = False
            return not self._closed

    def _balance(self) -> None:
        now_ns = self._clock.now_ns()
        with self._changed:
            entries = dict(self._entries)
            if now_ns < self._missed_until_ns:
                entries = self._missed | entries
        server_ms = self._server_ms()
        members, next_ms = counted(entries.values(), server_ms)
        due_ns = [] if next_ms is None else [now_ns + (next_ms - server_ms) * _MS]
        if now_ns < self._missed_until_ns:
            due_ns.append(self._missed_until_ns)
        self._due_ns = min(due_ns, default=None)
        keys = self._current_keys()
        seats = tuple(sorted(members, key=lambda member: member.holder))
        if self._assigned != (keys, seats):
            assignment = assign(seats, keys)
            with self._applying:
                if self._closed:
                    return
                self._apply(assignment)
            self._assigned = (keys, seats)
        self._watch(server_ms, [member.holder for member in seats if member.weight])

    def _current_keys(self) -> KeySet:
        with self._changed:
            if self._keys is not None and not self._keys_changed:
                return self._keys
            self._keys_changed = False
        keys = KeySet(self._core.list_keys(), self._settings.only)
        self._keys = keys
        return keys

    def _apply(self, assignment: Assignment) -> None:
        holders = [m.holder.encode("utf-8", "surrogateescape") for m in assignment.members]
        own = holders.index(self._holder) if self._holder in holders else -1
        barred = assignment.barred(own) if own >= 0 else b"\1" * len(assignment.keys_given)
        self._core.assign(
            assignment.keys_given.encoded,
            assignment.owners,
            holders,
            own,
            barred,
            self._clock.now_ns(),
        )
        self._wake()

    def _watch(self, server_ms: int, holders: list[str]) -> None:
        """See whether something has no leader, so that each election is looked at once a TTL.

        The members take turns: in each turn each looks at another part, and no two at the same.
        """
        if self._me.holder not in holders:
            return
        turn = server_ms // (self._period_ns // _MS)
        if turn == self._turn:
            return
        self._turn = turn
        turns = CALLS_A_TTL * len(holders)
        self._core.watch((turn + CALLS_A_TTL * holders.index(self._me.holder)) % turns, turns)
        self._wake()
