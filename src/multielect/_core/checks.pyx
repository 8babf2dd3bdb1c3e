# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Checks every slot, in the debug build only: `make sanitize KIND=debug`.

Rules of this file:
    * It checks each slot against the table of flags at the top of `states.pyx`, and against the
      timers, the queues and the counts of each state. It changes nothing.
    * A broken rule is a fault of this library and ends the node. The `AssertionError` names the
      election's state and the rule.
"""

from libc.stdint cimport uint32_t

from .queues cimport PROBES
from .slots cimport NONE, QUEUE, Slot
from .states cimport (ACQUIRING, CANDIDATE, COOLDOWN, ELIGIBLE, FREED, GRANTED, IDLE, LEADING,
                      RELEASING, REMOVED, STANDBY, STATES)
from .states import STATE_NAMES


cdef int check(States states) except -1 nogil:
    """Raise `AssertionError` if a slot breaks a rule."""
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
        return b"it is granted, and no acquire waits"
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
        return b"worker_done is 0 or 1"
    if slot.state == LEADING and slot.mark.worker_done and slot.phase.drain_ns == 0:
        return b"worker_done is set, and the term does not drain"
    if slot.state == LEADING and slot.holder != NONE:
        return b"holder is set, and this node leads"
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
        return b"unassigned is set, and there is a successor"
    if slot.undelivered != NONE and not slot.events_waiting:
        return b"undelivered is set, and no event waits"
    if slot.undelivered_drain != NONE and slot.state != LEADING:
        return b"undelivered_drain"
    if slot.state == REMOVED and (slot.holder != NONE or slot.successor != NONE
                                  or slot.claimant != NONE):
        return b"it is removed, and refers to a holder"
    if slot.state == REMOVED and not slot.forgotten:
        return b"it is removed, and in the index"
    if slot.forgotten and slot.state != REMOVED and slot.next_state != REMOVED:
        return b"it is forgotten, and will not be removed"
    if (slot.state == RELEASING or slot.state == COOLDOWN) and not is_timed:
        return b"it has no timer"
    if (slot.state == CANDIDATE and slot.eligibility == ELIGIBLE and states.running
            and not is_timed and not is_queued):
        return b"it has no timer and is in no queue"
    if slot.state == IDLE and (is_timed or is_queued):
        return b"it has a timer or is in a queue"
    if slot.links[QUEUE].list == PROBES and slot.eligibility != STANDBY:
        return b"it is probed, and is not on standby"
    if slot.links[QUEUE].list != NONE and slot.state in (IDLE, COOLDOWN):
        return b"it is in a queue"
    return NULL
