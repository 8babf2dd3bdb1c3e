"""A fork that finds the group's locks in the hands of other threads leaves no child waiting.

Beside `test_fork.py`, which forks while nothing happens: here another thread of the parent holds
what threads of a group hold for moments, and never lets go of it in the child.
"""

from __future__ import annotations

import subprocess
import sys

from multielect.errors import ClosedError

PROGRAM = """
import os, signal, sys, threading, warnings
from multielect import ClosedError, ElectionGroup

warnings.simplefilter("ignore", DeprecationWarning)     # fork beside threads: the subject here
group = ElectionGroup(sys.argv[1], prefix="midway", ttl=30)
election = group.add("a")
with group:
    election.wait()
    holding, done = threading.Event(), threading.Event()

    def hold():
        with group._node._changed, group._node._engine._lanes._lock:
            holding.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)    # ends what would wait for ever
        try:
            election.wait(1.0)
        except ClosedError as error:
            print(type(error).__name__, len(group), group.led, flush=True)
        group.stop()
        sys.exit()
    done.set()
    holder.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), election.is_leader)
"""


def test_the_child_does_not_wait_for_what_nobody_will_let_go(redis_url: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, redis_url],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert ended.stdout.splitlines() == [f"{ClosedError.__name__} 1 []", "0 True"]
