"""Whether a node is ready: connected, or leading its share; and the health of the node.

Rules of this file:
    * A condition that can never become true raises `ClosedError`.
    * The thread or task that waits checks its condition each time that the node has changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._connection.backoff import is_permanent
from .._connection.health import Health, HealthState
from .._settings.settings import Seconds, checked_timeout
from ..errors import ConfigError

if TYPE_CHECKING:
    from .._core.core import Core
    from .._fleet.balancer import Balancer
    from .environment import Running
    from .node import Node

STOP_S = 5.0
"""How long a failed start may take to stop the node."""


class Readiness:
    """The readiness of one node. Any thread may use it."""

    def __init__(self, node: Node, core: Core, engine: Running, balancer: Balancer | None) -> None:
        """Keep the parts of the node."""
        self._node = node
        self._core = core
        self._engine = engine
        self._balancer = balancer
        self._balance_watchers: list[object] = []

    @property
    def health(self) -> Health:
        """The health of the node now."""
        node, reading = self._node, self._engine.reading
        state = self._state()
        # In a forked child the core's mutex may be locked for ever.
        is_forked = state == "forked"
        error, error_at = reading.last_error, reading.last_error_at
        if state == "failed" and node.phase.fault is not None:
            error = node.phase.fault
        return Health(
            state=state,
            server=self._engine.endpoint.address,
            version=reading.version,
            connected_since=reading.connected_since if state in _CONNECTED else None,
            last_error=error,
            last_error_at=error_at,
            is_permanent=is_permanent(error),
            failed_attempts=reading.failed_attempts,
            reconnects=self._engine.reconnects,
            elections=0 if is_forked else len(self._core.elections),
            leading=0 if is_forked else len(node.led()),
        )

    def _state(self) -> HealthState:
        node = self._node
        if node.phase.is_forked:
            return "forked"
        if node.phase.stopped:
            return "stopped"
        if not node.phase.started:
            return "new"
        if not node.is_running:
            return "failed"
        if self._engine.reading.connected_since is None:
            return "connecting"
        return "draining" if node.phase.draining else "connected"

    # ---- conditions

    def is_connected(self) -> bool:
        """Return whether there is a connection. Raise `ClosedError` if there can never be one."""
        self._node.phase.check_started()
        return self._engine.reading.connected_since is not None

    def is_decided(self) -> bool:
        """Return whether there is a connection, or an error that somebody must mend first."""
        return self.is_connected() or is_permanent(self._engine.reading.last_error)

    def is_balanced(self) -> bool:
        """Return whether the node leads its share of the fleet's elections and nothing else."""
        if not self.is_connected():
            return False
        share = None if self._balancer is None else self._balancer.share()
        if share is None or self._core.elections.leading != len(share):
            return False
        return share == {raw for raw, _, _ in self._core.elections.led(self._node.clock.now_ns())}

    def check_connected(self, waited_s: float) -> None:
        """Raise the last error, if there is no connection after `waited_s`."""
        reading = self._engine.reading
        if reading.connected_since is None:
            raise reading.last_error or self._engine.endpoint.unreachable(
                f"no attempt has ended within {waited_s:.3g} s"
            )

    # ---- waiting

    def start(self, wait: Seconds | None) -> None:
        """Start the node, and wait until it is connected. If it is not in time, stop it again."""
        wait_s = None if wait is None else checked_timeout(wait)
        begun = self._node.start()
        if wait_s is None:
            return
        try:
            self._node.wait_for(self.is_decided, wait_s)
            self.check_connected(wait_s)
        except BaseException:
            # Do not stop a node that was started before.
            if begun:
                self._node.stop(STOP_S)
            raise

    def wait_balanced(self, timeout: Seconds | None) -> bool:
        """Wait until the node leads its share."""
        with self.watching_balance():
            return self._node.wait_for(self.is_balanced, timeout)

    @contextlib.contextmanager
    def watching_balance(self) -> Iterator[None]:
        """Wake those who wait each time that the elections were shared out, within the block.

        Raises:
            ConfigError: if the group does not balance.
        """
        if self._balancer is None:
            raise ConfigError("wait_balanced is for groups with balance=True")
        token = object()
        self._balance_watchers.append(token)
        try:
            yield
        finally:
            self._balance_watchers.remove(token)

    def shared_out(self) -> None:
        """Note that the balancer has acted on the newest answer."""
        if self._balance_watchers:
            self._node.notify()


_CONNECTED = ("connected", "draining")
