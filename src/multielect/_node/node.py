"""One node: puts a core, its engine and its dispatcher together, for groups and electors.

Rules of this file:
    * A node is started once and stopped once. Its properties may be read before and after. A method
      that would change something raises `ClosedError` when the node is over.
    * In a forked child the node of the parent is over.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping

from .._callbacks.dispatcher import Dispatcher
from .._connection.server import max_reconnect_ns
from .._core.core import Core
from .._core.records import TermEvent
from .._core.slot_map import slot_of_key
from .._core.slots import Slots
from .._engine.engine import Outlets
from .._engine.lane_connection import Arrival
from .._fleet.balancer import Balancer
from .._protocol.keys import KeyLayout, decode_key, encode_key
from .._protocol.scripts import LARGEST_EPOCH
from .._settings.settings import Seconds, Settings, checked_stall_ns, checked_timeout
from ..balance import MAX_LEASES, Member
from ..election import Candidacy, Term
from ..errors import ClosedError, ConfigError, MultielectError, ProtocolError
from .at_exit import stopped_at_exit
from .counters import Counters
from .environment import Environment
from .lifecycle import LifecycleLog
from .phase import Phase
from .probe import Probe
from .readiness import Readiness
from .term_events import term_event_of

_MIN_RESPONSE_TIMEOUT_NS = 50_000_000
_DRAIN_GRACE_S = 1.0
"""How much longer than its timeout a drain waits, for the terms that end at its deadline."""
_NS = 1_000_000_000


Place = tuple[str, int, int]
"""The place of an election: its key, the number of its slot, and the slot's generation."""


