"""The same core behind a pump in Python, as every other library has one: for contrast.

Rules of this file:
    * It is as good as a thread of Python can be: it sleeps in `select` until the core wants
      to be ticked or Redis answers, and does nothing else.
    * It measures how late its ticks were, against when the core had asked for them.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Iterable

from multielect._connection.server import Server
from multielect._connection.source import address_of
from multielect._core.core import Core
from multielect._core.driver import Driver
from multielect._protocol.keys import group_layout
from multielect._runtime.clock import Clock
from multielect.election import DemotionReason

NS = 1_000_000_000
MAX_SLEEP_S = 0.2


class PythonPump:
    """Holds leases by a thread that needs the GIL for each refresh; a context manager."""

    def __init__(self, url: str, *, prefix: str, keys: Iterable[str], ttl_s: float) -> None:
        ttl_ns = round(ttl_s * NS)
        layout = group_layout(prefix)
        self.worst_late_s = 0.0
        self.demotions: list[DemotionReason] = []
        self.failure: Exception | None = None
        self._clock = Clock()
        self._core = Core(
            now_ns=self._clock.now_ns(),
            ttl_ns=ttl_ns,
            margin_ns=ttl_ns // 10,
            key_prefixes=layout.key_prefixes,
            separator=layout.separator,
            holder=b"python/pump",
            channel=layout.channel,
        )
        for key in keys:
            self._core.elections.add(key.encode(), layout.bucket(key.encode()))
        self._connection = Server(address_of(url), layout, 5.0, node_id="pump").connect()
        self._driver = Driver(self._core)
        self._driver.connect(self._connection.scripts)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="python-pump")

    def __enter__(self) -> PythonPump:
        self._core.elections.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(10)
        self._connection.close()
        assert self.failure is None, self.failure

    @property
    def leading(self) -> int:
        """How many leases it holds now."""
        return len(self._core.elections.led(self._clock.now_ns()))

    def _run(self) -> None:
        due_ns = self._clock.now_ns()
        try:
            while not self._ending.is_set():
                due_ns = self._turn(due_ns)
        except Exception as failure:  # noqa: BLE001  # for the test, which is on another thread
            self.failure = failure

    def _turn(self, due_ns: int) -> int:
        batches = self._connection.batches
        now_ns = self._clock.now_ns()
        self.worst_late_s = max(self.worst_late_s, (now_ns - due_ns) / NS)
        due_ns = self._driver.turn(now_ns)
        with memoryview(self._driver.outgoing) as waiting:
            sent = batches.send(waiting) if waiting else 0
        self._driver.sent(sent)
        for *_, reason, _ in self._core.reporter.take_events():
            if reason:
                self.demotions.append(DemotionReason(reason))
        sleep_s = min(max(0.0, (due_ns - self._clock.now_ns()) / NS), MAX_SLEEP_S)
        writers = [batches] if self._driver.outgoing_bytes else []
        if select.select([batches], writers, [], sleep_s)[0]:
            self._driver.receive(batches.recv(1 << 16), self._clock.now_ns())
            due_ns = self._driver.next_turn_ns(self._clock.now_ns())
        return due_ns
