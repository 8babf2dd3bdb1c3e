"""The program that runs under callgrind: each step, with two numbers of leases, between marks.

Rules of this file:
    * A mark is a call of `getppid`, which no other code here calls. At each mark, callgrind begins
      another part of its output. So every second part is a run.
    * Each step runs once before its counted run, because work that is done once is no cost of a
      lease.
    * Code is about fifty times slower under callgrind, so this file does not import the package
      itself with its Redis clients.
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
    """Run the steps in their order, each with the smaller number of leases first."""
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
