"""Leases on a real cluster whose slots move under them: `python -m proof --only cluster`.

Rules of this file:
    * Nobody contends for the elections. So each term that ends is a lease that a reshard has lost.
    * A third of the slots goes to another primary and back: slot by slot, and at once where the
      server can do that.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .part import Advance, Part, Scale, Table

if TYPE_CHECKING:
    from tests.clusters import Cluster, ClusterNode

_HOLDERS = 4
_WITHIN_S = 600.0
_NODE_TIMEOUT_MS = 15_000

Move = Callable[["ClusterNode", "ClusterNode"], None]


def move_slots(scale: Scale, progress: Advance) -> Part:
    """Move a third of a cluster's slots there and back, while leases are refreshed."""
    from tests.servers import of_users  # noqa: PLC0415

    part = Part("cluster", "Leases on a cluster whose slots move")
    programs = {server.name: server.path for server in of_users() if server.path is not None}
    if not programs:
        part.skipped = "no server is installed"
        return part
    runs = [(name, *run) for run in scale.cluster_runs for name in programs]
    rows: list[tuple[str, ...]] = []
    for number, (name, elections, ttl_s) in enumerate(runs):
        progress(number, len(runs), f"{name}, {elections:,} leases")
        for row, lost in _run(programs[name], elections, ttl_s):
            rows.append((name, f"{elections:,}", f"{ttl_s:g}", *row, f"{lost:,}"))
            if lost:
                part.trouble.append(f"{', '.join(rows[-1])}: terms were lost")
    part.ok = not part.trouble
    part.summary = (
        f"{len(rows)} times a third of the slots went to another primary and back, under the leases"
        f" of {_HOLDERS} processes on 3 primaries with a replica each."
    )
    head = ("server", ">leases", ">TTL, s", "slots move", ">seconds", ">refreshes/s", ">lost")
    part.tables = [Table("cluster", head, rows)]
    part.figures = {"elections": [run[0] for run in scale.cluster_runs]}
    return part


def _run(binary: str, elections: int, ttl_s: float) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield for each way to move slots: its name, seconds, refreshes a second; and terms lost."""
    from tests.cluster.holders import Holder  # noqa: PLC0415
    from tests.clusters import Cluster  # noqa: PLC0415

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        # No failover: a busy machine may keep a node from answering for a second.
        settings = {"cluster-node-timeout": _NODE_TIMEOUT_MS}
        cluster = stack.enter_context(Cluster(Path(folder), binary, settings=settings))
        first, second = cluster.primaries[:2]
        share = elections // _HOLDERS
        holders = []
        for number in range(_HOLDERS):
            url = f"redis+cluster://127.0.0.1:{first.port}"
            holders.append(Holder(url, "proof", number * share, share, ttl_s))
            stack.callback(holders[-1].stop)
        for holder in holders:
            holder.wait_led(_WITHIN_S)
        for way, move in _ways(cluster, first):
            before = [holder.ask() for holder in holders]
            began = time.monotonic()
            move(first, second)
            move(second, first)
            took_s = time.monotonic() - began
            # A lease that was lost has run out by then.
            time.sleep(ttl_s)
            after = [holder.ask() for holder in holders]
            refreshes = sum(each["counters"]["refreshes"] for each in after)
            refreshes -= sum(each["counters"]["refreshes"] for each in before)
            lost = sum(each["counters"]["demoted"] for each in after)
            lost -= sum(each["counters"]["demoted"] for each in before)
            yield (way, f"{took_s:.1f}", f"{refreshes / (took_s + ttl_s):,.0f}"), lost


def _ways(cluster: Cluster, first: ClusterNode) -> Iterator[tuple[str, Move]]:
    from tests.resharding import (  # noqa: PLC0415
        migrate_atomically,
        migrates_atomically,
        reshard,
    )

    last = first.members()[first.id].slots[-1][1]

    def slot_by_slot(source: ClusterNode, target: ClusterNode) -> None:
        reshard(cluster, range(last + 1), source, target)

    def at_once(source: ClusterNode, target: ClusterNode) -> None:
        migrate_atomically(cluster, 0, last, source, target, within_s=_WITHIN_S)

    yield "slot by slot", slot_by_slot
    if migrates_atomically(first):
        yield "at once", at_once
