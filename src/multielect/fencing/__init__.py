"""Writes that only the current epoch of an election can make.

A leader that was paused, or cut off, may write long after another was elected; no lease can
prevent that. A fence refuses such a write. It knows the newest epoch that was *elected*, as it
reads the election's own counter, in the same script that writes: whoever was elected need not
have written anything yet for their predecessors to be refused.

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
