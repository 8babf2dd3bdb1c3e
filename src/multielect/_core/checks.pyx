# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Checks of every slot, in the debug build alone: `make sanitize KIND=debug`.

Rules of this file:
    * It holds what the table of flags at the top of `states.pyx` says, and what the population and
      the lists say of each election. It changes nothing.
    * What is broken is a fault of ours, and ends the node: `AssertionError` names the election's
      state and the flag.
"""

from libc.stdint cimport uint32_t

from .queues cimport LOOKS
from .slots cimport NONE, QUEUE, Slot
from .states cimport (ACQUIRING, CANDIDATE, COOLDOWN, ELIGIBLE, FREED, GRANTED, IDLE, LEADING,
                      RELEASING, REMOVED, STANDBY, STATES)
from .states import STATE_NAMES


cdef int check(States states) except -1 nogil:
    """Raise `AssertionError` where a slot is not what the table says."""
    cdef uint32_t number, state, draining = 0
    cdef uint32_t[7] population
    cdef Slot *slot
    cdef const char *broken
    for state in range(STATES):
        population[state] = 0
    for number in range(states.slots.used):
        slot = states.slots.at(number)
        if slot.key == NULL:
            continue
        population[slot.state] += 1
        draining += slot.state == LEADING and slot.phase.drain_ns != 0
        broken = _broken(states, number, slot)
        if broken != NULL:
            with gil:
                raise AssertionError(
                    f"an election that is {STATE_NAMES[slot.state]}: {broken.decode()}")
    for state in range(STATES):
        if population[state] != states.population[state]:
            with gil:
                raise AssertionError(
                    f"{population[state]} elections are {STATE_NAMES[state]}, not"
                    f" {states.population[state]} as was counted")
    if draining != states.draining:
        with gil:
            raise AssertionError(f"{draining} terms drain, not {states.draining} as was counted")
    return 0


cdef const char *_broken(States states, uint32_t number, Slot *slot) noexcept nogil:
    """Return which rule is broken; NULL if none is."""
    cdef bint is_timed = states.timers.is_set(number)
    cdef bint is_queued = states.queues.is_queued(number)
    if (slot.deadline_ns != 0) != (slot.state == LEADING):
        return b"deadline_ns is set while it leads, and only then"
    if slot.woken == FREED and slot.state != ACQUIRING:
        return b"woken"
    if slot.woken == GRANTED and slot.state != ACQUIRING and not (slot.state == CANDIDATE
                                                                  and is_queued):
        return b"granted, and not asked for"
    if slot.woken > GRANTED:
        return b"woken is 0, 1 or 2"
    if slot.unwanted and slot.state != ACQUIRING:
        return b"unwanted"
    if slot.refreshing and slot.state != LEADING:
        return b"refreshing"
    if slot.again and slot.state != LEADING:
        return b"again"
    if slot.refreshing > 2:
        return b"refreshing is 0, 1 or 2"
    if slot.again > 1 or slot.forgotten > 1 or slot.unassigned > 1 or slot.endless > 1:
        return b"again, forgotten, unassigned and endless are 0 or 1"
    if slot.state == LEADING and slot.mark.worker_done > 1:
        return b"drained is 0 or 1"
    if slot.state == LEADING and slot.mark.worker_done and slot.phase.drain_ns == 0:
        return b"drained, though it does not drain"
    if slot.state == LEADING and slot.holder != NONE:
        return b"holder, though this node leads"
    if slot.state == LEADING and slot.phase.drain_ns != 0 and not is_timed:
        return b"it drains without a timer"
    if slot.state == RELEASING and slot.mark.moved > 1:
        return b"moved is 0 or 1"
    if slot.state == RELEASING and slot.next_state not in (CANDIDATE, COOLDOWN, IDLE, REMOVED):
        return b"next_state does not follow a release"
    if slot.state == ACQUIRING and slot.next_state not in (CANDIDATE, IDLE, REMOVED):
        return b"next_state does not follow an acquire"
    if slot.phase.floor < 0:
        return b"drain_ns or floor is below zero"
    if slot.unassigned and slot.successor != NONE:
        return b"unassigned, though there is a successor"
    if slot.undelivered != NONE and not slot.events_waiting:
        return b"untold, though nothing waits to be told"
    if slot.undelivered_drain != NONE and slot.state != LEADING:
        return b"undelivered_drain"
    if slot.state == REMOVED and (slot.holder != NONE or slot.successor != NONE
                                  or slot.claimant != NONE):
        return b"it refers to a holder"
    if slot.state == REMOVED and not slot.forgotten:
        return b"it is not forgotten"
    if slot.forgotten and slot.state != REMOVED and slot.next_state != REMOVED:
        return b"forgotten, and not on its way to be gone"
    if (slot.state == RELEASING or slot.state == COOLDOWN) and not is_timed:
        return b"it waits for a time, without a timer"
    if (slot.state == CANDIDATE and slot.eligibility == ELIGIBLE and states.running
            and not is_timed and not is_queued):
        return b"it waits for nothing"
    if slot.state == IDLE and (is_timed or is_queued):
        return b"it waits for something"
    if slot.links[QUEUE].list == LOOKS and slot.eligibility != STANDBY:
        return b"it is looked at, though it is not another's share"
    if slot.links[QUEUE].list != NONE and slot.state in (IDLE, COOLDOWN):
        return b"it is queued"
    return NULL
