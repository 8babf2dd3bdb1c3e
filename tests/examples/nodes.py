"""Nodes that run an example as a program, and what they said they handled.

Rules of this file:
    * A node is a real process. It ends with the test, whatever becomes of that.
    * What a node printed before it was killed counts: it is what the outside world has seen.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from multielect import Election, ElectionGroup
from multielect._protocol.keys import group_layout

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHIN_S = 20.0
DRAIN_S = 3 * WITHIN_S
"""What a drain may take: more than is waited for, so that one that takes its time fails."""

Handled = dict[str, list[int]]
"""The positions that were handled in each partition, in the order of handling."""


class Node:
    """One process of an example."""

    def __init__(self, script: str, *options: str) -> None:
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / script), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
            },
        )
        self._told: list[str] = []
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._collect, args=to, daemon=True)
            for to in ((self._process.stdout, self._lines), (self._process.stderr, self._told))
        ]
        for reader in self._readers:
            reader.start()

    def handled(self) -> Handled:
        found: Handled = defaultdict(list)
        for line in list(self._lines):
            partition, position, _ = line.split(" ", 2)
            found[partition].append(int(position))
        return found

    def told(self) -> str:
        """What it logged."""
        return "".join(list(self._told))

    def wait_for(self, condition: Callable[[Handled], bool]) -> None:
        """Wait until the condition holds for what was handled."""
        with self._changed:
            held = self._changed.wait_for(lambda: condition(self.handled()), WITHIN_S)
        assert held, f"in vain; handled: {dict(self.handled())}\n{self.told()}"

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit status."""
        return self._end(signal.SIGINT)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def close(self) -> None:
        self._end(signal.SIGKILL)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def _end(self, by: signal.Signals) -> int:
        self._process.send_signal(by)
        status = self._process.wait(WITHIN_S)
        for reader in self._readers:
            reader.join(WITHIN_S)
        return status

    def _collect(self, stream: Iterator[str], into: list[str]) -> None:
        for line in stream:
            with self._changed:
                into.append(line)
                self._changed.notify_all()


@contextmanager
def closing_nodes() -> Iterator[Callable[..., Node]]:
    """Give a function that starts nodes, which are gone at the end."""
    nodes: list[Node] = []

    def start(script: str, *options: str) -> Node:
        nodes.append(Node(script, *options))
        return nodes[-1]

    try:
        yield start
    finally:
        for node in nodes:
            node.close()


def in_order(*runs: list[int]) -> bool:
    """Tell whether each run goes on without a gap, and begins no later than the last went on."""
    reached = -1
    for run in runs:
        if run and (run[0] > reached + 1 or run != list(range(run[0], run[0] + len(run)))):
            return False
        reached = max([reached, *run])
    return True


def shared(count: int, first: int, *nodes: list[int]) -> bool:
    """Tell whether nodes handled `count` positions from `first` on between them, each once.

    Each in its order: whatever is handed over goes on elsewhere with the next.
    """
    handled = sorted(position for node in nodes for position in node)
    return handled == list(range(first, first + count)) and all(
        node == sorted(node) for node in nodes
    )


def outdate(client: redis.Redis, prefix: str, key: str) -> None:
    """Have the fence of an election refuse the term that goes on, and no later one."""
    layout = group_layout(prefix)
    newest = client.get(layout.epoch_key(key.encode()))
    assert isinstance(newest, bytes)
    client.set(layout.fence_key(key.encode()), int(newest) + 1)


def forget_lease(client: redis.Redis, prefix: str, key: str) -> None:
    """Lose a lease at the server: its term is lost, and may be won again at once."""
    client.delete(group_layout(prefix).leader_key(key.encode()))


@contextmanager
def successor(url: str, client: redis.Redis, prefix: str, key: str) -> Iterator[Election]:
    """A term of another node, begun while the one before it does not know yet that it is over."""
    group = ElectionGroup(url, prefix=prefix, ttl=30.0)
    (leader,) = client.keys(f"{prefix}:*:{key}:leader")
    client.set(leader, group.holder, px=30_000)
    group.add(key)
    with group:
        assert group[key].wait(WITHIN_S)
        yield group[key]
