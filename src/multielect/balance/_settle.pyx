# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Decides how many keys of each class each node leads.

A class is all keys that the same nodes may lead. Without `only=` there is one class. The result is
a table of counts, with a row a class and a column a node. `_place` decides which keys they are.

Rules of this file:
    * Every unit of a node's load has a price, and the total price of the loads is minimal: no chain
      of moves replaces a unit by a cheaper one. The cheapest units are those of a node's fair share
      rounded down. Then comes the unit that rounds it up, and then all others. Among units of one
      kind the price is ``(2 * unit - 1) / weight``, as in the Sainte-Laguë method. A key without a
      node costs more than any load within the caps, and a load above a cap costs more than that.
    * If two units have the same price, the node that has that many keys already wins, and then the
      node with the lower rank. So no two prices are equal, and no order affects the loads.
    * Of all tables with these loads, the result is one in which the most keys stay where they are.
      If moving keys around a ring of nodes brings keys back to their nodes, they are moved.
    * All numbers are whole numbers, so every machine gets the same result.
    * A node that cannot be given more keys cannot be given more later either. The nodes are served
      in the order of their next price, and a chain that serves one node opens no cheaper way to
      another. So the number of searches is at most that of chains and nodes together.
"""

from libc.stdint cimport INT32_MAX, int8_t, int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free

cdef enum:
    OVER_THE_CAP = 3
    NO_WAY = 2


cdef struct Table:
    # Rows are classes, columns are nodes. The last column counts the keys that no node has.
    int classes
    int nodes
    int width
    uint8_t *eligible
    int32_t *had
    int32_t *counts
    # By node.
    const int64_t *weights
    const int32_t *lows
    const int32_t *highs
    const int32_t *caps
    const int32_t *ranks
    int32_t *had_loads
    int32_t *loads
    # A search for a chain: to which node a node's key goes, and of which class the key is.
    uint8_t *class_seen
    uint8_t *served
    int32_t *receiver
    int32_t *through
    int32_t *queue
    # A search for needless moves: the cost of each step, and the shortest path to each node so far
    # with its last step.
    int8_t *steps
    int32_t *distances
    int32_t *givers


cdef inline int _tier(const Table *table, int node, int32_t unit) noexcept nogil:
    if unit > table.caps[node]:
        return OVER_THE_CAP
    if unit <= table.lows[node]:
        return 0
    return 1 if unit <= table.highs[node] else 2


cdef inline bint _dearer(const Table *table, int node, int32_t unit,
                         int other, int32_t other_unit) noexcept nogil:
    """Return whether unit `unit` of `node` costs more than unit `other_unit` of `other`."""
    cdef int tier = _tier(table, node, unit), other_tier = _tier(table, other, other_unit)
    cdef int64_t price, other_price
    cdef bint is_new, other_is_new
    if tier != other_tier:
        return tier > other_tier
    price = (2 * <int64_t>unit - 1) * table.weights[other]
    other_price = (2 * <int64_t>other_unit - 1) * table.weights[node]
    if price != other_price:
        return price > other_price
    is_new = unit > table.had_loads[node]
    other_is_new = other_unit > table.had_loads[other]
    if is_new != other_is_new:
        return is_new
    return table.ranks[node] > table.ranks[other]


cdef void _keep(Table *table, const uint8_t *eligible, const int32_t *sizes,
                const int32_t *had) noexcept nogil:
    """Give every node the keys that it has now."""
    cdef int group, node, at
    cdef int32_t count, left
    for group in range(table.classes):
        left = sizes[group]
        for node in range(table.nodes):
            at = group * table.width + node
            count = had[group * table.nodes + node]
            table.eligible[at] = eligible[group * table.nodes + node]
            table.had[at] = count
            table.counts[at] = count
            table.loads[node] += count
            table.had_loads[node] += count
            left -= count
        table.eligible[group * table.width + table.nodes] = 1
        table.counts[group * table.width + table.nodes] = left


cdef void _fill(Table *table, const int32_t *order) noexcept nogil:
    """Give each key without a node to the cheapest node, first the keys with the fewest nodes."""
    cdef int turn, row, node, best
    for turn in range(table.classes):
        row = order[turn] * table.width
        while table.counts[row + table.nodes]:
            best = -1
            for node in range(table.nodes):
                if (table.eligible[row + node] and table.loads[node] < table.caps[node]
                        and (best < 0 or _dearer(table, best, table.loads[best] + 1,
                                                 node, table.loads[node] + 1))):
                    best = node
            if best < 0:
                break
            table.counts[row + table.nodes] -= 1
            table.counts[row + best] += 1
            table.loads[best] += 1


cdef int _find_giver(Table *table, int taker) noexcept nogil:
    """Find the node that should give a key to `taker`, through other nodes if necessary.

    Returns:
        The node whose last unit is the most expensive, `table.nodes` for the keys without a node,
        or -1 if no chain begins at a more expensive unit. `receiver` has the chain.
    """
    cdef int first = 0, last = 1, node, group, giver, best = -1
    for group in range(table.classes):
        table.class_seen[group] = 0
    for node in range(table.nodes + 1):
        table.receiver[node] = -1
    table.queue[0] = taker
    table.receiver[taker] = taker
    while first < last:
        node = table.queue[first]
        first += 1
        for group in range(table.classes):
            if table.class_seen[group] or not table.eligible[group * table.width + node]:
                continue
            table.class_seen[group] = 1
            if table.counts[group * table.width + table.nodes]:
                table.receiver[table.nodes] = node
                return table.nodes
            for giver in range(table.nodes):
                if table.receiver[giver] >= 0 or not table.counts[group * table.width + giver]:
                    continue
                table.receiver[giver] = node
                table.queue[last] = giver
                last += 1
                if (_dearer(table, giver, table.loads[giver], taker, table.loads[taker] + 1)
                        and (best < 0 or _dearer(table, giver, table.loads[giver],
                                                 best, table.loads[best]))):
                    best = giver
    return best


cdef int _step(const Table *table, int giver, int receiver, int32_t *group) noexcept nogil:
    """Find the class of which `giver` can give `receiver` a key at the lowest cost.

    Returns:
        The cost, or NO_WAY if there is no such class: 1 if the giver gives a key that it had at
        the beginning, minus 1 if the receiver gets back one that it had. `group` takes the class.
    """
    cdef int number, cost, at, to, least = NO_WAY
    for number in range(table.classes):
        at = number * table.width + giver
        to = number * table.width + receiver
        if table.counts[at] and table.eligible[to]:
            cost = (table.counts[at] <= table.had[at]) - (table.counts[to] < table.had[to])
            if cost < least:
                least = cost
                group[0] = number
    return least


cdef int32_t _limit(const Table *table, int giver, int receiver, int group) noexcept nogil:
    """Return how many keys `giver` can give `receiver` before the cost of a step changes."""
    cdef int at = group * table.width + giver, to = group * table.width + receiver
    cdef int32_t limit = table.counts[at]
    if table.counts[at] > table.had[at]:
        limit -= table.had[at]
    if table.counts[to] < table.had[to]:
        limit = min(limit, table.had[to] - table.counts[to])
    return limit


cdef void _give(Table *table, int giver, int receiver, int group, int32_t amount) noexcept nogil:
    table.counts[group * table.width + giver] -= amount
    table.counts[group * table.width + receiver] += amount


cdef void _hand_on(Table *table, int giver, int taker) noexcept nogil:
    """Move keys along the chain that was found: as many as both its ends need, at least one."""
    cdef int32_t amount = table.lows[taker] - table.loads[taker]
    cdef int node = giver
    if giver < table.nodes:
        amount = min(amount, table.loads[giver] - table.highs[giver])
    while node != taker:
        _step(table, node, table.receiver[node], &table.through[node])
        amount = min(amount, _limit(table, node, table.receiver[node], table.through[node]))
        node = table.receiver[node]
    amount = max(amount, 1)
    node = giver
    while node != taker:
        _give(table, node, table.receiver[node], table.through[node], amount)
        node = table.receiver[node]
    table.loads[giver] -= amount
    table.loads[taker] += amount


cdef void _even_out(Table *table) noexcept nogil:
    """Move keys along chains until no chain makes the loads cheaper."""
    cdef int node, taker, giver
    while True:
        taker = -1
        for node in range(table.nodes):
            if (not table.served[node] and table.loads[node] < table.caps[node]
                    and (taker < 0 or _dearer(table, taker, table.loads[taker] + 1,
                                              node, table.loads[node] + 1))):
                taker = node
        if taker < 0:
            return
        giver = _find_giver(table, taker)
        if giver < 0:
            table.served[taker] = 1
        else:
            _hand_on(table, giver, taker)


cdef void _respect_caps(Table *table) noexcept nogil:
    """Take from each node the keys above its cap that no other node could be given."""
    cdef int node, group
    cdef int32_t amount
    for node in range(table.nodes):
        for group in range(table.classes):
            amount = min(table.loads[node] - table.caps[node],
                         table.counts[group * table.width + node])
            if amount > 0:
                _give(table, node, table.nodes, group, amount)
                table.loads[node] -= amount


cdef void _cost_steps(Table *table, int node) noexcept nogil:
    """Compute the cost of every step from and to a node."""
    cdef int other
    cdef int32_t group = 0
    for other in range(table.width):
        if other != node:
            table.steps[node * table.width + other] = <int8_t>_step(table, node, other, &group)
            table.steps[other * table.width + node] = <int8_t>_step(table, other, node, &group)


cdef int _find_round(Table *table) noexcept nogil:
    """Find a cycle of steps that undoes more moves than it makes.

    Returns:
        A node on the cycle, which `givers` has backwards; -1 if there is none.
    """
    cdef int giver, receiver, cost, changed = -1
    for receiver in range(table.width):
        table.distances[receiver] = 0
        table.givers[receiver] = -1
    for _ in range(table.width):
        changed = -1
        for giver in range(table.width):
            for receiver in range(table.width):
                cost = table.steps[giver * table.width + receiver]
                if (giver != receiver and cost != NO_WAY
                        and table.distances[giver] + cost < table.distances[receiver]):
                    table.distances[receiver] = table.distances[giver] + cost
                    table.givers[receiver] = giver
                    changed = receiver
        if changed < 0:
            return -1
    for _ in range(table.width):
        changed = table.givers[changed]
    return changed


cdef void _undo_needless(Table *table) noexcept nogil:
    """Move keys around cycles until no more keys could stay where they were.

    A cycle does not change the load of any node. Each cycle lets at least one more key stay, so the
    loop ends.
    """
    cdef int node, start
    cdef int32_t amount
    for node in range(table.width):
        _cost_steps(table, node)
    while True:
        start = _find_round(table)
        if start < 0:
            return
        amount = INT32_MAX
        node = start
        while True:
            _step(table, table.givers[node], node, &table.through[node])
            amount = min(amount, _limit(table, table.givers[node], node, table.through[node]))
            node = table.givers[node]
            if node == start:
                break
        while True:
            _give(table, table.givers[node], node, table.through[node], amount)
            node = table.givers[node]
            if node == start:
                break
        while True:
            _cost_steps(table, node)
            node = table.givers[node]
            if node == start:
                break


def settle(const uint8_t[::1] eligible not None, const int32_t[::1] sizes not None,
           const int32_t[::1] order not None, const int32_t[::1] had not None,
           const int64_t[::1] weights not None, const int32_t[::1] lows not None,
           const int32_t[::1] highs not None, const int32_t[::1] caps not None,
           const int32_t[::1] ranks not None, int32_t[::1] counts not None) -> None:
    """Write to `counts` how many keys of each class each node leads.

    Tables have one row a class and one column a node, and are stored row after row.

    Args:
        eligible: 1 where the node may lead keys of the class.
        sizes: how many keys a class has.
        order: the classes, in the order in which their keys without a node are given out.
        had: a table: how many keys of the class the node has now and may lead.
        weights: whole numbers, from 1 to 2**30.
        lows: each node's fair share rounded down, at most its cap.
        highs: each node's fair share rounded up, at most its cap.
        caps: how many keys each node may have at most.
        ranks: a different number for each node. The lower one wins if nothing else decides.
        counts: a table that takes the result.
    """
    cdef Table table
    cdef int classes = <int>sizes.shape[0], nodes = <int>weights.shape[0], group, node
    cdef int width = nodes + 1
    cdef uint8_t *flags = NULL
    cdef int32_t *numbers = NULL
    if not classes or not nodes:
        return
    if (eligible.shape[0] != classes * nodes or had.shape[0] != classes * nodes
            or counts.shape[0] != classes * nodes or order.shape[0] != classes
            or lows.shape[0] != nodes or highs.shape[0] != nodes or caps.shape[0] != nodes
            or ranks.shape[0] != nodes):
        raise ValueError("the tables do not fit each other")
    flags = <uint8_t *>calloc(classes * width + classes + nodes + width * width, 1)
    numbers = <int32_t *>calloc(2 * classes * width + 7 * width, sizeof(int32_t))
    if flags == NULL or numbers == NULL:
        free(flags)
        free(numbers)
        raise MemoryError
    table.classes = classes
    table.nodes = nodes
    table.width = width
    table.weights = &weights[0]
    table.lows = &lows[0]
    table.highs = &highs[0]
    table.caps = &caps[0]
    table.ranks = &ranks[0]
    table.eligible = flags
    table.class_seen = table.eligible + classes * width
    table.served = table.class_seen + classes
    table.steps = <int8_t *>table.served + nodes
    table.had = numbers
    table.counts = table.had + classes * width
    table.had_loads = table.counts + classes * width
    table.loads = table.had_loads + width
    table.receiver = table.loads + width
    table.through = table.receiver + width
    table.queue = table.through + width
    table.distances = table.queue + width
    table.givers = table.distances + width
    with nogil:
        _keep(&table, &eligible[0], &sizes[0], &had[0])
        _fill(&table, &order[0])
        _even_out(&table)
        _respect_caps(&table)
        # With one class there are no needless moves: no chain moves more keys than its end needs.
        if classes > 1:
            _undo_needless(&table)
        for group in range(classes):
            for node in range(nodes):
                counts[group * nodes + node] = table.counts[group * width + node]
    free(flags)
    free(numbers)
