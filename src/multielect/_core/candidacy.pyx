# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What any thread may read of an election at any time, without a lock and without I/O.

Rules of this file:
    * A candidacy reads the shared fields of a slot, and the clock. It writes nothing but the time
      of the last heartbeat.
    * A candidacy reads the deadline first, then the epoch, then the generation. The core writes
      them in the opposite order. So a deadline is never paired with the epoch of another term, or
      with another election in the same slot.
"""

from .slots cimport Slot, load_i64, load_u8, load_u32, store_i64


cdef class BaseCandidacy:
    """A view of one election; bound to one term where `term_epoch` is not 0."""

    def __init__(self, Slots slots not None, Clock clock not None, uint32_t number,
                 uint32_t generation, int64_t term_epoch=0):
        if number >= load_u32(&slots.used):
            raise IndexError(f"there is no election number {number}")
        self.slots = slots
        self.clock = clock
        self.number = number
        self.generation = generation
        self.term_epoch = term_epoch

    cdef int64_t _deadline_ns(self) noexcept nogil:
        """Return the deadline of the term, or 0 if there is none."""
        cdef Slot *slot = self.slots.at(self.number)
        cdef int64_t deadline_ns = load_i64(&slot.deadline_ns)
        if deadline_ns == 0:
            return 0
        if self.term_epoch != 0 and load_i64(&slot.epoch) != self.term_epoch:
            return 0
        if load_u32(&slot.generation) != self.generation or load_i64(&self.slots.open) == 0:
            return 0
        return deadline_ns

    @property
    def is_leader(self) -> bool:
        """Whether this node leads now: a compare with the clock, no I/O, any thread."""
        cdef int64_t deadline_ns = self._deadline_ns()
        return deadline_ns != 0 and self.clock.now() < deadline_ns

    @property
    def epoch(self) -> int:
        """The fencing token of this node's current or latest term; 0 before the first."""
        cdef int64_t epoch
        if self.term_epoch != 0:
            return self.term_epoch
        epoch = load_i64(&self.slots.at(self.number).epoch)
        return epoch if load_u32(&self.slots.at(self.number).generation) == self.generation else 0

    @property
    def remaining(self) -> float:
        """Seconds until the term's deadline, which a refresh moves; 0.0 without a term."""
        cdef int64_t left_ns = self._deadline_ns() - self.clock.now()
        return left_ns / 1e9 if left_ns > 0 else 0.0

    def heartbeat(self) -> None:
        """Tell the watchdog (`max_stall`) that the worker goes on. No lock, any thread."""
        cdef Slot *slot = self.slots.at(self.number)
        if load_u32(&slot.generation) == self.generation:
            store_i64(&slot.heartbeat_ns, self.clock.now())

    @property
    def is_removed(self) -> bool:
        """Whether the election was removed from its group."""
        cdef Slot *slot = self.slots.at(self.number)
        return load_u8(&slot.forgotten) != 0 or load_u32(&slot.generation) != self.generation
