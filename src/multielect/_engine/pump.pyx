# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The pump: moves bytes between the core and its sockets, without the GIL.

Rules of this file:
    * From `run` being called until it returns, the pump runs no Python and does not want the GIL.
      A thread that keeps the GIL for seconds, or a blocked event loop, delays no refresh and no
      deadline. A connection that is lost delays none on the other lanes.
    * Reports wait in the core, bounded. One byte on the `notify_fd` descriptor says that there is
      one. Refreshes go on even if nobody reads it.
    * The pump reads the time of a turn before it sends the turn's bytes. Deadlines count from that
      time.
    * If a batch has no answer for `response_timeout_ns`, the connection is dead.
    * A server that never stops sending is read for a limited time each turn: refreshes and
      deadlines come first.
    * Other threads offer connections with `attach`, and the pump takes them up in its next turn.
      The pump never touches a descriptor again once it has reported its loss: see `take_loss`.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint32_t
from posix.unistd cimport read, write

from .._runtime.clock cimport Clock
from .._core.core cimport Core, LaneState, Turn
from .._core.lane cimport Lane
from .._core.queues cimport MAX_LANES
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

cdef enum Outcome:
    GOING = 0
    FINISHED = 1
    CLOSED = 2
    BROKEN = 3
    SILENT = 4
    MALFORMED = 5
    REFUSED = 6
    DETACHED = 7

OUTCOMES = ("going", "finished", "closed", "broken", "silent", "malformed", "refused", "detached")

cdef struct Port:           # the sockets of one lane
    int fd                  # -1: the lane has no connection
    int listener            # -1: the lane has no connection that only listens
    int64_t offer           # shared; a connection to take up; 0: none
    int64_t is_unwanted     # shared; the connection, or the offer, is to be given up
    int64_t loss            # shared; an outcome that nobody has taken yet; 0: none
    int error_number        # of the loss
    int64_t waited_ns       # of the loss


