"""A fleet: processes of nodes, a wire to each, one real server, and their histories.

Rules of this file:
    * Each act of a fault is a method of this file. The fault decides when and why it acts.
    * Each process has its own journal. The standard output of a process says only that it has
      carried out an order.
    * No process outlives the context, however it ends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from tests.integration.process import Program
from tests.integration.proxy import Proxy

from multielect._protocol.keys import encode_key, group_layout
from multielect._runtime.clock import Clock

from .checker import Checker, Entry, Excuse, Findings, Heal, by_election, first_accepted_ns
from .journal import History, Term
from .ledger import Grant, Ledger
from .node import PREFIX, REGISTER, NodeSpec, key_of
from .server import WatchedServer

ROOT = Path(__file__).parents[2]
START_S = 30.0
LOOK_S = 0.01
ENTRIES_A_CALL = 10_000

_S = 1_000_000_000


@dataclass(frozen=True)
class FleetPlan:
    """The settings of a fleet.

    Attributes:
        nodes: the number of nodes, each a process.
        elections: the number of elections. Every node stands for all of them.
        ttl_s: the TTL of the leases, in seconds.
        balance: whether the nodes share the elections out among themselves.
        binary: the server's program; None for the one that comes with the package.
        fakes_clock: whether the server has its own clock.
        records: the capacity of a journal.
        writes_soon: whether leaders write in each election often enough to check I7. With thousands
            of elections they do not.
    """

    nodes: int = 3
    elections: int = 12
    ttl_s: float = 0.5
    balance: bool = False
    binary: str | None = None
    fakes_clock: bool = False
    records: int = 1_000_000
    writes_soon: bool = True

    @property
    def ttl_ns(self) -> int:
        """The TTL in nanoseconds."""
        return round(self.ttl_s * _S)

    @property
    def patience_ns(self) -> int:
        """How long after a heal a fault's bound begins.

        It is longer in a balanced fleet: once in a TTL, a node there looks for elections that no
        other node takes.
        """
        return self.ttl_ns * (2 if self.balance else 1)


class Node(Program):
    """One process of a node, and its history."""

    def __init__(self, spec: NodeSpec, name: str, wire: Proxy) -> None:
        super().__init__("-m", "tests.faults.node", json.dumps(asdict(spec)), cwd=ROOT)
        self.name = name
        self.wire = wire
        self.history: History
        self.children = 0
        self._orders = 0
        self._spec = spec

    def wait_started(self) -> None:
        """Wait until the node has started, and begin to read its journal."""
        holder = self.wait("started", within_s=START_S)["holder"]
        self.history = History(
            Path(self._spec.journal),
            node=self.name,
            holder=holder,
            elections=self._spec.elections,
        )

    def begin(self, *words: object) -> None:
        """Send an order, and return at once. `node.py` has the orders."""
        self._orders += 1
        self.say(" ".join(map(str, words)))

    def wait_obeyed(self) -> None:
        """Wait until the node has carried out the last order."""
        self.wait("obeyed", lambda line: line["number"] == self._orders)

    def order(self, *words: object) -> None:
        """Send an order, and wait until the node has carried it out."""
        self.begin(*words)
        self.wait_obeyed()

    def freeze(self) -> None:
        """Let the node stop itself by SIGSTOP. When it goes on, its sampler looks first."""
        self._orders += 1
        super().freeze()


class Fleet:
    """Runs the fleet while it is entered.

    Attributes:
        places: the node in each place. A killed node stays until another is started in its place.
        checker: the checker of its history.
    """

    def __init__(self, plan: FleetPlan, folder: Path) -> None:
        """Prepare a fleet. Creates `folder` for its files."""
        folder.mkdir(parents=True)
        self.plan = plan
        self.folder = folder
        self.now_ns = Clock().now_ns
        self.checker = Checker(plan.elections)
        self.server = WatchedServer(
            folder,
            Ledger(prefix=PREFIX, elections=plan.elections),
            ttl_ns=plan.ttl_ns,
            binary=plan.binary,
            fakes_clock=plan.fakes_clock,
        )
        self.places: list[Node] = []
        self.wires: list[Proxy] = []
        self._past: list[History] = []
        self._started = 0
        self._entries: list[Entry | None] = []
        self._stack = ExitStack()

    def __enter__(self) -> Fleet:
        with ExitStack() as stack:
            stack.enter_context(self.server)
            self.wires = [
                stack.enter_context(Proxy(self.server.socket_path)) for _ in range(self.plan.nodes)
            ]
            stack.callback(self._end_nodes)
            for place in range(self.plan.nodes):
                self._launch(place)
            for node in self.places:
                node.wait_started()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # ---- nodes

    def living(self) -> list[Node]:
        """Return the nodes whose processes have not ended."""
        return [node for node in self.places if node.exit_status is None]

    def start_node(self, place: int) -> Node:
        """Start a process in a place whose last process has ended."""
        self._launch(place)
        self.places[place].wait_started()
        return self.places[place]

    def kill_node(self, node: Node) -> None:
        """End its process by SIGKILL."""
        node.kill()
        self._bury(node, by_itself=False)

    def stop_node(self, node: Node) -> None:
        """Stop a node cleanly: it releases its leases, and its callbacks report all ends."""
        node.say("stop")
        status = node.wait_end()
        assert status == 0, f"{node.name} ended with {status}"
        self._bury(node, by_itself=True)

    def fork_node(self, node: Node, seconds: float) -> None:
        """Let a node fork a child that looks at its parent's elections for some seconds."""
        node.children += 1
        path = self.folder / f"{node.name}-child-{node.children}.journal"
        node.order("fork", path, seconds)
        while not path.exists() or path.stat().st_size == 0:
            time.sleep(LOOK_S)
        self._past.append(
            History(
                path,
                node=f"{node.name}'s child {node.children}",
                holder=node.history.holder,
                elections=self.plan.elections,
            )
        )

    # ---- elections

    def leader_key(self, election: int) -> bytes:
        """Return the Redis key of the lease."""
        return group_layout(PREFIX).leader_key(encode_key(key_of(election)))

    def epoch_key(self, election: int) -> bytes:
        """Return the Redis key of the epoch counter."""
        return group_layout(PREFIX).epoch_key(encode_key(key_of(election)))

    def wait_until(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait until the condition holds.

        Raises:
            AssertionError: if it does not hold in time.
        """
        end_ns = self.now_ns() + round(within_s * _S)
        while not condition():
            assert self.now_ns() < end_ns, f"timed out waiting for {what}"
            time.sleep(LOOK_S)

    def wait_led(self, since_ns: int, by_ns: int) -> bool:
        """Wait until each election was led at some instant since a time; False if not in time."""
        unled = set(range(self.plan.elections))
        while True:
            looking_ns = self.now_ns()
            histories = self._histories()
            for history in histories:
                history.skim()
            unled = {
                number
                for number in unled
                if not any(history.is_led_since(number, since_ns) for history in histories)
            }
            if not unled or self.now_ns() > by_ns:
                return not unled
            # With many elections a look takes long, and this process also serves the wires.
            time.sleep(max(LOOK_S, 3 * (self.now_ns() - looking_ns) / _S))

    def terms(self) -> dict[int, list[Term]]:
        """Return the terms that processes believed, by election, without those forgotten."""
        found: dict[int, list[Term]] = {number: [] for number in range(self.plan.elections)}
        for history in self._histories():
            for term in history.terms():
                found[term.election].append(term)
        return found

    # ---- the past

    def excuse(self, excuse: Excuse) -> None:
        """Give the checker an excuse."""
        self.checker.excuse(excuse)

    def drain_register(self) -> None:
        """Move the entries of the register, so far, from the server to this process."""
        while taken := self.server.admin.lpop(REGISTER, ENTRIES_A_CALL):
            self._keep(taken)

    def flush_all(self) -> None:
        """Run FLUSHALL, and take the entries of the register in the same transaction."""
        taken, _ = (
            self.server.admin.pipeline(transaction=True)
            .lrange(REGISTER, 0, -1)
            .flushall()
            .execute()
        )
        self._keep(taken)
        self._entries.append(None)

    def restart_empty(self) -> None:
        """Start the killed server again without its data."""
        self.restart(empty=True)
        self._entries.append(None)

    def restart(self, *, empty: bool = False) -> None:
        """Start the killed server again. Nodes reach it once MONITOR runs on it."""
        for wire in self.wires:
            wire.refuses = True
        self.server.restart(empty=empty)
        for wire in self.wires:
            wire.refuses = False

    def replace_server(self, orphans: Node) -> None:
        """Stop the server, and promote a replica in its place. All nodes but one connect to it."""
        others = [wire for wire in self.wires if wire is not orphans.wire]
        for wire in others:
            wire.refuses = True
            wire.cut()
        self.server.replace()
        for wire in others:
            wire.lead_to(self.server.socket_path)
            wire.refuses = False

    def end_orphan(self, orphans: Node) -> list[Grant]:
        """End the old primary. The node that it still had connects to the new server.

        Returns:
            The grants of the old primary since it was replaced.
        """
        orphans.wire.lead_to(self.server.socket_path)
        orphans.wire.cut()
        return self.server.end_orphan()

    def wait_accepted(self, heal: Heal) -> None:
        """Wait until the leader of each election has written since the heal, or its time is up."""
        while self.now_ns() <= heal.by_ns:
            for history in self._histories():
                history.skim()
            self.drain_register()
            terms = self.terms()
            written = by_election(self.entries())
            if all(
                first_accepted_ns(terms[number], written[number], heal.at_ns) is not None
                for number in terms
            ):
                return
            time.sleep(LOOK_S)

    def entries(self) -> list[Entry]:
        """Return the entries of the register since the last check."""
        return [entry for entry in self._entries if entry is not None]

    def check(self, heals: Iterable[Heal] = ()) -> Findings:
        """Check everything up to now against the invariants. The server must answer."""
        self._read_journals()
        self.server.catch_up()
        self.drain_register()
        entries, self._entries = self._entries, []
        with self.server.reading:
            return self.checker.check(self._histories(), self.server.ledger, entries, heals)

    def forget(self, before_ns: int) -> None:
        """Drop the checked history that ended before a time."""
        for history in self._histories():
            history.forget(before_ns)
        self._past = [history for history in self._past if history.terms() or history.unpaired]
        self.checker.forget(before_ns)
        with self.server.reading:
            self.server.ledger.forget(before_ns)

    def stop(self) -> Findings:
        """Stop all nodes cleanly, and check for the last time."""
        for node in self.living():
            self.stop_node(node)
        return self.check()

    # ---- inside

    def _launch(self, place: int) -> None:
        self._started += 1
        name = f"node-{place}.{self._started}"
        spec = NodeSpec(
            url=self.wires[place].url,
            node_id=f"node-{place}",
            elections=self.plan.elections,
            ttl_s=self.plan.ttl_s,
            balance=self.plan.balance,
            journal=str(self.folder / f"{name}.journal"),
            records=self.plan.records,
            parent=os.getpid(),
        )
        node = Node(spec, name, self.wires[place])
        node.__enter__()
        if place == len(self.places):
            self.places.append(node)
        else:
            self.places[place] = node

    def _end_nodes(self) -> None:
        for node in self.places:
            node.__exit__(None, None, None)

    def _bury(self, node: Node, *, by_itself: bool) -> None:
        node.history.end(by_itself=by_itself)
        self._past.append(node.history)
        node.__exit__(None, None, None)

    def _histories(self) -> list[History]:
        present = [node.history for node in self.places if node.history not in self._past]
        return [*self._past, *present]

    def _read_journals(self) -> None:
        for history in self._histories():
            history.read()

    def _keep(self, taken: Iterable[bytes]) -> None:
        for entry in taken:
            election, epoch, sent_ns, holder = entry.decode().split(" ", 3)
            self._entries.append(Entry(int(election), int(epoch), holder, int(sent_ns)))
