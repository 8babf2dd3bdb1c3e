"""What does a lease cost the core, without a server: to schedule, pack, parse, refresh, acquire?

Rules of this file:
    * The clock stands still, and what a server would answer has been written beforehand.
    * Figures of one machine at one time, with its noise. `make instructions` counts what the same
      steps cost without it.
"""

from __future__ import annotations

import pytest
from benchmarks.core_stage import MAX_LEASES, STEPS, Stage
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 50


@pytest.mark.parametrize("leases", [1000, MAX_LEASES])
@pytest.mark.parametrize("name", STEPS)
def test_step(benchmark: BenchmarkFixture, name: str, leases: int) -> None:
    """Some rounds of one step for all leases; the figure of one, in ns, is in the extra info."""
    step = STEPS[name]
    stage = Stage(leases)

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        step.run,
        args=(stage,),
        setup=lambda: step.prepare(stage),
        teardown=step.check,
        rounds=ROUNDS,
        warmup_rounds=2,
    )
    if benchmark.stats is not None:
        benchmark.extra_info["ns a lease"] = round(benchmark.stats["min"] / leases * 1e9, 1)
