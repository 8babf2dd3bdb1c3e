"""After `fork` the child leads nothing on a cluster, and its parent does not notice.

Rules of this file:
    * The process that forks is a program of its own: see tests/integration/test_fork.py.
    * A child that asks the slot map, or that sends a byte on a shared socket, would cost the parent
      a connection.
"""

from __future__ import annotations

import json
import subprocess
import sys

from tests.clusters import Cluster

from .keys import KEYS, PREFIX, leases

PROGRAM = """
import gc, json, os, signal, stat, sys, threading, time, warnings
from pathlib import Path
from multielect import ElectionGroup

warnings.simplefilter("ignore", DeprecationWarning)     # fork beside threads: the subject here
url, prefix, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

def sockets():
    found = 0
    for entry in list(Path("/dev/fd").iterdir()):
        try:
            found += stat.S_ISSOCK(os.fstat(int(entry.name)).st_mode)
        except OSError:
            pass        # that of the listing itself
    return found

sockets_before = sockets()
demoted = []
group = ElectionGroup(url, prefix=prefix, ttl=5, on_demoted=lambda term: demoted.append(term.key))
group.add_many(f"k{number}" for number in range(count))
group.start()
while len(group.led) < count:
    time.sleep(0.01)
before = group.counters
epochs = {e.key: e.epoch for e in group.led}
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    signal.alarm(20)        # a child that hangs outlives nobody
    os.close(reader)
    told = {
        "led": len(group.led),
        "sockets": sockets() - sockets_before,
        "threads": threading.active_count(),
    }
    group.stop()
    with ElectionGroup(url, prefix=prefix + "-child", ttl=60) as own:
        told["leads its own"] = own.add("own").wait(10)
    os.write(writer, json.dumps(told).encode())
    sys.exit(0)
os.close(writer)
with open(reader, "rb") as pipe:
    told = json.loads(pipe.read())
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
until = time.monotonic() + 20
while group.counters.refreshes < before.refreshes + 3 * count and time.monotonic() < until:
    time.sleep(0.01)
after = group.counters
print(json.dumps({
    "child": told,
    "status": status,
    "refreshed": after.refreshes - before.refreshes >= 3 * count,
    "demoted": after.demoted,
    "reconnects": after.reconnects,
    "epochs": {e.key: e.epoch for e in group.led} == epochs,
}))
group.stop()
"""


def test_the_parent_does_not_notice(cluster: Cluster, cluster_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, cluster_url, PREFIX, str(len(KEYS))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "child": {"led": 0, "sockets": 0, "threads": 1, "leads its own": True},
        "status": 0,
        "refreshed": True,
        "demoted": 0,
        "reconnects": 0,
        "epochs": True,
    }
    assert leases(cluster) == {}
