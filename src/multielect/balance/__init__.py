"""Who should lead what: a fair share for every node, with as few moves as possible.

::

    keys = KeySet(f"partition-{i}" for i in range(4096))      # hashed once
    now = assign([Member("a"), Member("b", weight=2)], keys)
    then = now.after([Member("a"), Member("b", weight=2), Member("c")])
    then.of("c"), then.change_since(now, "a").lost, then.unassigned

Rules of this package:
    * It is a pure function: no I/O, no clock, no random numbers. The same members, keys and
      ``held`` give the same answer in every process, whatever their order, platform or version of
      Python.
    * An assignment is advice; the lease decides. Nodes that see different members or leaders for a
      moment may contest a lease, but never share one.
    * Loads come first, then moves. Each member has its share by weight, rounded down or up. The
      keys that are above one member's cap go to the others. With labels, no chain of moves could
      make the loads more even. Without caps and labels, members of equal weight differ by at most
      one key. Of all assignments with these loads, it takes one that moves the fewest keys.
    * A key that no member may lead, or for which no member has room, stays in
      `Assignment.unassigned`.

With and without ``held``
    ``held`` says who led each key before; `Assignment.after` takes it from the last assignment.
    With it, the number of moves is the smallest possible. Without it, the assignment is a function
    of members and keys alone: weighted rendezvous hashing, in which a full node passes on the keys
    that suit it least. Then no node needs to know what the others hold. The price is more moves: a
    function without memory whose loads are even to one key cannot always move so little.

    The table shows how many keys a join or a leave moved beyond the share of the node that came or
    went, in percent of all keys, on average and at worst (`benchmarks/balance.py`)::

                  with held    without, equal weights    without, random weights
          keys nodes   worst      average       worst       average       worst
            10     8    0.00         8.25       40.00          4.50       30.00
           100    20    0.00         6.03       12.00          3.85       10.00
         1,000    20    0.00         2.16        3.00          1.70        3.90
         1,000    64    0.00         2.75        3.60          1.91        4.30
         4,044     8    0.00         0.89        1.29          0.65        1.31
         4,044    64    0.00         1.29        1.53          1.04        2.03
       100,000    64    0.00         0.24        0.27          0.23        0.41

    So with ``held``, less than 5 % more than the share moves. Without it, that holds from about
    1,000 keys on. (With random weights, rounding moves one key more in 1 of 500 joins and leaves;
    one key is more than 5 % of fewer than 20 keys.) The view of the leaders need not be exact. If
    every node may lead every key, a view that has some of the moves leads to the same assignment.
    With labels, the loads are the same, and the remaining moves may differ. A key without a known
    leader is assigned like a new key.

Running groups
    Groups with ``balance=True`` use ``held`` up to 4,096 elections. They do not take it from the
    leaders that a node sees, which would differ from node to node. They take it from a plan: what
    was assigned last, kept beside the membership and read together with it. Every node would write
    the same next plan for a changed fleet, and the old and the new plan lead to the same
    assignment. Two other methods were measured and are worse. Members and keys alone: see the
    table. The members' ages (each member, eldest first, joins the assignment of those before it): a
    join moves its share, but a leave moves up to 84 % of all keys more.
"""

from ._assignment import Assignment, Change, assign
from ._keyset import KeySet, Only
from ._member import MAX_LEASES, Member

__all__ = ["MAX_LEASES", "Assignment", "Change", "KeySet", "Member", "Only", "assign"]
