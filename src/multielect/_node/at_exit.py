"""Stops the nodes that a program forgot to stop, when the interpreter exits.

Rules of this file:
    * Without this, other nodes would have to wait until the leases of a forgotten node expire.
    * A node that cannot be stopped does not keep the others from being stopped.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from typing import Protocol

_TIMEOUT_S = 2.0


class _Stoppable(Protocol):
    def stop(self, timeout: float) -> None: ...


stopped_at_exit: weakref.WeakSet[_Stoppable] = weakref.WeakSet()
"""The nodes to stop at the interpreter's exit."""


@atexit.register
def _stop_all() -> None:
    for node in list(stopped_at_exit):
        with contextlib.suppress(Exception):
            node.stop(_TIMEOUT_S)