class Node:
    """The elections of one node, with the parts that run them."""

    def __init__(
        self,
        environment: Environment,
        *,
        layout: KeyLayout,
        settings: Settings,
        dispatcher: Dispatcher[Term],
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """Put the parts together. `start` connects.

        Args:
            environment: the source of time, random numbers, threads and connections.
            layout: the key names of its elections.
            settings: the node's settings.
            dispatcher: takes the events of terms, and errors.
            on_change: called on any thread when those who wait must check their conditions.

        Raises:
            ConfigError: if the address of Redis is not allowed.
        """
        self.settings = settings
        self.layout = layout
        self.clock = environment.clock
        self.holder = f"{settings.node_id}/{environment.incarnation()}"
        self.environment = environment
        self._core = Core(
            now_ns=self.clock.now_ns(),
            ttl_ns=settings.ttl_ns,
            margin_ns=settings.margin_ns,
            max_leases=MAX_LEASES if settings.max_leases is None else settings.max_leases,
            key_prefixes=layout.key_prefixes,
            separator=layout.separator,
            holder=self.holder.encode("utf-8", "surrogateescape"),
            channel=layout.channel,
            epochs=settings.epochs.encode(),
            retention_ms=settings.retention_ms,
            seed=environment.seed(),
            drain_ns=settings.drain_ns,
            notifies_drains=dispatcher.notifies_drains,
            balanced=settings.balance is not None,
            move_ns=0 if settings.balance is None else settings.balance.move_ns,
            fleet_slot=slot_of_key(layout.members_key),
        )
        self.slots: Slots = self._core.elections.slots
        name = f"multielect-{settings.node_id}"
        self._dispatcher = dispatcher
        dispatcher.log.ttl_s = settings.ttl_ns / _NS
        self._lifecycle = LifecycleLog(
            dispatcher.log, ttl_ns=settings.ttl_ns, margin_ns=settings.margin_ns
        )
        self._on_change = on_change
        self._engine = environment.engine(
            self._core,
            layout=layout,
            node_id=settings.node_id,
            ttl_ns=settings.ttl_ns,
            response_timeout_ns=max(settings.ttl_ns // 3, _MIN_RESPONSE_TIMEOUT_NS),
            is_balanced=settings.balance is not None,
            outlets=Outlets(
                events=self._on_events if dispatcher.is_listening else None,
                counts=self._on_counts,
                membership=self._on_membership,
                error=self._dispatcher.put_error,
                connected=self._on_connected,
                changed=self.notify,
                fault=self._on_fault,
            ),
            name=name,
        )
        self._balancer = self._make_balancer(f"{name}-balance")
        self.phase = Phase(environment)
        self.readiness = Readiness(self, self._core, self._engine, self._balancer)
        self._drains_since_s: float | None = None
        self._changed = threading.Condition()
        if not environment.is_simulated:
            stopped_at_exit.add(self)

    # ---- life

    def start(self) -> bool:
        """Stand for all elections, now and as they are added. Returns False if already started.

        An error undoes the start: no thread and no file descriptor is left, and the node may be
        started again.

        Raises:
            ClosedError: if the node was stopped or forked.
            OSError: if no file descriptor is left.
            RuntimeError: if no thread can be started: there are too many, or the interpreter ends.
        """
        self.phase.check_process()
        # A `stop` on another thread waits until the node is started completely.
        with self._changed:
            self.phase.check_open()
            if self.phase.started:
                return False
            self.phase.check_campaigning()
            with contextlib.ExitStack() as undoing:
                self._dispatcher.start()
                undoing.callback(self._dispatcher.unstart)
                if self._balancer is not None:
                    self._balancer.start()
                    undoing.callback(self._balancer.unstart)
                # The engine may report at once, and its reports must find the node started.
                self.phase.started = True
                undoing.callback(self._unstart)
                self._lifecycle.started(len(self._core.elections))
                self._engine.start()
                undoing.pop_all()
        return True

    def _unstart(self) -> None:
        self.phase.started = False

    def stop(self, timeout: Seconds) -> None:
        """End all terms, release them, and wait for callbacks: all within `timeout` seconds."""
        timeout_s = checked_timeout(timeout)
        if self.phase.is_elsewhere:
            return
        until = self.environment.monotonic_s() + timeout_s
        with self._changed:
            was_stopped, self.phase.stopped = self.phase.stopped, True
            started = self.phase.started
        self.notify()
        led, released = self._core.elections.leading, self._core.elections.counters["released"]
        if started:
            if self._balancer is not None:
                self._balancer.leave()
            self._engine.stop(timeout_s)
            if self._balancer is not None:
                self._balancer.join(max(0.0, until - self.environment.monotonic_s()))
            if not was_stopped:
                self._lifecycle.stopped(led, self._core.elections.counters["released"] - released)
        self._dispatcher.close(max(0.0, until - self.environment.monotonic_s()))
        stopped_at_exit.discard(self)

    def report(self, error: MultielectError) -> None:
        """Log an error and report it through `on_error`. Any thread."""
        self._dispatcher.put_error(error)

    def probe(self) -> Probe:
        """Return a probe, which measures the node."""
        return Probe(self._core, self._engine, self.phase.check_open)

    @property
    def is_running(self) -> bool:
        """Whether the node was started, was not stopped and has not failed, in this process."""
        # A forked child may use neither the balancer nor the engine.
        if not self.phase.is_running:
            return False
        is_whole = self._balancer is None or self._balancer.is_running
        return is_whole and self._engine.is_running

    # ---- elections

    def __len__(self) -> int:
        return len(self._core.elections)

    def add(self, key: str | bytes, max_stall: Seconds | None = None) -> Place:
        """Stand for an election, unless the node already does. Returns its place."""
        return self._add_raw(encode_key(key), checked_stall_ns(max_stall))

    def add_sole(self) -> Place:
        """Add the only election of an elector, whose key is empty."""
        return self._add_raw(b"", 0)

    def _add_raw(self, raw: bytes, max_stall_ns: int) -> Place:
        self.phase.check_campaigning()
        number, generation, is_new = self._core.elections.add(
            raw, self.layout.bucket(raw), max_stall_ns or self.settings.max_stall_ns
        )
        if is_new:
            self._after_adding()
        return decode_key(raw), number, generation

    def add_many(self, keys: Iterable[str | bytes]) -> int:
        """Stand for many elections. Returns how many of them are new."""
        if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
            raise ConfigError(
                f"add_many takes an iterable of keys, such as a list, not {keys!r}: use add for one"
                " key"
            )
        self.phase.check_campaigning()
        count = 0
        try:
            for key in keys:
                raw = encode_key(key)
                bucket = self.layout.bucket(raw)
                count += self._core.elections.add(raw, bucket, self.settings.max_stall_ns)[2]
        finally:
            if count:
                self._after_adding()
        return count

    def find(self, key: str | bytes) -> Place | None:
        """Return the place of the election with this key; None if there is none."""
        raw = encode_key(key)
        self.phase.check_process()
        place = self._core.elections.find(raw)
        return None if place is None else (decode_key(raw), *place)

    def remove(self, key: str | bytes) -> None:
        """Stop to stand for an election.

        Raises:
            KeyError: if no election has this key.
        """
        raw = encode_key(key)
        self.phase.check_open()
        if not self._core.elections.remove(raw, self.clock.now_ns()):
            raise KeyError(key)
        if self._balancer is not None:
            self._balancer.on_keys_changed()
        self._after_change()

    def keys(self) -> list[str]:
        """Return the keys of all elections."""
        self.phase.check_process()
        return [decode_key(raw) for raw in self._core.elections.list_keys()]

    def led(self) -> list[Place]:
        """Return the elections that this node leads now."""
        # A node that stops still leads the elections that it has not released yet.
        if not self.phase.started or self.phase.is_elsewhere:
            return []
        led = self._core.elections.led(self.clock.now_ns())
        return [(decode_key(raw), number, generation) for raw, number, generation in led]

    @property
    def counters(self) -> Counters:
        """What this node has done since it was made."""
        self.phase.check_process()
        return Counters(**self._core.elections.counters, reconnects=self._engine.reconnects)

    # ---- for the handles of elections

    def leader_id(self, election: Candidacy) -> str | None:
        """Return the node id of the leader that this node saw last."""
        if election.is_leader:
            return self.settings.node_id
        self.phase.check_process()
        holder = self._core.elections.leader(election.number, election.generation)
        return None if holder is None else decode_key(holder).partition("/")[0]

    def resign(self, election: Candidacy) -> bool:
        """End the election's current term."""
        self.phase.check_open()
        resigned = self._core.elections.resign(
            election.number, election.generation, election.term_epoch, self.clock.now_ns()
        )
        self._after_change()
        return resigned

    def campaign(self, election: Candidacy) -> None:
        """End an election's cooldown now."""
        self.phase.check_campaigning()
        self._core.elections.campaign(election.number, election.generation)
        self._after_change()

    def learn_epoch(self, number: int, generation: int, term_epoch: int, newest_epoch: int) -> bool:
        """Record that a newer epoch than `term_epoch` is known for an election. Any thread.

        A term with a lower epoch ends, with reason ``SUPERSEDED``, and this node stands again at
        once, for an epoch above `newest_epoch`. The largest possible epoch is ignored: none is
        above it, and a counter that was set to it by mistake may be deleted.

        Args:
            number: the number of the election's slot.
            generation: the slot's generation; nothing is done for an election that was removed.
            term_epoch: the epoch of the term that learned of the newer epoch.
            newest_epoch: the newest epoch that was elected or written.

        Returns:
            Whether a term ended.

        Raises:
            ConfigError: if `newest_epoch` is not an epoch.
        """
        if type(newest_epoch) is not int or not 1 <= newest_epoch <= LARGEST_EPOCH:
            raise ConfigError(
                f"an epoch must be a whole number from 1 to {LARGEST_EPOCH}, not {newest_epoch!r}"
            )
        if self.phase.is_elsewhere or newest_epoch == LARGEST_EPOCH:
            return False
        ended = self._core.elections.learn_epoch(
            number, generation, term_epoch, newest_epoch, self.clock.now_ns()
        )
        self._after_change()
        return ended

    def finish_drain(self, election: Candidacy) -> bool:
        """Hand over a draining term, as its worker is done."""
        self.phase.check_open()
        found = self._core.elections.finish_drain(
            election.number, election.generation, election.term_epoch, self.clock.now_ns()
        )
        self._after_change()
        return found

    def begin_drain(self, timeout: Seconds | None) -> float:
        """Campaign for nothing any more, and hand over all terms within `timeout` seconds.

        Returns:
            How many seconds to wait at most until `is_empty_handed`.
        """
        timeout_s = self.settings.drain_ns / _NS if timeout is None else checked_timeout(timeout)
        self.phase.check_open()
        self.phase.draining = True
        alone = self._balancer is None or not self._balancer.retire()
        now_ns = self.clock.now_ns()
        if self.phase.started and self._drains_since_s is None:
            self._drains_since_s = self.environment.monotonic_s()
            self._lifecycle.drain_begun(self._core.elections.leading, timeout_s)
        self._core.elections.retire(alone, now_ns + int(timeout_s * _NS), now_ns)
        self._after_change()
        return timeout_s + _DRAIN_GRACE_S

    @property
    def is_inside_callback(self) -> bool:
        """Whether the caller is a callback of the node."""
        return self._dispatcher.is_inside()

    @property
    def is_empty_handed(self) -> bool:
        """Whether this node leads nothing."""
        return self._core.elections.leading == 0

    def drain(self, timeout: Seconds | None) -> bool:
        """Hand over all terms. Returns whether the node leads nothing any more.

        In a callback it does not wait, because a term may be waiting for that callback.
        """
        wait_s = self.begin_drain(timeout)
        if self.is_inside_callback:
            return self.is_empty_handed
        with self._changed:
            return self.environment.wait_for(self._changed, lambda: self.is_empty_handed, wait_s)

    @property
    def members(self) -> list[Member]:
        """The members of the fleet that this node saw last."""
        return [] if self._balancer is None else self._balancer.members

    def wait_for(self, is_so: Callable[[], bool], timeout: Seconds | None) -> bool:
        """Wait until `is_so` returns True. It is called each time that the node has changed."""
        timeout_s = None if timeout is None else checked_timeout(timeout)
        # Before taking the lock, which may have been locked at a fork.
        self.phase.check_process()
        with self._changed:
            return self.environment.wait_for(self._changed, is_so, timeout_s)

    def wait(self, election: Candidacy, timeout: Seconds | None) -> bool:
        """Wait until this node leads the election."""
        return self.wait_for(lambda: self.leads_or_may(election), timeout)

    def leads_or_may(self, election: Candidacy) -> bool:
        """Return whether this node leads. Raise `ClosedError` if it can never lead again."""
        if election.is_leader:
            return True
        self.phase.check_campaigning()
        if election.is_removed:
            raise ClosedError(f"the election {election.key!r} was removed")
        self.phase.check_started()
        return False

    # ---- inside

    def _make_balancer(self, name: str) -> Balancer | None:
        if self.settings.balance is None:
            return None
        return self.environment.balancer(
            self._core,
            self.settings.balance,
            holder=self.holder,
            max_leases=self.settings.max_leases,
            ttl_ns=self.settings.ttl_ns,
            reconnect_ns=max_reconnect_ns(self.settings.ttl_ns),
            layout=self.layout,
            clock=self.clock,
            on_error=self._dispatcher.put_error,
            on_shared_out=self._lifecycle.shared_out,
            on_acted=self._on_acted,
            wake=self._engine.wake,
            name=name,
        )

    def _on_membership(self, answer: bytes) -> None:
        assert self._balancer is not None
        try:
            self._balancer.hear(answer, self.clock.now_ns())
        except ValueError as cause:
            error = ProtocolError(f"the membership is malformed: {cause}")
            error.__cause__ = cause
            self._dispatcher.put_error(error)

    def _after_adding(self) -> None:
        if self._balancer is not None:
            self._balancer.on_keys_changed()
        if self.phase.started:
            self._engine.wake()

    def notify(self) -> None:
        """Let all who wait check their conditions again. Any thread."""
        with self._changed:
            self._changed.notify_all()
        if self._on_change is not None:
            self._on_change()

    def _after_change(self) -> None:
        if self.phase.started:
            self._engine.wake()
        else:
            self._core.reporter.take()
        self.notify()

    def _on_events(self, events: list[TermEvent]) -> None:
        now_s = self.environment.monotonic_s
        self._dispatcher.put(*(term_event_of(self, event, now_s) for event in events))

    def _on_counts(self, counts: Mapping[int, int]) -> None:
        # After the dispatcher has the events: a program that waited for a term may expect that.
        self.notify()
        self._lifecycle.events(counts)
        since_s = self._drains_since_s
        if since_s is not None and since_s >= 0 and self.is_empty_handed:
            self._drains_since_s = -1.0
            self._lifecycle.drain_ended(self.environment.monotonic_s() - since_s)

    def _on_connected(self, arrival: Arrival) -> None:
        self._lifecycle.connected(arrival)

    def _on_acted(self) -> None:
        self.readiness.shared_out()

    def _on_fault(self, fault: MultielectError) -> None:
        if self.phase.fault is None:
            self.phase.fault = fault
            self._dispatcher.put_error(fault)
        self.notify()
