"""A program that stands for one election and tells what it believes: see `process.py`.

Rules of this file:
    * It tells in lines of JSON, with times of the clock that deadlines count on, which all
      processes of a machine share.
    * A belief is sampled. What is told of it errs to the short side: from after the first read
      that was True to before the last, so that an overlap of two is one for certain.
    * It obeys one word a line: ``freeze`` stops the process by a signal to itself, and its first
      instruction afterwards reads `is_leader`; ``stop`` stops the group.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multielect import DemotionReason, Election, ElectionGroup, MultielectError, Term
from multielect._runtime.clock import Clock

EVERY_S = 0.001

clock = Clock()
telling = threading.Lock()


def tell(what: str, **more: object) -> None:
    with telling:
        sys.stdout.write(json.dumps({"what": what, **more}) + "\n")
        sys.stdout.flush()


def elected(term: Term) -> None:
    tell("elected", epoch=term.epoch, at_ns=term.began_ns)


def demoted(term: Term, reason: DemotionReason) -> None:
    tell("demoted", epoch=term.epoch, at_ns=term.ended_ns, reason=reason.name)


def failed(error: MultielectError) -> None:
    tell("error", text=str(error))


def sample(election: Election, ending: threading.Event) -> None:
    first_ns = last_ns = 0
    is_over = False
    while not is_over:
        is_over = ending.wait(EVERY_S)
        before_ns = clock.now_ns()
        if not is_over and election.is_leader:
            last_ns = before_ns
            if not first_ns:
                first_ns = clock.now_ns()
                tell("believes", from_ns=first_ns)
        elif first_ns:
            tell("believed", from_ns=first_ns, to_ns=last_ns)
            first_ns = 0


@contextmanager
def others_behind() -> Iterator[None]:
    """Let no other thread of this process run as long as this one has something to do.

    Else the pump may end a term before this thread can see whether it would have led without.
    Who may not go before all others of the machine as well may come too late where it is busy.
    """
    if sys.platform != "linux":
        yield
        return
    ours = threading.get_native_id()
    everywhere = os.sched_getaffinity(0)
    threads = [int(entry.name) for entry in Path("/proc/self/task").iterdir()]
    others = [thread for thread in threads if thread != ours]
    for thread in threads:
        os.sched_setaffinity(thread, {min(everywhere)})
    for thread in others:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(ours, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(ours, os.SCHED_OTHER, os.sched_param(0))
        for thread in others:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        for thread in threads:
            os.sched_setaffinity(thread, everywhere)


def main() -> None:
    group = ElectionGroup(
        sys.argv[1],
        prefix=sys.argv[2],
        ttl=float(sys.argv[4]),
        on_elected=elected,
        on_demoted=demoted,
        on_error=failed,
    )
    election = group.add(sys.argv[3])
    ending = threading.Event()
    sampler = threading.Thread(target=sample, args=(election, ending), daemon=True)
    sampler.start()
    group.start()
    tell("started", holder=group.holder)
    for line in sys.stdin:
        if line.strip() == "freeze":
            with others_behind():
                signal.raise_signal(signal.SIGSTOP)
                leads = election.is_leader
            tell("thawed", leads=leads, at_ns=clock.now_ns())
        elif line.strip() == "stop":
            break
    group.stop()
    tell("stopped")
    ending.set()
    sampler.join()


if __name__ == "__main__":
    main()
