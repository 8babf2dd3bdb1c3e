"""The faults that `proof.planted` plants in our own code. The tests must find each of them.

There is one file for each layer whose code is broken: the core, what it does in a cluster, the
scripts that the server runs, and the threads around the core.

Rules of these files:
    * A fault is what a tired engineer might write. It changes a line or two.
    * The text that a fault replaces occurs exactly once in its file. So no fault is planted in the
      wrong place, and a fault that the code has outgrown is reported.
    * `suites` only says which tests run. If none of them fails, the fault has survived, and a test
      is missing.
"""

from __future__ import annotations

from .clusters import IN_A_CLUSTER
from .core import IN_THE_CORE
from .fault import Edit, Fault
from .scripts import IN_THE_SCRIPTS
from .threads import IN_THE_THREADS

__all__ = ["PLANTED", "Edit", "Fault"]

PLANTED = (*IN_THE_CORE, *IN_A_CLUSTER, *IN_THE_SCRIPTS, *IN_THE_THREADS)
