"""The connections of all lanes of one core.

Rules of this file:
    * A single server has one lane, number 0. A cluster has one for each primary: see `cluster`.
    * The pump reports a loss. Whoever takes it closes the sockets, and the lane connects again,
      unless the lane is to have no connection any more.
    * A number is given to another lane only after the pump has let go of the sockets.
    * One lane hears the announcements. If it is lost, another one that is connected takes over.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from .._connection.backoff import Backoff
from .._connection.endpoint import Endpoint
from .._connection.health import ConnectionRecord
from .._connection.server import Connection
from .._core.core import Core
from ..errors import MultielectError
from .lane_connection import Arrival, LaneConnection, LaneOutlets
from .pump import Pump


class Lanes:
    """The connections of one core's lanes.

    Attributes:
        reconnects: how many connections were lost.
    """

    def __init__(
        self,
        core: Core,
        *,
        record: ConnectionRecord,
        report: Callable[[MultielectError], None],
        arrived: Callable[[Arrival], None],
        fault: Callable[[str, BaseException], None],
        changed: Callable[[], None],
        ttl_ns: int,
        name: str,
    ) -> None:
        """Begin without a lane.

        Args:
            core: the core of the lanes.
            record: records the connections.
            report: takes an error.
            arrived: takes a new connection.
            fault: takes a fault of multielect that ended a thread.
            changed: called after a connection was lost, or could not be made.
            ttl_ns: how long a lease lasts.
            name: what the names of the threads begin with.
        """
        self.reconnects = 0
        self._core = core
        self._record = record
        self._report = report
        self._arrived = arrived
        self._fault = fault
        self._changed = changed
        self._ttl_ns = ttl_ns
        self._name = name
        self._pump: Pump | None = None
        self._lock = threading.RLock()
        self._lanes: dict[int, LaneConnection] = {}
        self._leaving: set[int] = set()
        self._unused: list[int] = [0]
        self._listener: int | None = None
        self._is_closed = False

    # ---- any thread

    @property
    def is_running(self) -> bool:
        """Whether the thread of each lane runs."""
        with self._lock:
            return all(lane.is_running for lane in self._used())

    @property
    def are_connected(self) -> bool:
        """Whether each lane has a connection."""
        with self._lock:
            return all(lane.connection is not None for lane in self._used())

    def lane(self, index: int) -> LaneConnection | None:
        """Return a lane; None if there is no such lane any more."""
        with self._lock:
            return self._lanes.get(index)

    def serve_by(self, pump: Pump) -> None:
        """Let a pump have the sockets."""
        self._pump = pump

    def add(
        self, endpoint: Endpoint, connect: Callable[[int], Connection | None]
    ) -> LaneConnection:
        """Add a lane. `LaneConnection.start` and `want` begin. After `close` the lane is closed.

        Args:
            endpoint: the node and the server's address.
            connect: makes a connection for a lane of this number.

        Raises:
            ValueError: if the core has as many lanes as it may have.
        """
        assert self._pump is not None
        with self._lock:
            index = self._unused.pop() if self._unused else self._core.add_lane()
            lane = LaneConnection(
                index,
                endpoint,
                lambda: connect(index),
                core=self._core,
                pump=self._pump,
                backoff=Backoff(self._ttl_ns, random.random),
                outlets=LaneOutlets(
                    made=self._made,
                    lost=self._lost,
                    failed=self._failed,
                    warned=self._report,
                    fault=self._fault,
                ),
                name=f"{self._name}-connect",
            )
            self._lanes[index] = lane
            if self._is_closed:
                lane.close()
            return lane

    def remove(self, lane: LaneConnection) -> None:
        """Let a lane have no connection any more."""
        with self._lock:
            lane.close()
            self._leaving.add(lane.index)
            if lane.connection is None:
                self._forget(lane)
            else:
                assert self._pump is not None
                self._pump.detach(lane.index)

    def listens(self, index: int) -> bool:
        """Return whether the next connection of a lane is to carry the announcements."""
        with self._lock:
            if self._listener is None:
                self._listener = index
            return self._listener == index

    def close(self, until_s: float) -> None:
        """Make no more connections, and wait for the threads until a time of `time.monotonic`."""
        with self._lock:
            self._is_closed = True
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.close()
        for lane in lanes:
            lane.join_unless_connecting(max(0.0, until_s - time.monotonic()))

    def finish(self) -> None:
        """Close all sockets, as the pump has ended."""
        with self._lock:
            self._is_closed = True
            for lane in self._lanes.values():
                lane.close()
                lane.discard()

    def abandon(self) -> None:
        """Close a forked child's copies of the sockets. Without the lock, which may be held."""
        for lane in list(self._lanes.values()):
            lane.abandon()

    # ---- the event thread

    def take_losses(self) -> None:
        """Replace the connections that the pump has lost since the last call."""
        assert self._pump is not None
        with self._lock:
            lanes = list(self._lanes.values())
        for lane in lanes:
            loss = self._pump.take_loss(lane.index)
            if loss is not None:
                self._replace(lane, loss)

    def _replace(self, lane: LaneConnection, loss: tuple[str, int, int]) -> None:
        with self._lock:
            if self._listener == lane.index:
                self._listen_elsewhere(lane.index)
            if lane.index in self._leaving:
                lane.discard()
                self._forget(lane)
                return
            self.reconnects += 1
            error = lane.lose(*loss)
        # Outside the lock, as a report may be slow.
        self._report(error)
        self._changed()

    def _listen_elsewhere(self, lost: int) -> None:
        self._listener = None
        for lane in self._used():
            if lane.index != lost and lane.connection is not None:
                if lane.connection.listener is None:
                    self._core.listen(lane.index)
                self._listener = lane.index
                return

    # ---- with the lock

    def _used(self) -> list[LaneConnection]:
        return [lane for lane in self._lanes.values() if lane.index not in self._leaving]

    def _forget(self, lane: LaneConnection) -> None:
        del self._lanes[lane.index]
        self._leaving.discard(lane.index)
        self._unused.append(lane.index)
        if self._listener == lane.index:
            self._listen_elsewhere(lane.index)
        self._record.dropped(lane.index)

    # ---- the connectors' threads

    def _made(self, lane: LaneConnection, connection: Connection, arrival: Arrival) -> None:
        self._record.made(connection.version, lane.index)
        self._arrived(arrival)

    def _lost(self, lane: LaneConnection, error: MultielectError) -> None:
        self._record.lost(error, lane.index)

    def _failed(self, lane: LaneConnection, error: MultielectError) -> None:
        with self._lock:
            if self._lanes.get(lane.index) is not lane:
                return
            if self._listener == lane.index:
                self._listen_elsewhere(lane.index)
        self._record.failed(error)
        self._report(error)
        self._changed()
