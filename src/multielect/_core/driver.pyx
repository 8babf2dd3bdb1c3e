# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The turns of a core, driven from Python: for the engine's thread, the simulator and tests.

Rules of this file:
    * Each method does what the core's of the same name does, without the GIL. The pump calls those
      of the core.
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
        """Take the scripts that suit the server of the next connection."""
        self.lane.prepare(scripts)

    def connect(self, scripts=None) -> None:
        """Begin on a fresh connection, with these scripts or those it was prepared with."""
        if scripts is not None:
            self.prepare(scripts)
        with nogil:
            self.core.connect(self.index)

    def disconnect(self, int64_t now_ns) -> None:
        """Forget what was in flight. Bytes not yet sent are not sent any more."""
        with nogil:
            self.core.disconnect(self.index, now_ns)

    def receive(self, const unsigned char[::1] data, int64_t now_ns) -> None:
        """Take bytes from the server and act on the replies among them.

        Raises:
            ProtocolError: when they are malformed; the connection must be given up.
        """
        cdef int outcome = 0
        if data.shape[0]:
            with nogil:
                outcome = self.core.receive(self.index, <const char *>&data[0], data.shape[0],
                                            now_ns)
        if outcome:
            raise ProtocolError(self.parse_error)

    def hear(self, const unsigned char[::1] data, int64_t now_ns) -> None:
        """Take bytes from a second connection that does nothing but listen.

        Raises:
            ProtocolError: when they are malformed; the connection must be given up.
        """
        cdef int outcome = 0
        if data.shape[0]:
            with nogil:
                outcome = self.core.hear(self.index, <const char *>&data[0], data.shape[0], now_ns)
        if outcome:
            raise ProtocolError(self.parse_error)

    @property
    def parse_error(self) -> str:
        """What was malformed in what the server sent last."""
        cdef const char *what = self.lane.replies.parse_error
        return f"the server's reply is malformed: {what.decode() if what != NULL else '?'}"

    @property
    def outgoing(self):
        """The bytes that wait to be sent, as a buffer; release views before other calls."""
        return self.lane.writer.outgoing

    @property
    def outgoing_bytes(self) -> int:
        """How many bytes wait to be sent."""
        return self.lane.writer.outgoing.waiting()

    def sent(self, size_t count) -> None:
        """The first `count` of the outgoing bytes have been sent."""
        if count > self.lane.writer.outgoing.waiting():
            raise ValueError("more was sent than there was")
        self.lane.writer.outgoing.drop(count)

    @property
    def is_refused(self) -> bool:
        """Whether the server serves no election, so that another must be found."""
        cdef LaneState state
        with nogil:
            self.core.read_lane(self.index, &state)
        return state.is_refused

    @property
    def refusal(self) -> str:
        """In which words the server refused to serve us any more; empty if none did."""
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
        """Since when the server owes an answer.

        It is when the oldest unanswered batch was sent, or when another was answered since: a
        server that is slow is not silent.
        """
        cdef LaneState state
        with nogil:
            self.core.read_lane(self.index, &state)
        return None if state.owed_since_ns < 0 else state.owed_since_ns

    # ---- all lanes

    def turn(self, int64_t now_ns) -> int:
        """Do what is due at `now_ns`, the time read before the bytes packed now are sent.

        Returns when the next turn is due, if nothing happens before.
        """
        cdef Turn turn
        with nogil:
            self.core.turn(now_ns, &turn)
        return turn.next_turn_ns

    def next_turn_ns(self, int64_t now_ns) -> int:
        """Return when `turn` should be called next, if nothing happens before."""
        cdef Turn turn
        with nogil:
            self.core.read(&turn, now_ns)
        return turn.next_turn_ns

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is left that must still be released."""
        cdef Turn turn
        with nogil:
            self.core.read(&turn, 0)
        return turn.is_quiet

    def give_up(self, int64_t now_ns) -> None:
        """End what terms are left of a node that stops, without a word to a server."""
        with nogil:
            self.core.give_up(now_ns)
