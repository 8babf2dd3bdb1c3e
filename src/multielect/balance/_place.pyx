# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Decides which keys each node leads. `_settle` has decided how many each node leads.

Every pair of a key and a node has a cost, computed from their hashes and the node's weight. A node
that has more keys of a class than its count allows keeps those with the lowest cost. The keys that
no node keeps are matched with the nodes that have too few. The matching is stable: there is no key
and node that would both prefer each other to what they got.

Rules of this file:
    * There is exactly one stable matching, whatever the order of keys and nodes, because a key and
      a node compare by the same cost. If one pair is removed, the other pairs stay. So a move that
      has been made does not change the moves that have not.
    * The position decides between equal costs. The caller sorts keys and nodes.
    * A cost is computed from whole numbers and one rounded product, so it is the same on every
      machine.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free, malloc

cdef enum:
    NOBODY = -1

cdef extern from *:
    """
    #define MULTIELECT_ONE ((int64_t)1 << 31)
    #define MULTIELECT_LOG_BEND ((int64_t)950680361)
    #define MULTIELECT_LOG_TURN ((int64_t)352278718)
    """
    const int64_t ONE "MULTIELECT_ONE"
    const int64_t LOG_BEND "MULTIELECT_LOG_BEND"
    const int64_t LOG_TURN "MULTIELECT_LOG_TURN"


cdef struct Choice:
    double cost
    int32_t key


cdef struct Shelf:
    # The keys that one node has of the current class: a heap with the worst choice on top.
    uint64_t node_hash
    double scale
    Choice *choices
    int32_t filled
    int32_t room
    int32_t node


