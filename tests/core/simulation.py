"""Three nodes, one server and everything that may go wrong, in an order that a seed decides.

Rules of this file:
    * After each step the invariants of the design are held against what the nodes believe
      and what the server holds. The server keeps what it was given: no clock jumps, no data
      is lost, so that they hold without exception.
    * The same seed makes the same story, to the byte.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from multielect.testing._resp import Refusal, parse_commands

from .rig import Happening, Node, Rig

TTL_MS, MARGIN_MS = 1000, 100
KEYS = ("a", "b", "c", "d")

# How long an election may stay without a leader once all is well: a lease, the retry of what
# was refused, jitter and the wheel.
HEALED_WITHIN_MS = TTL_MS + 252 + 20


class Simulation:
    """A story of `steps` steps, told by `play`."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.rig = Rig()
        epochs = self.chance.choice(["time", "counter"])
        most = self.chance.choice([2, 0xFFFF_FFFF])
        for _ in range(3):
            self.rig.node(*KEYS, ttl_ms=TTL_MS, margin_ms=MARGIN_MS, epochs=epochs, max_leases=most)
        self.most_leases = most
        self.sent: list[bytes] = []

    def play(self, steps: int) -> None:
        """Let so many things happen, then heal everything and see that all is led."""
        for _ in range(steps):
            self._step()
            self._check()
        self._heal()
        for node in self.rig.nodes:
            check_pairs(node.happenings)
        self._check_epochs()

    def _step(self) -> None:
        node = self.chance.choice(self.rig.nodes)
        actions: list[tuple[int, Callable[[Node], None]]] = [
            (6, self._tick),
            (6, lambda node: void(node.serve(self.chance.choice([1, 1, 9])))),
            (6, lambda node: void(node.deliver(self.chance.choice([1, 1, 9])))),
            (4, lambda _: self.rig.advance_ms(self.chance.choice([0, 1, 7, 40, 150]))),
            (1, self._change_connection),
            (1, self._change_mind),
            (1, self._trouble),
        ]
        weights = [weight for weight, _ in actions]
        [(_, action)] = self.chance.choices(actions, weights)
        action(node)
        node.take()

    def _tick(self, node: Node) -> None:
        node.core.tick(self.rig.clock.now_ns())
        data = node.take_outgoing()
        self.sent.append(data)
        node.requests.extend(parse_commands(data))

    def _change_connection(self, node: Node) -> None:
        if node.is_connected:
            node.serve(self.chance.randint(0, 2))
            node.lose()
        else:
            node.connect()

    def _change_mind(self, node: Node) -> None:
        key = self.chance.choice(KEYS)
        what = self.chance.choice(["resign", "campaign", "remove", "resign all"])
        if node.core.find(key.encode()) is None:
            node.add(key)
        elif what == "resign":
            node.resign(key)
        elif what == "campaign":
            node.campaign(key)
        elif what == "remove":
            node.remove(key)
        else:
            for led in self._led(node):
                node.resign(led)

    def _trouble(self, node: Node) -> None:
        what = self.chance.choice(["refuse", "serve again", "forget scripts", "stall"])
        if what == "refuse":
            text = self.chance.choice(["LOADING", "OOM", "BUSY", "MISCONF"])
            self.rig.server.refusal = Refusal(f"{text} for a while")
        elif what == "serve again":
            self.rig.server.refusal = None
        elif what == "forget scripts":
            self.rig.server.forget_scripts()
        else:
            # The process is stopped for longer than a lease lasts, its replies being ready.
            node.serve()
            self.rig.advance_ms(TTL_MS + 300)

    def _check(self) -> None:
        for node in self.rig.nodes:
            led = self._led(node)
            assert len(led) <= self.most_leases
            for key in led:
                # At most one: there is but one lease, and only its holder believes.
                assert self.rig.holder_of(key) == node.holder, f"{key}: belief without a lease"
                epoch = self.rig.server.get(self.rig.epoch_key(key))
                assert epoch is not None
                assert node.seat(key).epoch == int(epoch), f"{key}: led under an old epoch"

    def _led(self, node: Node) -> list[str]:
        stood_for = [key for key in KEYS if node.core.find(key.encode()) is not None]
        return [key for key in stood_for if node.leads(key)]

    def _heal(self) -> None:
        self.rig.server.refusal = None
        for node in self.rig.nodes:
            if not node.is_connected:
                node.connect()
            node.add(*(key for key in KEYS if node.core.find(key.encode()) is None))
            for key in KEYS:
                node.campaign(key)
        self.rig.run_ms(HEALED_WITHIN_MS)
        self._check()
        for key in KEYS:
            assert sum(node.leads(key) for node in self.rig.nodes) == 1, f"{key}: not led"

    def _check_epochs(self) -> None:
        for key in KEYS:
            terms = sorted(
                (happening.at_ns, happening.epoch)
                for node in self.rig.nodes
                for happening in node.happenings
                if happening.key == key and happening.reason is None
            )
            epochs = [epoch for _, epoch in terms]
            assert len(set(epochs)) == len(epochs), f"{key}: an epoch was granted twice"
            assert epochs == sorted(epochs), f"{key}: an epoch fell"


def check_pairs(happenings: list[Happening]) -> None:
    """See that each term that begins ends once, under its epoch, before the next begins."""
    open_terms: dict[str, Happening] = {}
    for happening in happenings:
        if happening.reason is None:
            assert happening.key not in open_terms, "a term began before the last one ended"
            open_terms[happening.key] = happening
        else:
            began = open_terms.pop(happening.key)
            assert began.epoch == happening.epoch, "another term ended than had begun"
            assert began.at_ns <= happening.at_ns


def void(_: object) -> None:
    """Take a result that nobody needs."""
