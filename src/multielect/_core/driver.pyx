# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Drives a core from Python: for the engine's thread, the simulator and tests.

Rules of this file:
    * Each method calls the core's method of the same name without the GIL. The pump calls the
      core's methods itself.
    * A driver is for one lane. Only one thread may send.
"""

from libc.stdint cimport int64_t, uint32_t

from ..errors import ProtocolError
from .core cimport Core, LaneState, Turn


cdef class Driver:
    """Drives one lane of a core.

    Args:
        core: the core.
        lane: the number of its lane.

    Raises:
        IndexError: if there is no such lane.
    """

    def __init__(self, Core core not None, uint32_t lane=0):
        self.core = core
        self.lane = core.lane(lane)
        self.index = lane

    # ---- the connection

    def prepare(self, scripts) -> None:
        """Take the scripts for the server of the next connection."""
        self.lane.prepare(scripts)

    def connect(self, scripts=None) -> None:
        """Begin to use a new connection, with these scripts or those of `prepare`."""
        if scripts is not None:
            self.prepare(scripts)
        with nogil:
            self.core.connect(self.index)

    def disconnect(self, int64_t now_ns) -> None:
        """Forget the batches in flight, and drop the bytes that are not sent yet."""
        with nogil:
            self.core.disconnect(self.index, now_ns)

    def receive(self, const unsigned char[::1] data, int64_t now_ns) -> None:
        """Take bytes from the server, and act on the complete replies among them.

        Raises:
            ProtocolError: if they are malformed. The caller must close the connection.
        """
        cdef int outcome = 0
        if data.shape[0]:
            with nogil:
                outcome = self.core.receive(self.index, <const char *>&data[0], data.shape[0],
                                            now_ns)
        if outcome:
            raise ProtocolError(self.parse_error)

    def hear(self, const unsigned char[::1] data, int64_t now_ns) -> None:
        """Take bytes from a second connection, which only subscribes.

        Raises:
            ProtocolError: if they are malformed. The caller must close the connection.
        """
        cdef int outcome = 0
        if data.shape[0]:
            with nogil:
                outcome = self.core.hear(self.index, <const char *>&data[0], data.shape[0], now_ns)
        if outcome:
            raise ProtocolError(self.parse_error)

    @property
    def parse_error(self) -> str:
        """An error text that says what was malformed in the server's last malformed reply."""
        cdef const char *what = self.lane.replies.parse_error
        return f"the server's reply is malformed: {what.decode() if what != NULL else '?'}"

    @property
    def outgoing(self):
        """The bytes to be sent, as a buffer. Release its views before any other call."""
        return self.lane.writer.outgoing

    @property
    def outgoing_bytes(self) -> int:
        """How many bytes wait to be sent."""
        return self.lane.writer.outgoing.waiting()

    def sent(self, size_t count) -> None:
        """Drop the first `count` of the outgoing bytes, which the caller has sent.

        Raises:
            ValueError: if there are not so many.
        """
        if count > self.lane.writer.outgoing.waiting():
            raise ValueError(f"{count} bytes cannot have been sent: there are only "
                             f"{self.lane.writer.outgoing.waiting()}")
        self.lane.writer.outgoing.drop(count)

    @property
    def is_refused(self) -> bool:
        """Whether the server serves no election, so that the caller must find another."""
        cdef LaneState state
        with nogil:
            self.core.read_lane(self.index, &state)
        return state.is_refused

    @property
    def refusal(self) -> str:
        """The error with which the server last refused to serve elections; empty if none did."""
        cdef bytes words
        with nogil:
            self.core.mutex.lock()
        try:
            words = self.lane.replies.refusal[:self.lane.replies.refusal_bytes]
        finally:
            self.core.mutex.unlock()
        return words.decode(errors="replace")

    @property
    def owed_since_ns(self) -> int | None:
        """Since when the server owes an answer; None if it owes none.

        The time when the oldest unanswered batch was sent, or when the last batch was answered,
        whichever is later. So a slow server does not count as silent.
        """
        cdef LaneState state
        with nogil:
            self.core.read_lane(self.index, &state)
        return None if state.owed_since_ns < 0 else state.owed_since_ns

    # ---- all lanes

    def turn(self, int64_t now_ns) -> int:
        """Do what is due at `now_ns`, which the caller read before it sends what is packed.

        Returns when the next turn is due, if nothing happens before.
        """
        cdef Turn turn
        with nogil:
            self.core.turn(now_ns, &turn)
        return turn.next_turn_ns

    def next_turn_ns(self, int64_t now_ns) -> int:
        """Return when the next turn is due, if nothing happens before."""
        cdef Turn turn
        with nogil:
            self.core.read(&turn, now_ns)
        return turn.next_turn_ns

    @property
    def is_quiet(self) -> bool:
        """Whether no term, acquire or release is left that a stop must wait for."""
        cdef Turn turn
        with nogil:
            self.core.read(&turn, 0)
        return turn.is_quiet

    def give_up(self, int64_t now_ns) -> None:
        """End all terms that a stopping node still has, without releasing their leases."""
        with nogil:
            self.core.give_up(now_ns)
