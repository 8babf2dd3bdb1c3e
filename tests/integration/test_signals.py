"""Signals that another thread takes than the main thread, which sleeps.

Python runs the handler on the main thread, but the system may wake any thread for the signal.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.diary import WITHIN_S

from multielect import ElectionGroup, Elector

PROGRAM = """
import signal, sys, threading, time
from multielect import ElectionGroup, Elector
from multielect.streams import StreamConsumer

def take_the_signal():
    main = threading.main_thread().ident
    while sys._current_frames()[main].f_code.co_name not in ("wait", "wait_for", "join", "take"):
        time.sleep(0.01)
    time.sleep(0.1)         # it has looked for signals for the last time before it sleeps
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

def soon():
    threading.Thread(target=take_the_signal, daemon=True).start()

def end(number, frame):
    sys.exit(7)

def never_returns(term):
    working.set()
    while True:
        time.sleep(1)

signal.signal(signal.SIGTERM, end)
url = sys.argv[1]
working = threading.Event()
"""

WAITS = {
    "election": (
        """
with ElectionGroup(url, prefix="signals", ttl=60) as group:
    election = group.add("taken")
    soon()
    election.wait()
""",
        7,
    ),
    "election, long": (
        """
with ElectionGroup(url, prefix="signals", ttl=60) as group:
    election = group.add("taken")
    soon()
    election.wait(1000)
""",
        7,
    ),
    "elector": (
        """
with Elector(url, prefix="signals-elector", ttl=60) as elector:
    soon()
    elector.wait()
""",
        7,
    ),
    "drain": (
        """
group = ElectionGroup(url, prefix="signals", ttl=60, worker=never_returns)
group.add("free")
group.start()
working.wait()
try:
    soon()
    group.drain(1000)
finally:
    group.stop(0)
""",
        7,
    ),
    "stop, for a worker": (
        """
group = ElectionGroup(url, prefix="signals", ttl=60, worker=never_returns)
group.add("free")
group.start()
working.wait()
soon()
group.stop(1000)
""",
        7,
    ),
    "stop, for a callback": (
        """
group = ElectionGroup(url, prefix="signals", ttl=60, on_elected=never_returns)
group.add("free")
group.start()
working.wait()
soon()
group.stop(1000)
""",
        7,
    ),
    "stream consumer": (
        """
consumer = StreamConsumer(url, prefix="signals", partitions=["s1"], handler=print)
soon()
consumer.run()
""",
        0,
    ),
}


@pytest.mark.parametrize("what", WAITS)
def test_no_wait_sleeps_on_over_a_signal(what: str, redis_url: str) -> None:
    code, status = WAITS[what]
    program = PROGRAM + code
    with (
        ElectionGroup(redis_url, prefix="signals", ttl=60) as holder,
        Elector(redis_url, prefix="signals-elector", ttl=60) as elector,
    ):
        assert holder.add("taken").wait(WITHIN_S)
        assert elector.wait(WITHIN_S)
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, redis_url],
            check=False,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )
    assert ran.returncode == status, ran.stderr
