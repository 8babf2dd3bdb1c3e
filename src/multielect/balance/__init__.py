"""Who should lead what: a fair share for every node, and as few moves as that takes.

::

    keys = KeySet(f"partition-{i}" for i in range(4096))      # hashed once
    now = assign([Member("a"), Member("b", weight=2)], keys)
    then = now.after([Member("a"), Member("b", weight=2), Member("c")])
    then.of("c"), then.change_since(now, "a").lost, then.unassigned

Rules of this package:
    * A pure function: no I/O, no clock, no randomness. The same members, keys and ``held`` give
      the same answer in every process, whatever their order, platform or version of Python.
    * It advises; the lease decides. Nodes that see different members or leaders for a moment may
      compete for a lease, but never share one.
    * Loads first, then moves. Each member has its share by weight, rounded down or up; what a
      cap keeps from one goes to the others; with labels, no chain of moves could make the loads
      more even. Members of equal weight differ by at most 1 where neither forbids it. Of all ways
      to have these loads, one that moves the fewest keys is taken.
    * What no member may take, or has room for, stays `Assignment.unassigned`.

What it goes by
    With ``held`` (the leaders as seen; `Assignment.after` takes those of the last answer), moves
    are the least there can be. Without, it is a function of members and keys alone: rendezvous
    hashing by weight, where a node that is full turns away whom it suits least. Then no node needs
    to know what the others hold, and it pays for that: an assignment that remembers nothing, and
    yet has loads even to one key, cannot always move so little.

    What a join or a leave moved beyond the share of the node that came or went, in percent of all
    keys, on average and at worst (`benchmarks/balance.py`)::

                  with held    without, equal weights    without, random weights
          keys nodes   worst      average       worst       average       worst
            10     8    0.00         8.25       40.00          4.50       30.00
           100    20    0.00         6.03       12.00          3.85       10.00
         1,000    20    0.00         2.16        3.00          1.70        3.90
         1,000    64    0.00         2.75        3.60          1.91        4.30
         4,044     8    0.00         0.89        1.29          0.65        1.31
         4,044    64    0.00         1.29        1.53          1.04        2.03
       100,000    64    0.00         0.24        0.27          0.23        0.41

    So less than 5 % more than the share always moves with ``held``, and without it from about
    1,000 keys on. (With random weights, rounding may move one key more, in 1 of 500 joins and
    leaves; 5 % of fewer than 20 keys is less than that one.) A view of the leaders need not
    be exact. Where all may lead all, taking in a part of the moves leaves the rest as it was; with
    labels the loads stay, and the moves still to be made may be others. A key whose leader is not
    known is given out like a new one.

What a running group goes by
    Groups with ``balance=True`` go by ``held`` where there are up to 4,096 elections. It is no view
    of the leaders, which would differ from node to node, but what was assigned last: a plan, kept
    beside the membership and read with it in one step. The plan that follows from a
    changed fleet is the same whoever writes it down, and by the old one and by the new one all come
    to the same assignment. Two other ways were measured and did worse: members and keys alone (the
    table above), and the members' ages (each member joining, eldest first, to the assignment of
    those before it), where a join moves its share, but a leave up to 84 % of all keys beyond it.
"""

from ._assignment import Assignment, Change, assign
from ._keyset import KeySet, Only
from ._member import MAX_LEASES, Member

__all__ = ["MAX_LEASES", "Assignment", "Change", "KeySet", "Member", "Only", "assign"]