cdef inline double _cost(uint64_t key_hash, uint64_t node_hash, double scale) noexcept nogil:
    """Return the cost of a key at a node. Heavier nodes have lower costs.

    If each key went to the node with the lowest cost, each node would get a share in proportion to
    its weight (weighted rendezvous hashing). The hashes give a number that is evenly distributed
    between 0 and 1. The cost is minus its logarithm, divided by the weight. A cubic approximates
    the logarithm, with an error of at most 0.006.
    """
    cdef uint64_t mixed = key_hash ^ node_hash
    cdef int64_t part, bend
    cdef int halvings = 1
    mixed = (mixed ^ (mixed >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    mixed = (mixed ^ (mixed >> 27)) * <uint64_t>0x94D049BB133111EB
    mixed = (mixed ^ (mixed >> 31)) | 1
    while not mixed >> 63:
        mixed <<= 1
        halvings += 1
    part = <int64_t>((mixed << 1) >> 33)
    bend = LOG_BEND - ((LOG_TURN * part) >> 31)
    part += (((part * (ONE - part)) >> 31) * bend) >> 31
    # The whole number is exact in a double, and every machine rounds the product alike.
    return <double>(<int64_t>halvings * ONE - part) * scale


cdef inline bint _worse(Choice one, Choice other) noexcept nogil:
    return one.cost > other.cost or (one.cost == other.cost and one.key > other.key)


cdef void _sink(Shelf *shelf) noexcept nogil:
    """Restore the order of the heap after its top was replaced."""
    cdef int32_t place = 0, child
    cdef Choice moving = shelf.choices[0]
    while True:
        child = 2 * place + 1
        if child >= shelf.filled:
            break
        if child + 1 < shelf.filled and _worse(shelf.choices[child + 1], shelf.choices[child]):
            child += 1
        if not _worse(shelf.choices[child], moving):
            break
        shelf.choices[place] = shelf.choices[child]
        place = child
    shelf.choices[place] = moving


cdef void _rise(Shelf *shelf, Choice choice) noexcept nogil:
    """Add a choice to a heap that is not full."""
    cdef int32_t place = shelf.filled, parent
    shelf.filled += 1
    while place:
        parent = (place - 1) // 2
        if not _worse(choice, shelf.choices[parent]):
            break
        shelf.choices[place] = shelf.choices[parent]
        place = parent
    shelf.choices[place] = choice


cdef inline bint _wants(const Shelf *shelf, Choice choice) noexcept nogil:
    return shelf.filled < shelf.room or (shelf.room > 0 and _worse(shelf.choices[0], choice))


cdef int32_t _take(Shelf *shelf, Choice choice) noexcept nogil:
    """Add a choice that the node wants. Return the key that it replaces, or NOBODY."""
    cdef int32_t gone
    if shelf.filled < shelf.room:
        _rise(shelf, choice)
        return NOBODY
    gone = shelf.choices[0].key
    shelf.choices[0] = choice
    _sink(shelf)
    return gone


cdef void _match(int32_t key, const uint64_t *key_hashes, Shelf *shelves,
                 int count) noexcept nogil:
    """Give a key to the node with the lowest cost, and then each key that is replaced to the next.

    A node replaces a key only by one with a lower cost, so a node that refuses a key refuses it for
    good. So the search skips the nodes that do not want the key.
    """
    cdef int at, best
    cdef Choice choice, best_choice
    while key != NOBODY:
        best = -1
        best_choice.cost = 0
        best_choice.key = key
        choice.key = key
        for at in range(count):
            choice.cost = _cost(key_hashes[key], shelves[at].node_hash, shelves[at].scale)
            if (best < 0 or choice.cost < best_choice.cost) and _wants(&shelves[at], choice):
                best = at
                best_choice.cost = choice.cost
        if best < 0:
            return
        key = _take(&shelves[best], best_choice)


cdef void _place_class(const int32_t *keys, int32_t size, const uint64_t *key_hashes,
                       const uint64_t *node_hashes, const int64_t *weights,
                       const int32_t *counts, int nodes,
                       int32_t *owners, Shelf *shelves, Choice *choices,
                       int32_t *homeless) noexcept nogil:
    """Place the keys of one class. `owners` has the current owners, and then the new ones."""
    cdef int node, lacking = 0
    cdef int32_t at, key, gone, kept = 0, without = 0
    cdef Choice choice
    for node in range(nodes):
        shelves[node].node = node
        shelves[node].node_hash = node_hashes[node]
        shelves[node].scale = 1.0 / <double>weights[node]
        shelves[node].choices = choices + kept
        shelves[node].filled = 0
        shelves[node].room = counts[node]
        kept += counts[node]
    for at in range(size):
        key = keys[at]
        node = owners[key]
        gone = key
        if node != NOBODY:
            choice.key = key
            choice.cost = _cost(key_hashes[key], node_hashes[node], shelves[node].scale)
            if _wants(&shelves[node], choice):
                gone = _take(&shelves[node], choice)
        if gone != NOBODY:
            homeless[without] = gone
            owners[gone] = NOBODY
            without += 1
    # No key that a node keeps is replaced later. Only the rest of its room takes part.
    for node in range(nodes):
        if shelves[node].filled < shelves[node].room:
            shelves[lacking] = shelves[node]
            shelves[lacking].choices += shelves[node].filled
            shelves[lacking].room -= shelves[node].filled
            shelves[lacking].filled = 0
            lacking += 1
    for at in range(without):
        _match(homeless[at], key_hashes, shelves, lacking)
    for node in range(lacking):
        for at in range(shelves[node].filled):
            owners[shelves[node].choices[at].key] = shelves[node].node


def count_had(const int32_t[::1] classes not None, const unsigned char[::1] eligible not None,
              int nodes, int32_t[::1] owners not None, int32_t[::1] sizes not None,
              int32_t[::1] had not None) -> None:
    """Count the keys of each class in `sizes`, and those of each class and node in `had`.

    A node that may not lead a key loses it: the key's entry in `owners` becomes -1.

    Args:
        classes: the class of each key.
        eligible: a table, one row a class and one column a node: 1 where the node may lead it.
        nodes: the number of nodes.
        owners: the node that has each key, or -1 for none.
        sizes: as many zeros as there are classes.
        had: as many zeros as `eligible` has entries.
    """
    cdef Py_ssize_t key, at
    if owners.shape[0] != classes.shape[0]:
        raise ValueError("the tables do not fit each other")
    with nogil:
        for key in range(classes.shape[0]):
            sizes[classes[key]] += 1
            if owners[key] == NOBODY:
                continue
            at = <Py_ssize_t>classes[key] * nodes + owners[key]
            if eligible[at]:
                had[at] += 1
            else:
                owners[key] = NOBODY


def place(const uint64_t[::1] key_hashes not None, const int32_t[::1] classes not None,
          const int32_t[::1] sizes not None, const uint64_t[::1] node_hashes not None,
          const int64_t[::1] weights not None, const int32_t[::1] counts not None,
          int32_t[::1] owners not None) -> None:
    """Write to `owners` the node that leads each key, or -1 for none.

    Args:
        key_hashes: a hash of each key. The position decides between keys with equal hashes.
        classes: the class of each key.
        sizes: how many keys each class has.
        node_hashes: a hash of each node.
        weights: the weight of each node, from 1.
        counts: a table, one row a class and one column a node: how many keys of the class the node
            leads. The sum of a row is at most the size of the class.
        owners: the node that has each key now, which must be eligible, or -1 for none. Takes the
            result.
    """
    cdef Py_ssize_t keys = key_hashes.shape[0], groups = sizes.shape[0], at
    cdef int nodes = <int>node_hashes.shape[0], node
    cdef int32_t start, group
    cdef int64_t total
    cdef Shelf *shelves = NULL
    cdef Choice *choices = NULL
    cdef int32_t *sorted_keys = NULL
    cdef int32_t *homeless = NULL
    cdef int32_t *starts = NULL
    if not keys or not nodes:
        return
    if (classes.shape[0] != keys or owners.shape[0] != keys or weights.shape[0] != nodes
            or counts.shape[0] != groups * nodes):
        raise ValueError("the tables do not fit each other")
    for group in range(<int32_t>groups):
        total = 0
        for node in range(nodes):
            total += counts[<Py_ssize_t>group * nodes + node]
        if total > sizes[group]:
            raise ValueError(f"class {group} has {sizes[group]} keys, not {total}")
    shelves = <Shelf *>malloc(nodes * sizeof(Shelf))
    choices = <Choice *>malloc(keys * sizeof(Choice))
    sorted_keys = <int32_t *>malloc(keys * sizeof(int32_t))
    homeless = <int32_t *>malloc(keys * sizeof(int32_t))
    starts = <int32_t *>malloc(groups * sizeof(int32_t))
    try:
        if (shelves == NULL or choices == NULL or sorted_keys == NULL or homeless == NULL
                or starts == NULL):
            raise MemoryError
        with nogil:
            start = 0
            for group in range(<int32_t>groups):
                starts[group] = start
                start += sizes[group]
            for at in range(keys):
                group = classes[at]
                sorted_keys[starts[group]] = <int32_t>at
                starts[group] += 1
            for group in range(<int32_t>groups):
                _place_class(sorted_keys + starts[group] - sizes[group], sizes[group],
                             &key_hashes[0], &node_hashes[0], &weights[0],
                             &counts[<Py_ssize_t>group * nodes], nodes,
                             &owners[0], shelves, choices, homeless)
    finally:
        free(shelves)
        free(choices)
        free(sorted_keys)
        free(homeless)
        free(starts)
