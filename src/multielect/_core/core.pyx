# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The elections of one node, and a lane for each server. The caller brings time and bytes.

Rules of this file:
    * The core has no socket, no clock, and no randomness but that of the seed. The same calls give
      the same results.
    * Any thread may call the core: see `mutex`. Only the pump's thread may send, as the outgoing
      bytes of the lanes belong to it.
    * The methods that the pump calls run without the GIL. `driver` offers them to Python.
      `elections` has what users call, `fleet` what a balanced fleet calls, and `reporter` what
      reads the results.
    * An event of one lane's connection affects only the elections of the buckets of that lane.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .batch_writer cimport BatchWriter, KeyPrefixes
from .checks cimport CHECKED, check
from .lateness cimport Counts, as_list
from .queues cimport MAX_LANES, NO_LANE
from .redirects cimport MAX_ADDRESS_BYTES
from .script_batch cimport MAX_ENTRIES
from .slot_map cimport SLOTS
from .slots cimport NONE
from .states cimport ACQUIRING, ELIGIBLE, INELIGIBLE, RELEASING


cdef class Core:
    """The elections of one node.

    A new core has one lane, number 0, which serves all hash slots.

    Args:
        now_ns: the time.
        ttl_ns: how long a lease lasts.
        margin_ns: how long before the end of its lease a term ends.
        max_leases: how many elections this node may lead at once.
        batch_keys: how many elections one script refreshes at most.
        seed: the seed of all jitter.
        key_prefixes: the key prefix of each bucket.
        separator: the bytes between the bucket's closing brace and the key.
        holder: the value of this node's leases.
        channel: the channel of announcements.
        epochs: ``b"time"`` or ``b"counter"``.
        retention_ms: how long Redis keeps an epoch after a term; 0: for ever.
        drain_ns: how long a term may drain before this node hands it over.
        notifies_drains: whether a worker finishes its work before this node hands a term over. If
            not, this node hands it over at once.
        balanced: whether this node campaigns only for elections that `fleet.assign` gives it.
        move_ns: the time between two moves of a term to another node; 0: no limit.
        fleet_slot: the hash slot of the fleet's keys.
        is_cluster: whether the servers are nodes of a cluster: see `enter_cluster`.
    """

    def __init__(self, *, int64_t now_ns, int64_t ttl_ns, int64_t margin_ns, tuple key_prefixes,
                 bytes separator, bytes holder, bytes channel, bytes epochs=b"time",
                 uint32_t max_leases=NONE, uint32_t batch_keys=MAX_ENTRIES, uint64_t seed=0,
                 int64_t retention_ms=0, int64_t drain_ns=0, bint notifies_drains=False,
                 bint balanced=False, int64_t move_ns=0, uint32_t fleet_slot=0,
                 bint is_cluster=False):
        if not 1 <= batch_keys <= MAX_ENTRIES:
            raise ValueError(f"batch_keys must be from 1 to {MAX_ENTRIES}, not {batch_keys}")
        if fleet_slot >= SLOTS:
            raise ValueError(f"fleet_slot must be from 0 to {SLOTS - 1}, not {fleet_slot}")
        self.mutex = Mutex()
        self.terms = Terms(now_ns=now_ns, ttl_ns=ttl_ns, margin_ns=margin_ns,
                           by_time=epochs == b"time", batch_keys=batch_keys,
                           max_leases=max_leases, seed=seed, buckets=len(key_prefixes))
        self.terms.drain_ns = drain_ns
        self.terms.notifies_drains = notifies_drains
        self.terms.balanced = balanced
        self.terms.move_ns = move_ns
        self.terms.initial_eligibility = INELIGIBLE if balanced else ELIGIBLE
        self.membership = MembershipPoll()
        self.wakeups = Wakeups(self.terms, self.membership, holder=holder, separator=separator)
        self.slot_map = SlotMap(key_prefixes)
        self.redirects = Redirects(self.slot_map, fleet_slot, is_cluster)
        self.elections = Elections(self.terms, self.mutex)
        self.fleet = Fleet(self.terms, self.membership, self.mutex)
        self.reporter = Reporter(self.terms, self.membership, self.redirects, self.mutex)
        self.prefixes = KeyPrefixes(key_prefixes)
        self.wording = {"holder": holder, "channel": channel, "epochs": epochs,
                        "retention_ms": retention_ms}
        self.lanes = []
        self.quiet_ns = -1
        self.turned_ns = now_ns
        self.add_lane()

    # ---- lanes

    def add_lane(self) -> int:
        """Add a lane, which serves no slot until `map_slots` gives it some. Returns its number.

        Raises:
            ValueError: if there are `MAX_LANES` already.
        """
        cdef uint32_t index = len(self.lanes)
        if index == MAX_LANES:
            raise ValueError(f"a core has at most {MAX_LANES} lanes")
        writer = BatchWriter(self.terms, self.membership, self.prefixes, **self.wording)
        lane = Lane(index, self.terms, self.membership, self.wakeups, writer, self.redirects)
        self.lanes.append(lane)
        with nogil:
            self.mutex.lock()
            self.lane_at[index] = <void *>lane
            self.lane_count += 1
            self._update_membership_lane(index)
            self.mutex.unlock()
        return index

    def enter_cluster(self) -> None:
        """Treat the servers as nodes of a cluster from now on.

        All keys of a script are then of one bucket, and redirections are followed. No lane serves a
        slot until `map_slots` says so.
        """
        with nogil:
            self.mutex.lock()
            try:
                self.redirects.enter_cluster()
                self._map_slots(0, SLOTS - 1, NO_LANE)
            finally:
                self.mutex.unlock()

    def name_lane(self, uint32_t index, bytes address not None) -> None:
        """Say at which address the server of a lane is, as redirections have it: ``host:port``.

        Raises:
            IndexError: if there is no such lane.
            ValueError: if the address is too long.
        """
        cdef const char *text = address
        cdef size_t length = len(address)
        cdef Lane lane = self.lane(index)
        if length > MAX_ADDRESS_BYTES:
            raise ValueError(f"an address has at most {MAX_ADDRESS_BYTES} bytes, not {length}")
        with nogil:
            self.mutex.lock()
            self.redirects.name_lane(index, text, length)
            # Its clock has nothing to do with that of the lane's last server.
            lane.replies.server_clock.forget()
            self.mutex.unlock()

    def listen(self, uint32_t index) -> None:
        """Have a lane subscribe to the announcements with its next turn.

        Raises:
            IndexError: if there is no such lane.
        """
        cdef Lane lane = self.lane(index)
        with nogil:
            self.mutex.lock()
            lane.is_to_listen = True
            self.mutex.unlock()

    def map_slots(self, int64_t first, int64_t last, lane) -> None:
        """Have a lane serve the hash slots from `first` to `last`, both included, from now on.

        If `lane` is None, no lane serves them: their elections wait, and deadlines still pass.

        Raises:
            ValueError: if there are no such slots, or no such lane.
        """
        cdef uint32_t number = NO_LANE
        if not 0 <= first <= last < SLOTS:
            raise ValueError(f"slots must be from 0 to {SLOTS - 1}, not {first} to {last}")
        if lane is not None:
            if not 0 <= lane < len(self.lanes):
                raise ValueError(f"there is no lane {lane}")
            number = lane
        with nogil:
            self.mutex.lock()
            try:
                self._map_slots(<uint32_t>first, <uint32_t>last, number)
            finally:
                self.mutex.unlock()

    cdef int _map_slots(self, uint32_t first, uint32_t last, uint32_t lane) except -1 nogil:
        self.slot_map.give(first, last, lane)
        self.redirects.trust(first, last)
        return self._act_on_map()

    cdef int _act_on_map(self) except -1 nogil:
        """Have each bucket and the fleet on the lane that the slot map says."""
        cdef uint32_t bucket, index, lane
        self.redirects.has_moved = False
        for bucket in range(self.slot_map.buckets):
            lane = self.slot_map.lane_of_bucket(bucket)
            if lane == self.terms.queues.buckets[bucket].lane:
                continue
            if lane != NO_LANE:
                self._compare_clocks(bucket, self.slot_map.last_lane[bucket], lane)
                self.slot_map.last_lane[bucket] = lane
            self.terms.change_lane(bucket, lane)
        for index in range(self.lane_count):
            self._update_membership_lane(index)
        return 0

    cdef void _compare_clocks(self, uint32_t bucket, uint32_t before, uint32_t lane) noexcept nogil:
        """See whether the leases of a bucket that changes its lane may end earlier there."""
        cdef void *old_lane = self.lane_at[before]
        cdef void *new_lane = self.lane_at[lane]
        cdef int64_t by_ns
        if before == lane:
            return
        if not (<Lane>new_lane).replies.server_clock.is_known:
            (<Lane>new_lane).replies.server_clock.inherit((<Lane>old_lane).replies.server_clock)
            return
        by_ns = (<Lane>new_lane).replies.server_clock.lead_ns(
            (<Lane>old_lane).replies.server_clock, self.turned_ns)
        if by_ns:
            self.slot_map.shorten_ns[bucket] = by_ns + self.slot_map.shorten_ns[bucket]
            self.slot_map.is_to_shorten = True

    cdef int _shorten_moved(self, int64_t now_ns) except -1 nogil:
        """Shorten the leases that have come to a server whose clock is ahead."""
        cdef uint32_t bucket, lane = NO_LANE
        cdef int64_t by_ns, most_ns = 0, ended = 0
        self.slot_map.is_to_shorten = False
        for bucket in range(self.slot_map.buckets):
            by_ns = self.slot_map.shorten_ns[bucket]
            self.slot_map.shorten_ns[bucket] = 0
            if by_ns and self.terms.queues.buckets[bucket].leading:
                ended += self.terms.shorten_bucket(bucket, by_ns, now_ns)
                most_ns = max(most_ns, by_ns)
                lane = self.slot_map.last_lane[bucket]
        if lane != NO_LANE:
            # The slots of one server have moved, so one report tells it all.
            self.terms.events.clock_jumped(lane, most_ns, ended)
        return 0

    cdef void _update_membership_lane(self, uint32_t index) noexcept nogil:
        cdef bint polls = self.slot_map.lane_of[self.redirects.fleet_slot] == index
        if polls and not (<Lane>self.lane_at[index]).polls_membership:
            self.membership.poll_by(0)
        (<Lane>self.lane_at[index]).polls_membership = polls

    cdef Lane lane(self, uint32_t index):
        """Return a lane. Only for the thread that sends.

        Raises:
            IndexError: if there is no such lane.
        """
        if index >= self.lane_count:
            raise IndexError(f"there is no lane {index}")
        return self.lanes[index]

    # ---- connections

    cdef int connect(self, uint32_t lane) except -1 nogil:
        """Begin to use a new connection, with the scripts that the lane was prepared with."""
        self.mutex.lock()
        try:
            (<Lane>self.lane_at[lane]).connect()
        finally:
            self.mutex.unlock()
        return 0

    cdef int disconnect(self, uint32_t lane, int64_t now_ns) except -1 nogil:
        """Forget the batches in flight, and drop the bytes that are not sent yet."""
        self.mutex.lock()
        try:
            (<Lane>self.lane_at[lane]).disconnect(now_ns)
        finally:
            self.mutex.unlock()
        return 0

    cdef int receive(self, uint32_t lane, const char *data, size_t length,
                     int64_t now_ns) except -1 nogil:
        """Take bytes from a lane's server. Returns 1 if they are malformed."""
        cdef int outcome
        self.mutex.lock()
        try:
            outcome = (<Lane>self.lane_at[lane]).receive(data, length, now_ns)
            if self.redirects.has_moved:
                self._act_on_map()
            if CHECKED:
                check(self.terms)
            return outcome
        finally:
            self.mutex.unlock()

    cdef int hear(self, uint32_t lane, const char *data, size_t length,
                  int64_t now_ns) except -1 nogil:
        """Take bytes from a connection that only subscribes. Returns 1 if malformed."""
        self.mutex.lock()
        try:
            return (<Lane>self.lane_at[lane]).hear(data, length, now_ns)
        finally:
            self.mutex.unlock()

    # ---- turns

    cdef int turn(self, int64_t now_ns, Turn *turn) except -1 nogil:
        """Do what is due at `now_ns`, which the caller read before it sends what is packed."""
        cdef uint32_t lane
        self.mutex.lock()
        try:
            self.turned_ns = now_ns
            if self.slot_map.is_to_shorten:
                self._shorten_moved(now_ns)
            self.terms.on_timers(now_ns)
            self.membership.on_timer(now_ns)
            for lane in range(self.lane_count):
                (<Lane>self.lane_at[lane]).pack(now_ns)
            if self.terms.has_to_give_up(NO_LANE):
                # No lane serves these buckets, so no release can be sent.
                self.terms.give_up(NO_LANE, NONE, now_ns)
            if self._has_work():
                self.quiet_ns = -1
            elif self.quiet_ns < 0:
                self.quiet_ns = now_ns
            self._read(turn, now_ns)
            if CHECKED:
                check(self.terms)
        finally:
            self.mutex.unlock()
        return 0

    cdef int give_up(self, int64_t now_ns) except -1 nogil:
        """End all terms that a stopping node still has, without releasing their leases."""
        cdef uint32_t lane
        self.mutex.lock()
        try:
            for lane in range(<uint32_t>MAX_LANES + 1):
                self.terms.give_up(lane, NONE, now_ns)
        finally:
            self.mutex.unlock()
        return 0

    cdef void read(self, Turn *turn, int64_t now_ns) noexcept nogil:
        """Fill `turn` for the time `now_ns`, without doing anything."""
        self.mutex.lock()
        self._read(turn, now_ns)
        self.mutex.unlock()

    cdef void read_lane(self, uint32_t lane, LaneState *state) noexcept nogil:
        """Fill `state` for a lane."""
        self.mutex.lock()
        state.owed_since_ns = (<Lane>self.lane_at[lane]).owed_since_ns()
        state.is_refused = (<Lane>self.lane_at[lane]).replies.refused
        self.mutex.unlock()

    cdef void _read(self, Turn *turn, int64_t now_ns) noexcept nogil:
        cdef uint32_t index
        cdef bint may_poll = False
        turn.next_turn_ns = self.terms.next_due_ns()
        for index in range(self.lane_count):
            turn.next_turn_ns = min(turn.next_turn_ns,
                                    (<Lane>self.lane_at[index]).next_pack_ns(now_ns))
            if (<Lane>self.lane_at[index]).replies.held_until_ns > now_ns:
                turn.next_turn_ns = min(turn.next_turn_ns,
                                        (<Lane>self.lane_at[index]).replies.held_until_ns)
            elif (<Lane>self.lane_at[index]).polls_membership:
                may_poll = (<Lane>self.lane_at[index]).has_room()
        # Also if no lane polls: the last poll is dropped in time.
        turn.next_turn_ns = min(turn.next_turn_ns, self.membership.next_turn_ns(may_poll))
        turn.has_report = self.reporter.has_report()
        turn.is_quiet = (self.terms.population[<int>RELEASING] == 0
                         and self.terms.population[<int>ACQUIRING] == 0
                         and not self.terms.has_to_give_up_any()
                         and not self.membership.is_leaving())

    cdef bint _has_work(self) noexcept nogil:
        cdef uint32_t index
        for index in range(self.lane_count):
            if ((<Lane>self.lane_at[index]).in_flight or self.terms.has_work(index)
                    or self.redirects.has_asks(index)):
                return True
        return False

    # ---- measurements

    def refresh_all(self) -> None:
        """Have the next turns refresh every lease, due or not. For benchmarks."""
        cdef uint32_t lane
        with nogil:
            self.mutex.lock()
            try:
                for lane in range(self.lane_count):
                    self.terms.refresh_all(lane)
                self.quiet_ns = -1
            finally:
                self.mutex.unlock()

    def watch_lateness(self) -> None:
        """Count from now on how late refreshes are sent."""
        with nogil:
            self.mutex.lock()
            try:
                self.terms.lateness.watch()
            finally:
                self.mutex.unlock()

    @property
    def lateness_ns(self) -> list[tuple[int, int]]:
        """How late refreshes were sent since `watch_lateness`: pairs of a delay and a count.

        The pairs are in rising order. A pair counts the refreshes that were at most that late; its
        delay is exact, or up to a 32nd too long. The last delay is that of the latest refresh.
        """
        cdef Counts counts
        with nogil:
            self.mutex.lock()
            self.terms.lateness.copy(&counts)
            self.mutex.unlock()
        return as_list(&counts)

    @property
    def quiet_since_ns(self) -> int | None:
        """When a turn found nothing due, waiting or in flight; None while there is something."""
        cdef int64_t since_ns
        with nogil:
            self.mutex.lock()
            since_ns = self.quiet_ns
            self.mutex.unlock()
        return None if since_ns < 0 else since_ns
