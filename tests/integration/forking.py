"""A program that leads, forks, and tells what the child found: see `test_fork.py`.

Rules of this file:
    * The child calls everything that there is. What blocks in it for ever is ended by an alarm.
    * It tells in lines of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from multielect import ClosedError, Election, ElectionGroup

COUNT = 500
LONGEST_S = 10


def tell(what: str, **more: object) -> None:
    sys.stdout.write(json.dumps({"what": what, **more}) + "\n")
    sys.stdout.flush()


def outcome(call: Callable[[], object]) -> str:
    try:
        return repr(call())
    except ClosedError:
        return "ClosedError"
    except Exception as error:  # noqa: BLE001  (the test judges it)
        return repr(error)


def look(group: ElectionGroup, elections: list[Election]) -> None:
    first = elections[0]
    calls: dict[str, Callable[[], object]] = {
        "start": group.start,
        "add": lambda: group.add("another"),
        "add_many": lambda: group.add_many(["one", "more"]),
        "remove": lambda: group.remove(first.key),
        "resign": first.resign,
        "campaign": first.campaign,
        "wait": lambda: first.wait(1.0),
        "getitem": lambda: group[first.key],
        "iter": lambda: list(group),
        "leader_id": lambda: first.leader_id,
        "counters": lambda: group.counters,
        "owned": lambda: group.owned,
        "len": lambda: len(group),
        "repr": lambda: "not running" in repr(group),
        "stop": group.stop,
        "stop again": lambda: group.stop(timeout=0.0),
        "leave": lambda: group.__exit__(None, None, None),
    }
    tell(
        "child",
        leading=sum(election.is_leader for election in elections),
        remaining=max(election.remaining for election in elections),
        outcomes={name: outcome(call) for name, call in calls.items()},
    )


@contextmanager
def held_elsewhere(group: ElectionGroup) -> Iterator[None]:
    """Have another thread hold what threads of the group may hold at a fork."""
    node = group._node
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with node._changed, node._engine._arrival:
            holding.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait()
    here = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == here:
            done.set()
            holder.join()


def main() -> None:
    group = ElectionGroup(sys.argv[1], prefix=sys.argv[2], ttl=1.5)
    group.add_many(f"k{number}" for number in range(COUNT))
    elections = [group[key] for key in group]
    with group:
        for election in elections:
            election.wait()
        before = {election.key: election.require_leader() for election in elections}
        tell("leading")
        sys.stdin.readline()
        with held_elsewhere(group):
            child = os.fork()
            if child == 0:
                signal.alarm(LONGEST_S)
                look(group, elections)
                # By way of all that the interpreter does at its end.
                sys.exit(0)
        _, status = os.waitpid(child, 0)
        tell("parent", child=os.waitstatus_to_exitcode(status))
        for _ in sys.stdin:
            now = {election.key: election.require_leader() for election in elections}
            counters = group.counters
            tell(
                "kept",
                same=now == before,
                refreshes=counters.refreshes,
                reconnects=counters.reconnects,
                demoted=counters.demoted,
            )
    tell("stopped")


if __name__ == "__main__":
    main()
