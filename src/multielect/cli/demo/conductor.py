"""The conductor: starts the nodes, causes the mishaps, waits for the end of the stream, and judges.

Rules of this file:
    * The mishaps follow a `Plan`, which is made before anything runs.
    * However a run ends, also by an exception, no process and no file is left.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from ..client import Client
from .checkpoint import CheckpointStore
from .fleet import PATIENCE_SECONDS, Fleet
from .leases import LeaseReader
from .mishaps import Mishaps, is_balanced
from .plan import Settings
from .result import Result
from .stream import EventStream
from .takeover import first_elected
from .verdict import judge
from .view import View
from .watch import LOOK_SECONDS, Watch


class Conductor:
    """Carries out one run. Use it once, on the main thread."""

    def __init__(self, settings: Settings, stream: EventStream, client: Client, view: View) -> None:
        self._settings = settings
        self._plan = settings.plan
        self._stream = stream
        self._view = view
        self._store = CheckpointStore(client, settings.prefix, stream.keys)
        self._leases = LeaseReader(client, settings.prefix, stream.keys)
        self._result = Result(elections=len(stream.keys), nodes=len(self._plan.nodes))

    def run(self) -> Result:
        """Run from the start of the nodes to the verdict.

        Raises:
            DemoError: if a node fails, or something does not happen in time.
            redis.RedisError, RedisClusterException: if the server fails.
        """
        with (
            tempfile.TemporaryDirectory(prefix="multielect-demo-") as folder,
            Fleet(self._settings, self._stream, Path(folder)) as fleet,
        ):
            watch = self._start(fleet)
            mishaps = Mishaps(fleet, watch, self._leases, self._result)
            for node, mishap in (
                (self._plan.frozen, mishaps.freeze),
                (self._plan.joining, mishaps.join),
                (self._plan.killed, mishaps.kill),
                (self._plan.stopped, mishaps.stop),
            ):
                if node is not None:
                    mishap(node)
            self._finish(fleet, watch)
            self._judge(fleet, watch)
        return self._result

    def _start(self, fleet: Fleet) -> Watch:
        nodes, elections = self._plan.nodes, self._result.elections
        for node in nodes:
            fleet.start(node)
        fleet.wait_until_ready()
        watch = Watch(
            self._settings,
            fleet,
            events=len(self._stream),
            store=self._store,
            leases=self._leases,
            view=self._view,
        )
        fleet.begin(watch.start_ns)
        watch.say(f"{len(nodes)} nodes share {elections:,} elections out among themselves")
        watch.until(
            "a leader for every election",
            lambda _: len(first_elected(fleet.terms())) == elections,
        )
        all_led_ns = max(first_elected(fleet.terms()).values()) - watch.start_ns
        self._result.all_led_ms = all_led_ns / 1e6
        watch.say(f"all {elections:,} elections were led after {self._result.all_led_ms:,.0f} ms")
        watch.until("even shares", is_balanced)
        self._result.even_ms = (watch.now_ns() - watch.start_ns) / 1e6
        watch.say(f"each of {len(nodes)} nodes leads its share of {elections // len(nodes):,}")
        return watch

    def _finish(self, fleet: Fleet, watch: Watch) -> None:
        events = len(self._stream)
        progress_ns, committed = watch.now_ns(), -1
        stalled_ns = int((3 * self._settings.ttl + PATIENCE_SECONDS) * 1e9)
        while committed < events:
            snapshot = watch.look()
            if snapshot.committed > committed:
                progress_ns, committed = watch.now_ns(), snapshot.committed
            elif watch.now_ns() - progress_ns > stalled_ns:
                watch.say(f"nothing was committed for {stalled_ns / 1e9:.0f} s: giving up")
                break
            time.sleep(LOOK_SECONDS)
        self._result.stream_s = (watch.now_ns() - watch.start_ns) / 1e9
        fleet.end()

    def _judge(self, fleet: Fleet, watch: Watch) -> None:
        watch.say("the stream has ended and all nodes are stopped; checking the journal")
        result = self._result
        result.fenced_out = self._store.totals().refused
        result.verdict = judge(
            self._stream,
            self._store.journal(),
            self._store.epochs(),
            fleet.beliefs(),
            result.changes,
        )
