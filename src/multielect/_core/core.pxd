from .lane cimport Lane
from .resp cimport Incoming
from .terms cimport Terms
from .wakeups cimport Wakeups


cdef class Core:
    cdef readonly Terms terms
    cdef Lane lane
    cdef Wakeups wakeups
    cdef Incoming announcements
