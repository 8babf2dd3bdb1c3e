"""How long does the core take to schedule, pack, parse, refresh and acquire a lease?

Rules of this file:
    * There is no server. The clock stands still, and the replies are prepared bytes.
    * The figures are those of one machine, with its noise. `make instructions` counts the cost of
      the same steps without noise.
"""

from __future__ import annotations

import pytest
from benchmarks.core_stage import MAX_LEASES, STEPS, Stage
from pytest_benchmark.fixture import BenchmarkFixture

ROUNDS = 50


@pytest.mark.parametrize("leases", [1000, MAX_LEASES])
@pytest.mark.parametrize("name", STEPS)
def test_step(benchmark: BenchmarkFixture, name: str, leases: int) -> None:
    """Some rounds of one step for all leases. The extra info has the time of one lease in ns."""
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
