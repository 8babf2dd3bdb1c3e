"""Which fence a batch has: the variable in `Batch[F]`.

Rules of this file:
    * Type checkers read the stub beside it, where the variable has a default. Python itself has
      none before 3.13, and needs none.
"""

from __future__ import annotations

from typing import TypeVar

F = TypeVar("F")
