# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Bytes between the core and its sockets, without the GIL.

Rules of this file:
    * From `run` being called until it returns, no Python is run and the GIL is not wanted:
      a thread that keeps it for seconds, or an event loop that is blocked, delays no refresh
      and no deadline.
    * What there is to tell waits in the core, bounded, and one byte on the notify_fd descriptor
      says that it is there. Nobody has to read it for refreshes to go on.
    * The time of a turn is read before its bytes are sent: it is what deadlines count from.
    * A batch without an answer for `response_timeout_ns` means that the connection is dead.
    * A server that never stops talking is listened to for so long at a time: refreshes and
      deadlines come first.
    * `run` returns when there is something that only Python can do: the connection is lost,
      `interrupt` was called, or the node has stopped.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t
from posix.unistd cimport read, write

from .._runtime.clock cimport Clock
from .._core.core cimport Core, LaneState, Turn
from .._core.lane cimport Lane
from .._core.slots cimport NEVER

cdef extern from *:
    """
    #include <poll.h>
    #include <sys/types.h>
    #include <sys/socket.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    static inline int64_t multielect_pump_load(const int64_t *p) {
        return __atomic_load_n(p, __ATOMIC_ACQUIRE);
    }
    static inline void multielect_pump_store(int64_t *p, int64_t v) {
        __atomic_store_n(p, v, __ATOMIC_RELEASE);
    }
    static inline int64_t multielect_pump_swap(int64_t *p, int64_t v) {
        return __atomic_exchange_n(p, v, __ATOMIC_ACQ_REL);
    }
    """
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout_ms) nogil
    ssize_t recv(int fd, void *data, size_t size, int flags) nogil
    ssize_t send(int fd, const void *data, size_t size, int flags) nogil
    const short POLLIN
    const short POLLOUT
    const int MSG_NOSIGNAL
    int64_t load "multielect_pump_load" (const int64_t *place) noexcept nogil
    void store "multielect_pump_store" (int64_t *place, int64_t value) noexcept nogil
    int64_t swap "multielect_pump_swap" (int64_t *place, int64_t value) noexcept nogil

cdef enum:
    READ_BYTES = 1 << 16
    MAX_READS = 8           # of one socket in one turn
    MAX_SLEEP_MS = 60_000

cdef enum:
    LANE = 0                # it has one connection for batches

cdef enum Outcome:
    GOING = 0
    FINISHED = 1
    INTERRUPTED = 2
    CLOSED = 3
    BROKEN = 4
    SILENT = 5
    MALFORMED = 6
    REFUSED = 7

OUTCOMES = ("going", "finished", "interrupted", "closed", "broken", "silent", "malformed",
            "refused")