cdef class Pump:
    """Runs a core over sockets, for one thread at a time.

    Args:
        core: the core to run.
        clock: the clock.
        wake_fd: a descriptor to read from; a byte that arrives there ends a sleep.
        wake_end_fd: its other end, to which `wake` writes.
        notify_fd: a descriptor to write to when there is a report or a loss to take.
        response_timeout_ns: how long a server may take to answer.
    """

    cdef Core core
    cdef Clock clock
    cdef int wake_fd, wake_end_fd, notify_fd
    cdef Port ports[128]
    cdef int64_t has_requests       # shared; a lane has an offer, or an unwanted connection
    cdef uint32_t port_count        # one more than the highest lane that was ever attached
    cdef int64_t response_timeout_ns
    cdef int64_t stop_by_ns         # shared; NEVER while the node goes on
    cdef int64_t announced          # shared; a byte was written to notify_fd and not read yet
    cdef pollfd polled[257]         # wake_fd, and two of each lane
    cdef char buffer[65536]

    def __init__(self, Core core not None, Clock clock not None, *, int wake_fd, int wake_end_fd,
                 int notify_fd, int64_t response_timeout_ns):
        cdef int lane
        self.core = core
        self.clock = clock
        self.wake_fd = wake_fd
        self.wake_end_fd = wake_end_fd
        self.notify_fd = notify_fd
        self.response_timeout_ns = response_timeout_ns
        self.stop_by_ns = NEVER
        for lane in range(<int>MAX_LANES):
            self.ports[lane].fd = -1
            self.ports[lane].listener = -1

    # ---- any thread

    def wake(self) -> None:
        """Have the next turn happen now: the core was changed."""
        self._ring()

    def attach(self, uint32_t lane, int fd, int listener) -> None:
        """Offer a connection, which the next turn takes up.

        The lane must have none: either it never had one, or its loss was taken.

        Args:
            lane: the number of the lane.
            fd: a connected socket for batches that does not block.
            listener: a second one for announcements, or -1.
        """
        store(&self.ports[self._checked(lane)].is_unwanted, 0)
        store(&self.ports[lane].offer, <int64_t>(fd + 1) << 32 | (listener + 1))
        store(&self.has_requests, 1)
        self._ring()

    def detach(self, uint32_t lane) -> None:
        """Have the next turn give up the lane's connection. The loss is reported as 'detached'.

        Nothing happens if the connection was lost before.
        """
        store(&self.ports[self._checked(lane)].is_unwanted, 1)
        store(&self.has_requests, 1)
        self._ring()

    def take_loss(self, uint32_t lane) -> tuple[str, int, int] | None:
        """Return how the lane lost its connection, once; None if there is nothing new.

        From then on the caller may close the sockets, and `attach` others.

        Returns:
            One of `OUTCOMES`; the number of the system's error, after 'broken'; how many
            nanoseconds the server was silent, after 'silent'.
        """
        cdef Port *port = &self.ports[self._checked(lane)]
        cdef int64_t loss = swap(&port.loss, 0)
        if loss == 0:
            return None
        return OUTCOMES[loss], port.error_number, port.waited_ns

    cdef uint32_t _checked(self, uint32_t lane) except? 0:
        # Index errors are not checked in compiled code.
        if lane >= MAX_LANES:
            raise IndexError(f"there is no lane {lane}")
        return lane

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

    def run(self) -> None:
        """Pump until the node has stopped."""
        with nogil:
            while self._turn() == GOING:
                pass

    cdef int _turn(self) except -1 nogil:
        """Do what is due, send, sleep, and receive what has come."""
        cdef Turn turn
        cdef int64_t until_ns
        cdef int64_t now_ns = self.clock.now()
        cdef int64_t stop_by_ns = load(&self.stop_by_ns)
        cdef uint32_t lane
        # Most turns find none, and do not look at all lanes for it.
        if load(&self.has_requests) and swap(&self.has_requests, 0):
            for lane in range(<uint32_t>MAX_LANES):
                self._take_up(lane)
        self.core.turn(now_ns, &turn)
        if turn.has_report:
            self._notify()
        if stop_by_ns != NEVER and (turn.is_quiet or now_ns >= stop_by_ns):
            self.core.give_up(now_ns)
            return FINISHED
        until_ns = min(turn.next_turn_ns, stop_by_ns)
        for lane in range(self.port_count):
            if self.ports[lane].fd >= 0:
                self._settle(lane, self._send(lane))
            if self.ports[lane].fd >= 0:
                until_ns = min(until_ns, self._answer_due_ns(lane))
        self._sleep(until_ns)
        for lane in range(self.port_count):
            if self.ports[lane].fd >= 0:
                self._settle(lane, self._receive_on(lane))
            if self.ports[lane].fd >= 0:
                self._settle(lane, self._watch(lane))
        return GOING

    cdef int _take_up(self, uint32_t lane) except -1 nogil:
        """Take up the connection that was offered to a lane, or give up the one it has."""
        cdef Port *port = &self.ports[lane]
        cdef int64_t is_unwanted = swap(&port.is_unwanted, 0)
        cdef int64_t offer = swap(&port.offer, 0)
        if offer:
            port.fd = <int>(offer >> 32) - 1
            port.listener = <int><uint32_t>offer - 1
            self.port_count = max(self.port_count, lane + 1)
            self.core.connect(lane)
        if is_unwanted and port.fd >= 0:
            self._settle(lane, DETACHED)
        return 0

    cdef int _settle(self, uint32_t lane, int outcome) except -1 nogil:
        """Give up the lane's connection and report it, if something ended it."""
        cdef Port *port = &self.ports[lane]
        if outcome == GOING:
            return 0
        port.fd = -1
        port.listener = -1
        self.core.disconnect(lane, self.clock.now())
        store(&port.loss, outcome)
        self._notify()
        return 0

    cdef int64_t _answer_due_ns(self, uint32_t lane) noexcept nogil:
        """Return by when the lane's server must have answered; NEVER if it owes no answer."""
        cdef LaneState state
        self.core.read_lane(lane, &state)
        return NEVER if state.owed_since_ns < 0 else state.owed_since_ns + self.response_timeout_ns

    cdef int _watch(self, uint32_t lane) noexcept nogil:
        """Tell whether the lane's server refuses all elections, or is silent for too long."""
        cdef LaneState state
        self.core.read_lane(lane, &state)
        if state.is_refused:
            return REFUSED
        if state.owed_since_ns < 0:
            return GOING
        self.ports[lane].waited_ns = self.clock.now() - state.owed_since_ns
        return SILENT if self.ports[lane].waited_ns >= self.response_timeout_ns else GOING

    cdef int _sleep(self, int64_t until_ns) noexcept nogil:
        """Sleep until something arrives, or until `until_ns`. `polled` then says what arrived."""
        cdef uint32_t lane
        cdef int64_t sleep_ms = (until_ns - self.clock.now() + 999_999) // 1_000_000
        sleep_ms = max(<int64_t>0, min(sleep_ms, <int64_t>MAX_SLEEP_MS))
        self.polled[0].fd = self.wake_fd
        self.polled[0].events = POLLIN
        for lane in range(self.port_count):
            # The system leaves out negative descriptors.
            self.polled[1 + 2 * lane].fd = self.ports[lane].fd
            self.polled[1 + 2 * lane].events = POLLIN
            self.polled[2 + 2 * lane].fd = self.ports[lane].listener
            self.polled[2 + 2 * lane].events = POLLIN
            if self.ports[lane].fd >= 0 and self._waiting(lane):
                self.polled[1 + 2 * lane].events |= POLLOUT
        if poll(self.polled, 1 + 2 * self.port_count, <int>sleep_ms) <= 0:
            for lane in range(1 + 2 * self.port_count):
                self.polled[lane].revents = 0
        elif self.polled[0].revents:
            self._drain_wake_fd()
        return 0

    cdef int _receive_on(self, uint32_t lane) except -1 nogil:
        cdef int outcome = GOING
        if self.polled[1 + 2 * lane].revents & ~POLLOUT:
            outcome = self._receive(lane, self.ports[lane].fd, False)
        if outcome == GOING and self.polled[2 + 2 * lane].revents:
            outcome = self._receive(lane, self.ports[lane].listener, True)
        return outcome

    cdef size_t _waiting(self, uint32_t lane) noexcept nogil:
        """Return how many bytes of the lane wait to be sent."""
        return (<Lane>self.core.lane_at[lane]).writer.outgoing.waiting()

    cdef int _send(self, uint32_t lane) noexcept nogil:
        cdef ssize_t count
        cdef void *found = self.core.lane_at[lane]
        while self._waiting(lane):
            count = send(self.ports[lane].fd,
                         (<Lane>found).writer.outgoing.data + (<Lane>found).writer.outgoing.start,
                         self._waiting(lane), MSG_NOSIGNAL)
            if count < 0:
                return self._failed(lane)
            (<Lane>found).writer.outgoing.drop(count)
        return GOING

    cdef int _receive(self, uint32_t lane, int fd, bint listens) except -1 nogil:
        cdef ssize_t count
        cdef int malformed, _i
        for _i in range(MAX_READS):
            count = recv(fd, self.buffer, READ_BYTES, 0)
            if count == 0:
                return CLOSED
            if count < 0:
                return self._failed(lane)
            if listens:
                malformed = self.core.hear(lane, self.buffer, count, self.clock.now())
            else:
                malformed = self.core.receive(lane, self.buffer, count, self.clock.now())
            if malformed:
                return MALFORMED
            if count < READ_BYTES:
                break
        return GOING

    cdef int _failed(self, uint32_t lane) noexcept nogil:
        if errno in (EAGAIN, EINTR):
            return GOING
        self.ports[lane].error_number = errno
        return BROKEN

    cdef void _drain_wake_fd(self) noexcept nogil:
        cdef char[256] bytes
        while read(self.wake_fd, bytes, sizeof(bytes)) == sizeof(bytes):
            pass

    cdef void _notify(self) noexcept nogil:
        cdef char byte = 0
        if swap(&self.announced, 1) == 0:
            write(self.notify_fd, &byte, 1)
