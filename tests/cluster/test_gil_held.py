"""A thread that keeps the GIL costs no lease on a cluster, not even where a lane is lost meanwhile.

Rules of this file:
    * The GIL is kept by a call through `ctypes.PyDLL`, which does not release it. Whatever is to
      happen in that time is begun before, in a process of its own.
    * What is asserted of the pump is read first of all when the call returns, before any thread of
      Python could have caught up.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys

from tests.clusters import HOST, Cluster
from tests.diary import until

from .conftest import Stand
from .keys import KEYS, keys_at

TTL_S = 1.0

KILL_CLIENTS = """
import sys, time, redis
node = redis.Redis(host=sys.argv[1], port=int(sys.argv[2]))
node.ping()
print("ready", flush=True)
sys.stdin.readline()
time.sleep(float(sys.argv[3]))
node.client_kill_filter(_type="normal", skipme=True)
node.client_kill_filter(_type="pubsub", skipme=True)
"""


def keep_gil(seconds: float) -> None:
    """Keep the GIL for so long in a single C call."""
    ctypes.PyDLL(None).usleep(round(seconds * 1_000_000))


def test_costs_no_lease(cluster: Cluster, cluster_url: str, stand: Stand) -> None:
    group, record = stand(cluster_url, ttl=TTL_S)
    until(lambda: len(group.led) == len(KEYS))
    epochs = {election.key: election.epoch for election in group.led}
    before = group.counters
    keep_gil(3 * TTL_S)
    after, led = group.counters, group.led
    assert len(led) == len(KEYS)
    assert (after.demoted, after.reconnects) == (0, 0)
    # Nine are due in three TTLs; a third is left out for a busy machine.
    assert after.refreshes - before.refreshes >= 6 * len(KEYS)
    assert {election.key: election.epoch for election in led} == epochs
    assert record.errors == []


def test_a_lane_that_is_lost_meanwhile_costs_the_others_nothing(
    cluster: Cluster, cluster_url: str, stand: Stand
) -> None:
    group, record = stand(cluster_url, ttl=TTL_S)
    until(lambda: len(group.led) == len(KEYS))
    lost = cluster.primaries[0]
    its_keys = set(keys_at(lost))
    others = set(KEYS) - its_keys
    with subprocess.Popen(
        [sys.executable, "-c", KILL_CLIENTS, HOST, str(lost.port), str(TTL_S / 2)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as killer:
        assert killer.stdin is not None
        assert killer.stdout is not None
        killer.stdout.readline()
        killer.stdin.write(b"\n")
        killer.stdin.flush()
        before = group.counters
        keep_gil(3 * TTL_S)
        after, led = group.counters, {election.key for election in group.led}
    assert led == others, "the lane connects again when the GIL is free"
    assert after.refreshes - before.refreshes >= 6 * len(others)
    record.wait_for(lambda: len(record.elections()) == len(KEYS) + len(its_keys))
    assert {entry.key for entry in record.demotions()} == its_keys
    assert all(len(epochs) == 1 + (key in its_keys) for key, epochs in record.terms().items())