cdef class Pump:
    """Runs a core over sockets, for one thread at a time.

    Args:
        core: what to run.
        clock: the time.
        wake_fd: a descriptor to read from; a byte that arrives there ends a sleep.
        wake_end_fd: its other end, which is written to by `wake`.
        notify_fd: a descriptor to write to when the core has something to tell.
        response_timeout_ns: how long the server may take to answer.
    """

    cdef Core core
    cdef Lane lane
    cdef Clock clock
    cdef int wake_fd, wake_end_fd, notify_fd
    cdef int fd, listener
    cdef int64_t response_timeout_ns
    cdef int64_t stop_by_ns         # shared; NEVER while the node goes on
    cdef int64_t interrupted        # shared
    cdef int64_t announced          # shared; a byte was written to notify_fd and not read yet
    cdef readonly int error_number
    cdef readonly int64_t waited_ns
    cdef char buffer[65536]

    def __init__(self, Core core not None, Clock clock not None, *, int wake_fd, int wake_end_fd,
                 int notify_fd, int64_t response_timeout_ns):
        self.core = core
        self.lane = core.lane(LANE)
        self.clock = clock
        self.wake_fd = wake_fd
        self.wake_end_fd = wake_end_fd
        self.notify_fd = notify_fd
        self.response_timeout_ns = response_timeout_ns
        self.stop_by_ns = NEVER
        self.fd = -1
        self.listener = -1

    # ---- any thread

    def wake(self) -> None:
        """Have the next turn happen now: the core was changed."""
        self._ring()

    def interrupt(self) -> None:
        """Have `run` return."""
        store(&self.interrupted, 1)
        self._ring()

    def stop_by(self, int64_t at_ns) -> None:
        """Have `run` return when all is released, and at `at_ns` in any case."""
        store(&self.stop_by_ns, at_ns)
        self._ring()

    def close(self) -> None:
        """Let go of the wake_fd before it is closed: its descriptor may be another's at once."""
        self.wake_end_fd = -1

    def heard(self) -> None:
        """The notify_fd descriptor was read: write to it again for what comes from now on."""
        store(&self.announced, 0)

    cdef void _ring(self) noexcept:
        # A full buffer wakes as well as one more byte would.
        cdef char byte = 0
        if self.wake_end_fd >= 0:
            write(self.wake_end_fd, &byte, 1)

    # ---- the owner thread

    def run(self, int fd, int listener) -> str:
        """Pump until there is something that only Python can do.

        Args:
            fd: a connected socket for batches that does not block, or -1.
            listener: one more for announcements, or -1.

        Returns:
            One of `OUTCOMES`. After one that is neither 'finished' nor 'interrupted', the
            core has forgotten the connection.
        """
        cdef int outcome = GOING
        with nogil:
            if fd >= 0 and self.fd < 0:
                self.core.connect(LANE)
            self.fd = fd
            self.listener = listener
            while outcome == GOING:
                outcome = self._turn()
            if outcome > INTERRUPTED:
                self.fd = -1
                self.listener = -1
                self.core.disconnect(LANE, self.clock.now())
        return OUTCOMES[outcome]

    cdef int _turn(self) except -1 nogil:
        """Tick, send, sleep, and receive what has come."""
        cdef Turn turn
        cdef LaneState state
        cdef int outcome
        cdef int64_t now_ns = self.clock.now()
        cdef int64_t stop_by_ns = load(&self.stop_by_ns)
        self.core.turn(now_ns, &turn)
        if turn.has_report and swap(&self.announced, 1) == 0:
            self._notify()
        if swap(&self.interrupted, 0):
            return INTERRUPTED
        if stop_by_ns != NEVER and (turn.is_quiet or now_ns >= stop_by_ns):
            self.core.give_up(now_ns)
            return FINISHED
        outcome = self._send()
        if outcome != GOING:
            return outcome
        self.core.read_lane(LANE, &state)
        outcome = self._sleep_and_receive(min(turn.next_turn_ns, stop_by_ns), &state)
        if outcome != GOING or self.fd < 0:
            return outcome
        self.core.read_lane(LANE, &state)
        if state.is_refused:
            return REFUSED
        if state.owed_since_ns >= 0:
            self.waited_ns = self.clock.now() - state.owed_since_ns
            if self.waited_ns >= self.response_timeout_ns:
                return SILENT
        return GOING

    cdef int _sleep_and_receive(self, int64_t until_ns, LaneState *state) except -1 nogil:
        cdef pollfd[3] waiting
        cdef int count = 1, outcome = GOING
        cdef int64_t sleep_ms
        if state.owed_since_ns >= 0:
            until_ns = min(until_ns, state.owed_since_ns + self.response_timeout_ns)
        sleep_ms = (until_ns - self.clock.now() + 999_999) // 1_000_000
        sleep_ms = max(<int64_t>0, min(sleep_ms, <int64_t>MAX_SLEEP_MS))
        waiting[0].fd = self.wake_fd
        waiting[0].events = POLLIN
        if self.fd >= 0:
            waiting[1].fd = self.fd
            waiting[1].events = POLLIN
            if self.lane.writer.outgoing.waiting():
                waiting[1].events |= POLLOUT
            count = 2
        if self.listener >= 0:
            waiting[2].fd = self.listener
            waiting[2].events = POLLIN
            count = 3
        if poll(waiting, count, <int>sleep_ms) <= 0:
            return GOING
        if waiting[0].revents:
            self._drain_wake_fd()
        if count > 1 and waiting[1].revents & ~POLLOUT:
            outcome = self._receive(self.fd, False)
        if outcome == GOING and count > 2 and waiting[2].revents:
            outcome = self._receive(self.listener, True)
        return outcome

    cdef int _send(self) except -1 nogil:
        cdef ssize_t count
        while self.fd >= 0 and self.lane.writer.outgoing.waiting():
            count = send(self.fd, self.lane.writer.outgoing.data + self.lane.writer.outgoing.start,
                         self.lane.writer.outgoing.waiting(), MSG_NOSIGNAL)
            if count < 0:
                return self._failed()
            self.lane.writer.outgoing.drop(count)
        return GOING

    cdef int _receive(self, int fd, bint listens) except -1 nogil:
        cdef ssize_t count
        cdef int malformed, _i
        for _i in range(MAX_READS):
            count = recv(fd, self.buffer, READ_BYTES, 0)
            if count == 0:
                return CLOSED
            if count < 0:
                return self._failed()
            if listens:
                malformed = self.core.hear(LANE, self.buffer, count, self.clock.now())
            else:
                malformed = self.core.receive(LANE, self.buffer, count, self.clock.now())
            if malformed:
                return MALFORMED
            if count < READ_BYTES:
                break
        return GOING

    cdef int _failed(self) noexcept nogil:
        if errno in (EAGAIN, EINTR):
            return GOING
        self.error_number = errno
        return BROKEN

    cdef void _drain_wake_fd(self) noexcept nogil:
        cdef char[256] bytes
        while read(self.wake_fd, bytes, sizeof(bytes)) == sizeof(bytes):
            pass

    cdef void _notify(self) noexcept nogil:
        cdef char byte = 0
        write(self.notify_fd, &byte, 1)
