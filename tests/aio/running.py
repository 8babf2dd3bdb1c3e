"""Runs a scenario in an event loop that must be clean when it is over.

Rules of this file:
    * The loop is in debug mode, as with ``python -X dev``; pytest makes errors of warnings.
    * When the scenario is over no task of it is left, nor any thread of a group's.
    * A scenario that does not end is a failed test.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from tests.diary import until

MAX_S = 60.0


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the scenario to its end and see that nothing is left of it."""

    async def main() -> None:
        await asyncio.wait_for(scenario(), MAX_S)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"

    before = set(threading.enumerate())
    asyncio.run(main(), debug=True)
    # Threads that were told to end and not waited for: the connector's.
    until(lambda: not [t for t in threading.enumerate() if t not in before])


async def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait, the loop free meanwhile, until a condition holds of which no event tells."""
    end = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < end, "waited in vain"
        await asyncio.sleep(0.005)
