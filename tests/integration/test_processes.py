"""Other processes, and the end of one: what is released, and what runs out by itself.

Rules of this file:
    * Each process is a real one, started for the test and gone when it is over.
    * `tests/integration/test_fork.py` is about `fork`.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, SpawnContext

import pytest
import redis
from tests.diary import Diary, until
from tests.spawned import lead

from multielect import ElectionGroup, Elector, aio
from multielect.embedded import EmbeddedServer

PREFIX = "processes"


CONTEXTS: dict[str, SpawnContext | ForkServerContext] = {
    "spawn": multiprocessing.get_context("spawn"),
    "forkserver": multiprocessing.get_context("forkserver"),
}


@pytest.mark.parametrize("method", CONTEXTS)
def test_a_child_has_groups_of_its_own(redis_url: str, method: str) -> None:
    context = CONTEXTS[method]
    diary = Diary()
    group = ElectionGroup(redis_url, prefix=PREFIX, ttl=60, on_demoted=diary.demoted)
    with group:
        assert group.add("parent's").wait(10)
        ours, theirs = context.Pipe()
        process = context.Process(target=lead, args=(redis_url, PREFIX, theirs))
        process.start()
        theirs.close()
        assert ours.poll(30), "the child said nothing"
        led, epoch, node_id = ours.recv()
        assert led
        assert epoch > 0
        assert node_id != group.node_id
        assert group["parent's"].is_leader
        waiting = group.add("child's")
        assert not waiting.wait(0.1)
        assert waiting.leader_id == node_id
        ours.send("stop")
        assert waiting.wait(10)
        process.join(10)
        assert process.exitcode == 0
        assert diary.demotions() == []
    ours.close()


UNPICKLABLE: dict[str, Callable[[], object]] = {
    "group": lambda: ElectionGroup("redis://localhost:1", prefix=PREFIX),
    "election": lambda: ElectionGroup("redis://localhost:1", prefix=PREFIX).add("a"),
    "elector": lambda: Elector("redis://localhost:1", prefix=PREFIX),
    "aio group": lambda: aio.ElectionGroup("redis://localhost:1", prefix=PREFIX),
    "aio election": lambda: aio.ElectionGroup("redis://localhost:1", prefix=PREFIX).add("a"),
    "aio elector": lambda: aio.Elector("redis://localhost:1", prefix=PREFIX),
}


@pytest.mark.parametrize("what", UNPICKLABLE)
def test_what_lives_here_cannot_be_sent_elsewhere(what: str) -> None:
    thing = UNPICKLABLE[what]()
    message = f"{type(thing).__name__} cannot be pickled or copied: .* (Make another|Pass on)"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=message):
            pickle.dumps(thing, protocol)
    for copied in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=message):
            copied(thing)


def rest_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Read what a process says until it ends; `communicate` forgets what was read ahead."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.read(), process.stderr.read()
    process.wait(10)
    return out, err


FORGETFUL = """
import signal, sys, threading
from multielect import ElectionGroup, Elector

# A shell that runs the tests in the background has its children ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)

def elected(term):
    if sys.argv[3] == "from a callback" and term.key == "a":
        threading.Event().wait(0.1)
        signal.raise_signal(signal.SIGINT)

def demoted(term, reason):
    print("demoted", term.key or "elector", reason.name, flush=True)

group = ElectionGroup(sys.argv[1], prefix="processes", ttl=60,
                      on_elected=elected, on_demoted=demoted)
