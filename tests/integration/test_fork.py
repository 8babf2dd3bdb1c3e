"""After `fork` the child owns nothing and its parent does not notice.

Rules of this file:
    * The process that forks is a program of its own: a fork of the test's process would
      have its threads and servers too.
    * Whether the parent was disturbed is asked of the parent's counters and of the server's
      list of clients: a byte on the wrong socket would cost the connection.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import redis

LEASES = 1000

PROGRAM = """
import gc, json, os, signal, sys, threading, time, warnings
import redis
from multielect import ClosedError, ElectionGroup, Elector, aio

warnings.simplefilter("ignore", DeprecationWarning)     # fork beside threads: the subject here
url, ending, LEASES = sys.argv[1], sys.argv[2], int(sys.argv[3])
demoted = []
group = ElectionGroup(
    url, prefix="fork", ttl=2, on_elected=lambda term: None,
    on_demoted=lambda term, reason: demoted.append(term.key),
)
group.add_many(f"election-{number}" for number in range(LEASES))
elector = Elector(url, prefix="fork-elector", ttl=2)
idle = ElectionGroup(url, prefix="fork-idle", ttl=2)
idle.add("a")
looped = aio.ElectionGroup(url, prefix="fork-aio", ttl=2)
looped.add("a")
group.start()
elector.start()
while len(group.led) < LEASES or not elector.is_leader:
    time.sleep(0.01)
election = group["election-7"]
epoch = election.epoch

def outcome(call):
    try:
        value = call()
    except Exception as error:
        return type(error).__name__ + ": " + str(error)
    return value if isinstance(value, (bool, int, float, str, list, type(None))) else repr(value)

def enter():
    with group:
        pass

def child():
    began = time.monotonic()
    calls = {
        "is_leader": lambda: election.is_leader,
        "epoch": lambda: election.epoch == epoch,
        "remaining": lambda: election.remaining,
        "leader_id": lambda: election.leader_id,
        "require_leader": election.require_leader,
        "resign": election.resign,
        "campaign": election.campaign,
        "wait": election.wait,
        "wait(0)": lambda: election.wait(0),
        "heartbeat": election.heartbeat,
        "equals": lambda: election == election,
        "election repr": lambda: repr(election),
        "start": group.start,
        "enter": enter,
        "stop": group.stop,
        "add": lambda: group.add("late"),
        "add_many": lambda: group.add_many(["late"]),
        "remove": lambda: group.remove("election-1"),
        "find": lambda: group["election-1"],
        "contains": lambda: "election-1" in group,
        "keys": lambda: list(group),
        "len": lambda: len(group),
        "led": lambda: group.led,
        "counters": lambda: group.counters,
        "node_id": lambda: group.node_id == node_id,
        "ttl": lambda: group.ttl,
        "group repr": lambda: "not running" in repr(group),
        "elector is_leader": lambda: elector.is_leader,
        "elector wait": lambda: elector.wait(),
        "elector resign": elector.resign,
        "elector stop": elector.stop,
        "elector repr": lambda: "not leading" in repr(elector),
        "idle start": idle.start,
        "idle add": lambda: idle.add("b"),
        "aio find": lambda: looped["a"],
        "aio add": lambda: looped.add("b"),
    }
    told = {name: outcome(call) for name, call in calls.items()}
    told["demoted"] = list(demoted)
    told["threads"] = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    with ElectionGroup(url, prefix=f"fork-{os.getpid()}", ttl=60) as own:
        told["leads its own"] = own.add("own").wait(10)
    told["seconds"] = time.monotonic() - began
    return told

node_id = group.node_id
admin = redis.Redis.from_url(url)
me = admin.client_id()
def clients():
    return sorted(int(c["id"]) for c in admin.client_list() if int(c["id"]) != me)
before_clients, before = clients(), group.counters
epochs = {e.key: e.epoch for e in group.led}
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    signal.alarm(20)        # a child that hangs outlives nobody
    os.close(reader)
    data = json.dumps(child()).encode()
    os.write(writer, data)
    os.close(writer)
    if ending == "collected":
        del group, election, elector, idle, looped
        gc.collect()
    if ending == "os._exit":
        os._exit(0)
    sys.exit(0)
os.close(writer)
with open(reader, "rb") as pipe:
    told = json.loads(pipe.read())
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
until = time.monotonic() + 20
while group.counters.refreshes < before.refreshes + 6 * LEASES and time.monotonic() < until:
    time.sleep(0.01)
after = group.counters
print(json.dumps({
    "child": told,
    "status": status,
    "clients": clients() == before_clients and len(before_clients) > 0,
    "refreshes": after.refreshes - before.refreshes,
    "demoted": after.demoted,
    "reconnects": after.reconnects,
    "epochs": {e.key: e.epoch for e in group.led} == epochs,
    "elector": elector.is_leader,
}))
group.stop()
elector.stop()
print(json.dumps(len(demoted)))
"""


@pytest.mark.parametrize("ending", ["sys.exit", "os._exit", "collected"])
def test_the_parent_does_not_notice(redis_url: str, redis_client: redis.Redis, ending: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, redis_url, ending, str(LEASES)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    report, demoted = map(json.loads, done.stdout.splitlines())
    child = report.pop("child")
    refreshes = report.pop("refreshes")
    assert report == {
        "status": 0,
        "clients": True,
        "demoted": 0,
        "reconnects": 0,
        "epochs": True,
        "elector": True,
    }
    assert refreshes >= 6 * LEASES
    assert demoted == LEASES
    assert not redis_client.keys("*:leader")
    assert_child_owned_nothing(child)


def assert_child_owned_nothing(child: dict[str, Any]) -> None:
    assert child.pop("seconds") < 10
    closed = {name for name, told in child.items() if str(told).startswith("ClosedError")}
    for name in closed:
        assert "a forked child must make its own" in child.pop(name)
    assert closed == {
        "leader_id",
        "resign",
        "campaign",
        "wait",
        "wait(0)",
        "start",
        "enter",
        "add",
        "add_many",
        "remove",
        "find",
        "contains",
        "keys",
        "counters",
        "elector wait",
        "elector resign",
        "idle start",
        "idle add",
        "aio find",
        "aio add",
    }
    assert child.pop("require_leader").startswith("NotLeaderError")
    assert child == {
        "is_leader": False,
        "epoch": True,
        "remaining": 0.0,
        "heartbeat": None,
        "equals": True,
        "election repr": "<Election 'election-7': not leading>",
        "stop": None,
        "len": LEASES,
        "led": [],
        "node_id": True,
        "ttl": 2.0,
        "group repr": True,
        "elector is_leader": False,
        "elector stop": None,
        "elector repr": True,
        "leads its own": True,
        "demoted": [],
        "threads": [],
    }


COPIES = """
import os, stat, sys, warnings
from pathlib import Path
from multielect import ElectionGroup

warnings.simplefilter("ignore", DeprecationWarning)

def sockets():
    found = 0
    for entry in list(Path("/dev/fd").iterdir()):
        try:
            found += stat.S_ISSOCK(os.fstat(int(entry.name)).st_mode)
        except OSError:
            pass        # that of the listing itself
    return found

before = sockets()
with ElectionGroup(sys.argv[1], prefix="fork", ttl=60) as group:
    assert group.add("a").wait(10)
    assert sockets() > before
    pid = os.fork()
    if pid == 0:
        os._exit(sockets() - before)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_the_child_closes_its_copies_of_the_sockets(redis_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COPIES, redis_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)
