"""The slot map of a cluster: read from its nodes, and turned into lanes.

Rules of this file:
    * One thread reads the slot map: when a redirection, a lost connection or a failed attempt says
      that it may have changed, and again and again until every bucket has a connected lane. It
      rests after each reading: briefly at first, and longer if the trouble lasts or if somebody
      must mend something.
    * Any node may be asked. A node that does not answer is asked last from then on.
    * A map may be old. The nodes themselves correct it by redirections, which the core follows at
      once. So an old map costs a round trip, and no lease.
    * There is a lane for each primary that serves a bucket, and for one that imports a slot. There
      is none for other nodes.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Collection, Iterable

from .._connection.cluster import Address, SlotRange, Slots
from .._connection.health import ConnectionRecord
from .._connection.server import Connection, Server
from .._core.core import Core
from .._core.slot_map import slot_of_key
from .._protocol.keys import HASH_SLOTS, KeyLayout
from .._runtime.foreign import in_words
from ..errors import ConfigError, MultielectError, ServerUnusableError
from .lane_connection import LaneConnection
from .lanes import Lanes

_NO_LANE = -1
"""In place of the lane of a slot that no primary serves."""

_REST_S = 0.1
_LONG_REST_S = 1.0
_LASTS_S = 10.0
"""How long trouble lasts before the thread rests longer."""

_CALM_S = 1.0
"""After so long without a reading the next one is about new trouble."""

_READ_TIMEOUT_S = 0.5

_IMPORTS_S = 60.0
"""How long a node that imports a slot keeps its lane at least. The next ASK gives it another."""


class Cluster:
    """Keeps one lane for each primary of a cluster that serves a bucket."""

    def __init__(
        self,
        server: Server,
        nodes: Iterable[Address],
        *,
        core: Core,
        lanes: Lanes,
        record: ConnectionRecord,
        layout: KeyLayout,
        slots: Collection[int],
        report: Callable[[MultielectError], None],
        wake: Callable[[], None],
        fault: Callable[[str, BaseException], None],
        name: str,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            server: one of its nodes, for the settings of all.
            nodes: the nodes that the user named.
            core: the core, whose slots are mapped.
            lanes: the connections of its lanes.
            record: is told which lanes need a connection.
            layout: where the elections are kept.
            slots: the slots of the buckets, and that of the fleet.
            report: takes an error.
            wake: wakes the pump.
            fault: takes a fault of multielect that ended the thread.
            name: the name of the thread.
        """
        self._server = server
        self._named = tuple(nodes) or (server.address,)
        self._known: list[Address] = list(self._named)
        self._readers: dict[Address, Server] = {}
        self._importing: dict[Address, float] = {}
        self._core = core
        self._lanes = lanes
        self._record = record
        self._layout = layout
        self._slots = frozenset(slots)
        self._report = report
        self._wake = wake
        self._fault = fault
        self._by_address: dict[Address, LaneConnection] = {}
        self._is_covered = False
        self._has_checked_buckets = False
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._trouble_since_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # ---- any thread

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, which reads the map at once.

        Raises:
            RuntimeError: if no thread can be started.
        """
        self._record.need({_NO_LANE})
        self._wanted.set()
        self._thread.start()

    def want(self) -> None:
        """Have the map read again, as it may have changed."""
        self._wanted.set()

    def want_lane(self, address: str) -> None:
        """Have a lane for a node that imports a slot, and may have none of its own.

        Args:
            address: the address, as a redirection has it.
        """
        host, _, port = address.rpartition(":")
        # A node that was to be named by a hostname, and has none, is called "?".
        if port.isdecimal() and host not in ("", "?"):
            self._importing[Address(host, int(port))] = time.monotonic()
            self._wanted.set()

    def close(self) -> None:
        """Read no more. A reading under way ends by its timeout."""
        self._closing.set()
        self._wanted.set()

    # ---- its own thread

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                if self._is_whole():
                    self._wait()
                self._wanted.clear()
                if not self._closing.is_set():
                    failure = self._read()
                    lasts_s = time.monotonic() - self._trouble_since_s
                    is_hasty = lasts_s < _LASTS_S and not isinstance(failure, ServerUnusableError)
                    self._closing.wait(_REST_S if is_hasty else _LONG_REST_S)
        except BaseException as error:  # noqa: BLE001
            self._fault("the thread that reads the slot map", error)

    def _is_whole(self) -> bool:
        return self._is_covered and self._has_checked_buckets and self._lanes.are_connected

    def _wait(self) -> None:
        since_s = time.monotonic()
        self._wanted.wait()
        if time.monotonic() - since_s >= _CALM_S:
            self._trouble_since_s = time.monotonic()

    def _read(self) -> MultielectError | None:
        """Read the map and let the lanes be those of it. Returns the error if no node helped."""
        failure: MultielectError | None = None
        for address in list(self._known):
            if self._closing.is_set():
                return None
            try:
                slots = self._reader(address).read_slots()
                if not self._has_checked_buckets:
                    self._check_buckets(slots)
            except MultielectError as error:
                failure = error
                self._put_last(address)
                if isinstance(error, ConfigError):
                    break
            else:
                self._know(slots)
                self._apply(slots)
                return None
        assert failure is not None
        self._record.failed(failure)
        self._report(failure)
        return failure

    def _check_buckets(self, slots: Slots) -> None:
        """Check the number of buckets on the primary that has it.

        Raises:
            ConfigError: if the prefix has another number of buckets.
            MultielectError: if the primary does not say.
        """
        if not self._layout.buckets_key:
            self._has_checked_buckets = True
            return
        slot = slot_of_key(self._layout.buckets_key)
        primary = self._primary_of(slot, slots.ranges)
        if primary is None:
            raise self._server.endpoint.elsewhere(f"no node of the cluster serves slot {slot}")
        self._server.at(primary).check_buckets()
        self._has_checked_buckets = True

    def _reader(self, address: Address) -> Server:
        """Return the server of a node, with a short timeout, as another node may answer."""
        if address not in self._readers:
            self._readers[address] = self._server.at(address, _READ_TIMEOUT_S)
        return self._readers[address]

    def _put_last(self, address: Address) -> None:
        self._known.remove(address)
        self._known.append(address)

    def _know(self, slots: Slots) -> None:
        """Keep the nodes that were named now, and those that the user named."""
        named = dict.fromkeys((*slots.nodes, *self._named))
        kept = [address for address in self._known if address in named]
        self._known = kept + [address for address in named if address not in kept]
        self._readers = {
            address: server for address, server in self._readers.items() if address in named
        }

    def _apply(self, slots: Slots) -> None:
        """Let the lanes be those of the map."""
        primaries = [self._primary_of(slot, slots.ranges) for slot in sorted(self._slots)]
        serving = dict.fromkeys(address for address in primaries if address is not None)
        wanted = serving | self._importing_now()
        for address in wanted:
            if address not in self._by_address:
                self._add(address)
        self._map(slots.ranges)
        for address in [each for each in self._by_address if each not in wanted]:
            lane = self._by_address.pop(address)
            self._core.name_lane(lane.index, b"")
            self._lanes.remove(lane)
        self._is_covered = all(address in self._by_address for address in primaries)
        needed = {lane.index for address, lane in self._by_address.items() if address in serving}
        self._record.need(needed if self._is_covered else needed | {_NO_LANE})
        self._wake()

    def _importing_now(self) -> dict[Address, None]:
        """Return the nodes that were said to import a slot a short time ago."""
        oldest_s = time.monotonic() - _IMPORTS_S
        for address, since_s in list(self._importing.items()):
            if since_s < oldest_s:
                self._importing.pop(address, None)
        return dict.fromkeys(list(self._importing))

    @staticmethod
    def _primary_of(slot: int, ranges: tuple[SlotRange, ...]) -> Address | None:
        """Return the primary of a slot, if it is served. The ranges are in order."""
        place = bisect.bisect_right(ranges, slot, key=lambda each: each.first) - 1
        if place < 0 or ranges[place].last < slot:
            return None
        return ranges[place].primary

    def _map(self, ranges: Iterable[SlotRange]) -> None:
        beyond = 0
        for first, last, primary in ranges:
            if first > beyond:
                self._core.map_slots(beyond, first - 1, None)
            lane = self._by_address.get(primary)
            self._core.map_slots(first, last, None if lane is None else lane.index)
            beyond = max(beyond, last + 1)
        if beyond < HASH_SLOTS:
            self._core.map_slots(beyond, HASH_SLOTS - 1, None)

    def _add(self, address: Address) -> None:
        """Add the lane of a primary. What cannot be added now is added by a later reading."""
        server = self._server.at(address)

        def connect(index: int) -> Connection:
            return server.connect(listens=self._lanes.listens(index))

        try:
            lane = self._lanes.add(server.endpoint, connect)
        except ValueError as error:
            self._report(server.endpoint.unusable("cluster", str(error), "Use fewer primaries"))
            return
        try:
            lane.start()
        except RuntimeError as error:
            self._lanes.remove(lane)
            what = f"no thread could be started: {in_words(error)}"
            self._report(server.endpoint.unreachable(what))
            return
        self._core.name_lane(lane.index, str(address).encode())
        self._by_address[address] = lane
        lane.want()
