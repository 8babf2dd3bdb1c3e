"""Writes that only the current epoch of an election can make.

A leader that was paused or cut off may write long after another node was elected. No lease can
prevent that. A fence refuses such a write. The script that writes also reads the election's
counter, so it knows the newest epoch that was *elected*. So a fence refuses an old leader even
before the new leader has written anything.

::

    fence = Fence(redis.Redis(), "orders")

    def on_elected(term):
        offset_key = fence.data_key(term.key, "offset")
        ...
        fence.set(term, offset_key, 1234)       # StaleEpochError once another was elected
"""

from ._fence import AsyncFence, Fence
from ._writes import FencedScript, Outcome, Write, Writer

__all__ = ["AsyncFence", "Fence", "FencedScript", "Outcome", "Write", "Writer"]
