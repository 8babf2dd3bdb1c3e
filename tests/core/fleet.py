"""Balanced nodes on the rig: cores and their balancers, on the manual clock.

Rules of this file:
    * A balancer has no thread here: what it hears is acted on at once, and what it waits for is due
      on the clock of the rig.
    * What a member sees of the fleet can be narrowed, for a test in which members see different
      fleets. The server goes on telling all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from multielect._fleet.balancer import Balancer
from multielect._protocol.netstrings import read_netstrings
from multielect._settings.settings import BalanceSettings
from multielect.balance import Only
from multielect.errors import MultielectError
from multielect.testing._model import RedisModel

from .rig import LAYOUT, MS, Node, Rig

RECONNECT_MS = 2000
HEAD_WORDS = 4
ENTRY_WORDS = 4


def members_on(server: RedisModel) -> list[bytes]:
    """Return the holders of the members that the server knows."""
    stored = server.store.find(LAYOUT.members_key)
    return list(stored[0]) if stored is not None and isinstance(stored[0], dict) else []


def forge_member(server: RedisModel, holder: bytes, words: bytes, lasts_ms: int) -> None:
    """Write an entry of the membership, as anybody may who can write to the server."""
    stored = server.store.find(LAYOUT.members_key)
    members = stored[0] if stored is not None and isinstance(stored[0], dict) else {}
    now_ms = server.now_ms()
    entry = b"%d %d %s" % (now_ms + lasts_ms, now_ms, words)
    server.put(LAYOUT.members_key, members | {holder: entry})


class FleetNode(Node):
    """One balanced node."""

    def __init__(
        self,
        server: RedisModel,
        *,
        holder: str,
        ttl_ms: int,
        settings: BalanceSettings,
        **rest: Any,
    ) -> None:
        super().__init__(
            server, holder=holder, ttl_ms=ttl_ms, margin_ms=ttl_ms // 10, balanced=True, **rest
        )
        self.errors: list[MultielectError] = []
        self.hidden: set[bytes] = set()
        self.is_hung = False
        self.balancer = Balancer(
            self.core,
            settings,
            holder=holder,
            max_leases=rest.get("max_leases"),
            ttl_ns=ttl_ms * MS,
            reconnect_ns=RECONNECT_MS * MS,
            layout=self.layout,
            clock=self.clock,
            on_error=self.errors.append,
            on_shared_out=lambda *_: None,
            on_acted=lambda: None,
            wake=lambda: None,
            name="unused",
        )

    @property
    def leads_now(self) -> set[str]:
        return {key.decode() for key, _, _ in self.core.elections.led(self.clock.now_ns())}

    def join(self) -> None:
        """Become a member, connected."""
        self.balancer.call()
        self.core.elections.start()
        self.connect()

    def leave(self) -> None:
        """Stop, as a node does."""
        self.balancer.leave()
        self.core.elections.stop()

    def take(self) -> None:
        super().take()
        report = self.take_report()
        self.untaken += report.errors
        answer = report.membership
        if self.is_hung:
            return
        if answer is not None:
            self.balancer.hear(self._seen(answer), self.clock.now_ns())
        due_ns = self.balancer.due_ns
        if answer is not None or (due_ns is not None and due_ns <= self.clock.now_ns()):
            self.balancer.balance()

    def next_turn_ns(self) -> int:
        due_ns = None if self.is_hung else self.balancer.due_ns
        next_ns = super().next_turn_ns()
        return next_ns if due_ns is None else min(next_ns, due_ns)

    def _seen(self, answer: bytes) -> bytes:
        words = read_netstrings(answer)
        kept = words[:HEAD_WORDS]
        for at in range(HEAD_WORDS, len(words), ENTRY_WORDS):
            if words[at] not in self.hidden:
                kept += words[at : at + ENTRY_WORDS]
        return b"".join(b"%d:%s" % (len(word), word) for word in kept)


class Fleet:
    """A fleet on a rig."""

    def __init__(self, rig: Rig, keys: Iterable[str], *, ttl_ms: int = 1000) -> None:
        self.rig = rig
        self.keys = tuple(keys)
        self.ttl_ms = ttl_ms
        self.members: list[FleetNode] = []
        self.all: list[FleetNode] = []

    def join(
        self,
        name: str | None = None,
        *,
        weight: float = 1.0,
        labels: Iterable[str] = (),
        only: Only | None = None,
        keys: Iterable[str] | None = None,
        **rest: Any,
    ) -> FleetNode:
        """Have a node join."""
        node = FleetNode(
            self.rig.server,
            holder=name or f"node-{len(self.all)}/incarnation",
            ttl_ms=self.ttl_ms,
            seed=len(self.all) + 1,
            settings=BalanceSettings(weight=weight, labels=frozenset(labels), only=only),
            **rest,
        )
        node.add(*(self.keys if keys is None else keys))
        self.rig.nodes.append(node)
        self.members.append(node)
        self.all.append(node)
        node.join()
        return node

    def leave(self, node: FleetNode) -> None:
        """Have a node leave, as by a stop."""
        node.leave()
        self.members.remove(node)

    def kill(self, node: FleetNode) -> None:
        """Have a node die."""
        node.lose()
        self.members.remove(node)
        self.rig.nodes.remove(node)

    def leaders(self) -> dict[str, FleetNode]:
        """Return who leads what, having checked that nothing is led twice."""
        found: dict[str, FleetNode] = {}
        for node in self.members:
            for key in node.leads_now:
                assert key not in found, f"{key!r} is led by {found[key].holder!r} and another"
                found[key] = node
        return found

    def loads(self) -> list[int]:
        return [len(node.leads_now) for node in self.members]

    def count_ended(self) -> int:
        """Return how many terms have ended so far."""
        return sum(each.reason is not None for node in self.all for each in node.term_events)

    def is_settled(self) -> bool:
        """Tell whether all come to the same assignment, for the members there are, and it is so."""
        leaders = {key: node.holder.decode() for key, node in self.leaders().items()}
        names = {node.holder.decode() for node in self.members}
        for node in self.members:
            answer = node.balancer.assignment
            if answer is None or {member.holder for member in answer.members} != names:
                return False
            if answer.holders() != leaders:
                return False
        return True

    def settle(self, within_ms: int, step_ms: int = 20) -> int:
        """Play until the fleet is settled. Returns how many ms it took."""
        for passed_ms in range(0, within_ms, step_ms):
            if self.is_settled():
                return passed_ms
            self.rig.run_ms(step_ms)
        raise AssertionError(f"not settled within {within_ms} ms: {self.loads()}")

    def check_terms(self, *, apart: bool = True) -> None:
        """Hold what all nodes told against I1 (unless not `apart`) and I2."""
        terms: dict[str, list[tuple[int, int, int]]] = {}
        for node in self.all:
            begun: dict[str, tuple[int, int]] = {}
            for key, epoch, reason, at_ns in node.term_events:
                if reason is None:
                    begun[key] = (epoch, at_ns)
                else:
                    assert begun[key][0] == epoch
                    terms.setdefault(key, []).append((*begun.pop(key), at_ns))
        for key, found in terms.items():
            found.sort()
            for (epoch, _, ended_ns), (next_epoch, began_ns, _) in pairwise(found):
                assert epoch < next_epoch, key
                assert not apart or ended_ns <= began_ns, f"{key!r} had two leaders at once"


def moved(before: dict[str, FleetNode], after: dict[str, FleetNode]) -> int:
    """Return how many elections are led by another than before."""
    return sum(after.get(key) is not node for key, node in before.items())


__all__ = ["LAYOUT", "Fleet", "FleetNode", "moved"]
