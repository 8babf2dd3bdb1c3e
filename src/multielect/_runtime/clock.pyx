# cython: language_level=3, auto_pickle=False
"""The local clock, on which all deadlines are measured.

Rules of this file:
    * The clock never goes back. It counts the time in which the machine is suspended, because a
      lease expires at the server meanwhile. Linux has CLOCK_BOOTTIME for that. Other systems have
      only CLOCK_MONOTONIC, which counts that time on macOS too.
    * Reading the clock does not take the GIL.
    * A `ManualClock` is for tests. It stands still until the test advances it.
"""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <time.h>
    #if defined(CLOCK_BOOTTIME)
    #define MULTIELECT_CLOCK CLOCK_BOOTTIME
    #else
    #define MULTIELECT_CLOCK CLOCK_MONOTONIC
    #endif
    static inline int64_t multielect_clock_ns(void) {
        struct timespec t;
        clock_gettime(MULTIELECT_CLOCK, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }
    static inline int64_t multielect_load(const int64_t *p) {
        return __atomic_load_n(p, __ATOMIC_ACQUIRE);
    }
    static inline void multielect_store(int64_t *p, int64_t v) {
        __atomic_store_n(p, v, __ATOMIC_RELEASE);
    }
    """
    int64_t multielect_clock_ns() noexcept nogil
    int64_t multielect_load(const int64_t *place) noexcept nogil
    void multielect_store(int64_t *place, int64_t value) noexcept nogil


cdef class Clock:
    """The machine's clock, which counts the time in which the machine is suspended."""

    def __cinit__(self):
        self.manual_ns = -1

    cdef int64_t now(self) noexcept nogil:
        cdef int64_t manual_ns = multielect_load(&self.manual_ns)
        return manual_ns if manual_ns >= 0 else multielect_clock_ns()

    def now_ns(self) -> int:
        """Return the nanoseconds since a fixed moment in the past. Any thread may call this."""
        return self.now()


cdef class ManualClock(Clock):
    """A clock that moves only when `advance_ns` is called. It begins at `start_ns`."""

    def __init__(self, int64_t start_ns=1_000_000_000):
        if start_ns < 0:
            raise ValueError(f"start_ns must not be negative: {start_ns}")
        multielect_store(&self.manual_ns, start_ns)

    def advance_ns(self, int64_t step_ns) -> int:
        """Move the clock forward by `step_ns` nanoseconds. Returns its new time.

        Raises:
            ValueError: if `step_ns` is negative.
        """
        if step_ns < 0:
            raise ValueError(f"a clock does not go back: {step_ns}")
        multielect_store(&self.manual_ns, self.manual_ns + step_ns)
        return self.manual_ns