group.add_many(["a", "b"])
group.start()
elector = Elector(sys.argv[1], prefix="processes-elector", ttl=60, on_demoted=demoted)
elector.start()
assert group["a"].wait(10) and group["b"].wait(10) and elector.wait(10)
print("leading", flush=True)
exec(sys.argv[2])
"""

ENDINGS = {
    "falls off its end": ("pass", 0),
    "exits": ("sys.exit(3)", 3),
    "raises": ("raise LookupError('planted')", 1),
    # One long wait could begin right after the signal, and would not notice it.
    "is interrupted": ("while True: threading.Event().wait(0.1)", -signal.SIGINT),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_who_forgets_to_stop_releases_at_exit(
    redis_url: str, redis_client: redis.Redis, ending: str
) -> None:
    code, status = ENDINGS[ending]
    with subprocess.Popen(
        [sys.executable, "-c", FORGETFUL, redis_url, code, ending],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leading\n"
        if ending == "is interrupted":
            process.send_signal(signal.SIGINT)
        before = time.monotonic()
        out, err = rest_of(process)
        took_s = time.monotonic() - before
    assert process.returncode == status
    assert sorted(out.splitlines()) == [
        "demoted a STOPPED",
        "demoted b STOPPED",
        "demoted elector STOPPED",
    ], err
    assert not redis_client.keys("*:leader")
    assert took_s < 10
    if status in {0, 3}:
        assert err == ""


def test_who_exits_while_redis_hangs_does_not_hang(private_server: EmbeddedServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORGETFUL, private_server.url, "sys.stdin.read()", ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leading\n"
        os.kill(private_server.pid, signal.SIGSTOP)
        try:
            before = time.monotonic()
            assert process.stdin is not None
            process.stdin.close()
            out, _ = rest_of(process)
            took_s = time.monotonic() - before
        finally:
            os.kill(private_server.pid, signal.SIGCONT)
    # Two seconds for each of the two that it forgot, and a second of grace.
    assert took_s < 15
    assert process.returncode == 0
    assert len(out.splitlines()) == 3


# The first term begins when the interpreter is ending. Some start no threads any more then (3.12.1
# is one), so whoever is to tell of it must have been there before.
LAST_MINUTE = """
import atexit, sys, threading
from multielect import ElectionGroup, Elector

def say(line):
    # In one piece: callbacks of other threads write too.
    print(line + "\\n", end="", flush=True)

def elected(term):
    say(f"elected {term.key}")
    if term.key == "failing":
        raise LookupError("planted")

def demoted(term, reason):
    say(f"demoted {term.key} {reason.name}")

group = ElectionGroup(sys.argv[1], prefix="processes", ttl=60, on_elected=elected,
                      on_demoted=demoted, on_error=lambda error: say("error"))
group.start()

def lead():
    group.add_many(["a", "b", "failing"])
    for key in group:
        assert group[key].wait(10)

def outlive():
    threading.main_thread().join()
    lead()

if sys.argv[2] == "thread":
    threading.Thread(target=outlive).start()
else:
    atexit.register(lead)
"""


@pytest.mark.parametrize("where", ["thread", "exit handler"])
def test_a_term_of_the_last_minute_is_told_whole(
    redis_url: str, redis_client: redis.Redis, where: str
) -> None:
    process = subprocess.run(
        [sys.executable, "-c", LAST_MINUTE, redis_url, where],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = process.stdout.splitlines()
    assert process.returncode == 0, process.stderr
    for key in ("a", "b", "failing"):
        its_own = [line for line in told if key in line.split()]
        assert its_own == [f"elected {key}", f"demoted {key} STOPPED"], process.stderr
    assert len(told) == 2 * 3 + 1
    assert told.count("error") == 1
    assert not redis_client.keys("*:leader")


TERMINATED = """
import signal, sys
from multielect import ElectionGroup

group = ElectionGroup(sys.argv[1], prefix="processes", ttl=1.0, node_id="terminated",
                      on_demoted=lambda term, reason: print("demoted", flush=True))
group.add("a")
group.start()
assert group["a"].wait(10)
print("leading", flush=True)
signal.pause()
"""


def test_who_is_terminated_loses_nothing_but_time(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TERMINATED, redis_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leading\n"
        with ElectionGroup(redis_url, prefix=PREFIX, ttl=1.0) as successor:
            election = successor.add("a")
            until(lambda: election.leader_id == "terminated")
            process.terminate()
            out, err = rest_of(process)
            assert (out, err, process.returncode) == ("", "", -signal.SIGTERM)
            # Its lease stands until it ends, and then the next one leads.
            (leader_key,) = redis_client.keys("*:leader")
            if not election.is_leader:
                assert 0 < redis_client.pttl(leader_key) <= 1000
            assert election.wait(1.0 + 2.0)
