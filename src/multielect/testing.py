"""For tests of programs that use multielect.

`ManualClock` stands still until it is told to move.
"""

from ._clock import ManualClock

__all__ = ["ManualClock"]
