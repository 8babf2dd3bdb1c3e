"""What runs under callgrind: each step, for so many leases and for twice as many, between marks.

Rules of this file:
    * A mark is a call of `getppid`, which nothing else calls: `instructions` has callgrind begin
      another part of its output there. So every second part is a run.
    * Each step is run once before it counts, as what is done once is no cost a lease.
    * As all of it is some fifty times slower than usual, the package itself, with its clients of
      Redis, is not imported.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.util import find_spec, module_from_spec

_package = find_spec("multielect")
assert _package is not None
sys.modules["multielect"] = module_from_spec(_package)

from benchmarks.core_stage import REFRESHED_AT_ONCE, STEPS, Stage, Step  # noqa: E402


def run(step: Step, stage: Stage) -> None:
    """Run one step between two marks."""
    step.prepare(stage)
    os.getppid()
    step.run(stage)
    os.getppid()
    step.check(stage)


def main(leases: int) -> None:
    """Run the steps in their order, each for fewer leases first."""
    gc.disable()
    first = Stage(REFRESHED_AT_ONCE)
    for step in STEPS.values():
        step.prepare(first)
        step.run(first)
        step.check(first)
    stages = Stage(leases), Stage(2 * leases)
    for step in STEPS.values():
        for stage in stages:
            run(step, stage)


if __name__ == "__main__":
    main(int(sys.argv[1]))
