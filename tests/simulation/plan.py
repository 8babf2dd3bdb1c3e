"""What is to happen in a story, as data: it can be drawn by a seed, kept, cut short and told again.

Rules of this file:
    * Nothing here acts. An action is a time, a kind, the number of a node and a few numbers.
    * The same seed draws the same plan.
    * After each `heal` nothing is planned for as long as everything has to be led again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

SERVER = -1
"""The node number of what befalls the server."""


class Action(NamedTuple):
    """One thing that is done.

    Attributes:
        at_ms: when, counted from the beginning.
        kind: what; see `KINDS`.
        node: to which node; `SERVER` for the server.
        values: how long, how far, which key: as the kind wants it.
    """

    at_ms: int
    kind: str
    node: int = SERVER
    values: tuple[int, ...] = ()

    def __str__(self) -> str:
        whom = "server" if self.node == SERVER else f"node {self.node}"
        values = " ".join(map(str, self.values))
        return f"{self.at_ms / 1000:9.3f} s  {whom}: {self.kind} {values}".rstrip()


@dataclass(frozen=True)
class Plan:
    """A story to be.

    Attributes:
        seed: where the world's chance comes from.
        nodes: how many stand for election.
        keys: how many elections there are.
        ttl_ms: how long a lease lasts.
        epochs: how epochs are minted.
        max_leases: how many elections a node leads at the most; 0 for any number.
        balanced: whether the nodes share the elections out.
        old_server: whether the server knows no script flags, and announces on RESP2.
        drifts: how wrong each clock goes, in parts per million: the server's, then the nodes'.
        latency_us: the least and the most that a message takes.
        split_percent: how much of what is sent arrives in pieces.
        actions: what is done, in order.
        length_ms: when the story ends.
    """

    seed: int
    nodes: int = 3
    keys: int = 3
    ttl_ms: int = 1000
    epochs: str = "time"
    max_leases: int = 0
    balanced: bool = False
    old_server: bool = False
    drifts: tuple[int, ...] = ()
    latency_us: tuple[int, int] = (100, 300)
    split_percent: int = 0
    actions: tuple[Action, ...] = ()
    length_ms: int = 0

    def to_json(self) -> str:
        """Return it as one line, without what is as by default."""
        default = asdict(Plan(seed=self.seed))
        words = {name: value for name, value in asdict(self).items() if value != default[name]}
        return json.dumps({"seed": self.seed, **words}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` wrote."""
        words = json.loads(text)
        for name in ("drifts", "latency_us"):
            words[name] = tuple(words.get(name, getattr(cls, name)))
        actions = [(*action[:3], tuple(action[3])) for action in words.pop("actions", ())]
        return cls(**words, actions=tuple(Action(*action) for action in actions))

    def without_noise(self) -> Plan:
        """Return the same on a calm network and with clocks that are right."""
        return replace(self, drifts=(), latency_us=(100, 300), split_percent=0)


def healed_within_ms(plan: Plan) -> int:
    """Return how long an election may stay without a leader once all is well: I5.

    A lease that nobody refreshes runs out, by a clock that may be slow, and later by what the
    server's was set back. Meanwhile a node notices that its connection is dead, pauses between two
    attempts to connect, or before it asks again what was refused; and one that was just told to
    stop does so first, and comes back. In a balanced fleet a node is first missed, and then what it
    was to lead looked at, once a TTL; and what was granted to a successor that is gone waits
    until the grant ends.
    """
    ttl_ms = plan.ttl_ms
    set_back_ms = sum(
        -action.values[0]
        for action in plan.actions
        if action.kind == "step-clock" and action.values[0] < 0
    )
    reconnect_ms = ttl_ms // 3 + 2000
    retry_ms = ttl_ms // 4
    restart_ms = 600
    balance_ms = 3 * ttl_ms if plan.balanced else 0
    return ttl_ms * 21 // 20 + reconnect_ms + retry_ms + restart_ms + balance_ms + set_back_ms + 100


Draw = Callable[[random.Random, Plan], "tuple[int, ...]"]


def _span(min_ms: int, max_ms: int) -> Draw:
    return lambda chance, _: (chance.randint(min_ms, max_ms),)


def _key(chance: random.Random, plan: Plan) -> tuple[int, ...]:
    return (chance.randrange(plan.keys),)


def _key_and(min_ms: int, max_ms: int) -> Draw:
    return lambda chance, plan: (
        chance.randrange(plan.keys),
        chance.choice([0, chance.randint(min_ms, max_ms)]),
    )


def _cut(chance: random.Random, _: Plan) -> tuple[int, ...]:
    # -1: what is on its way is lost.
    return (chance.choice([-1, 0, chance.randint(1, 300), chance.randint(300, 3000)]),)


def _hold(chance: random.Random, _: Plan) -> tuple[int, ...]:
    # 1: requests, 2: replies, 3: both.
    return (chance.choice([1, 2, 2, 3]), chance.randint(50, 2500))


def _step(chance: random.Random, _: Plan) -> tuple[int, ...]:
    return (chance.choice([-400, -50, -3, 20, 700, 5000]),)


@dataclass(frozen=True)
class Kind:
    """A kind of action: how often it is drawn, with which numbers, and of whom."""

    weight: int
    draw: Draw = lambda _, __: ()
    of_server: bool = False


KINDS: dict[str, Kind] = {
    # What processes and machines go through.
    "pause": Kind(4, _span(1, 2500)),
    "crash": Kind(4, _span(0, 2000)),
    "restart": Kind(3, _span(0, 500)),
    "fork": Kind(1),
    "stuff": Kind(3, _span(10, 2000)),
    "lag": Kind(1, _span(0, 300)),
    "delay-callbacks": Kind(1, _span(0, 1500)),
    "jump": Kind(1, _span(1, 2000)),
    # What the network does.
    "cut": Kind(5, _cut),
    "hold": Kind(5, _hold),
    "slow": Kind(2, _span(0, 400)),
    "split": Kind(1, _span(0, 100)),
    # What users do.
    "resign": Kind(3, _key),
    "campaign": Kind(1, _key),
    "remove": Kind(2, _key),
    "add": Kind(2, _key),
    "write": Kind(8, _key_and(1, 3000)),
    # What the server goes through.
    "stall": Kind(2, _span(10, 1500), of_server=True),
    "reboot": Kind(1, _span(0, 1500), of_server=True),
    "lose-all": Kind(1, _span(0, 1500), of_server=True),
    "fail-over": Kind(2, _span(10, 2000), of_server=True),
    "flush": Kind(1, of_server=True),
    "step-clock": Kind(2, _step, of_server=True),
    "refuse": Kind(2, _span(10, 2000), of_server=True),
    "fill": Kind(1, _span(10, 2000), of_server=True),
    "demote": Kind(1, _span(10, 2000), of_server=True),
    "forget-scripts": Kind(2, of_server=True),
    "evict": Kind(1, _key, of_server=True),
    "evict-epoch": Kind(1, _key, of_server=True),
    "spoil": Kind(1, _key_and(10, 2000), of_server=True),
    "orphan": Kind(3, _span(1, 400)),
}
"""All that may be done, but for `heal`."""

LOSES_DATA = {"lose-all", "fail-over", "flush", "evict", "evict-epoch", "spoil"}
"""After these, what the server knew of a lease or an epoch may be gone."""

EXCUSING_NOTHING = {
    name: kind for name, kind in KINDS.items() if name not in {*LOSES_DATA, "step-clock", "orphan"}
}
"""Of these, what holds without exception must hold whatever is done."""


@dataclass(frozen=True)
class Part:
    """A part of a combination: what, with which numbers, and how long after the last."""

    kind: str
    values: Draw = lambda _, __: ()
    after_ms: tuple[int, int] = (0, 2)


def _fixed(*values: int) -> Draw:
    return lambda _, __: values


_LATE = Part("cut", _span(0, 3000), (0, 300))
_LOSING = Part("cut", _fixed(-1), (0, 300))
_NO_REQUESTS = Part("hold", _fixed(1, 4000))
_NO_REPLIES = Part("hold", _fixed(2, 4000))

COMBINATIONS: tuple[tuple[Part, ...], ...] = (
    # What gives a term up is on its way for long, and the node goes on with another.
    (_NO_REQUESTS, Part("resign"), _LATE, Part("campaign"), Part("campaign", after_ms=(5, 400))),
    (_NO_REQUESTS, Part("remove"), _LATE, Part("add")),
    (_NO_REQUESTS, Part("restart", _span(0, 50)), _LATE),
    # A refresh is answered late, or its node sleeps over the answer.
    (_NO_REPLIES, Part("pause", _span(200, 1500), (300, 900))),
    (Part("slow", _span(200, 400)), Part("pause", _span(200, 1500), (100, 900))),
    (Part("stuff", _span(300, 900)), Part("pause", _span(10, 900), (0, 400))),
    # An acquire is won, and nobody hears of it.
    (Part("campaign"), _NO_REPLIES, Part("resign"), Part("campaign", after_ms=(1, 200)), _LOSING),
    (_NO_REPLIES, Part("remove"), Part("add", after_ms=(5, 50)), _LATE),
    # It is looked whether one leads, and what follows from it is written when another does.
    (Part("write", _span(1500, 4000)), Part("pause", _span(1300, 2500)), Part("write", _fixed(0))),
    (Part("write", _span(1500, 4000)), Part("crash", _span(0, 200))),
    # A term ends while something of it is on its way, and another begins.
    (_NO_REPLIES, Part("remove", after_ms=(300, 800)), Part("add"), _LOSING),
    (Part("slow", _span(50, 300)), Part("resign", after_ms=(200, 700)), Part("campaign")),
    (Part("slow", _span(50, 300)), Part("remove", after_ms=(200, 700)), Part("add")),
)
"""What seldom happens so close together by chance: each befalls one node and one election."""


def drawn(seed: int, length_ms: int = 60_000) -> Plan:
    """Draw a plan: for two seeds of three one in which nothing excuses anything."""
    chance = random.Random(f"plan/{seed}")
    kinds = KINDS if seed % 3 == 0 else EXCUSING_NOTHING
    nodes = chance.choice([2, 3, 3, 4])
    keys = chance.choice([1, 2, 4])
    plan = Plan(
        seed=seed,
        nodes=nodes,
        keys=keys,
        epochs=chance.choice(["time", "time", "counter"]),
        max_leases=chance.choice([0, 0, max(1, keys - 1)]),
        balanced=chance.random() < 0.2,
        old_server=chance.random() < 0.25,
        drifts=tuple(chance.choice([0, 0, -30_000, 30_000]) for _ in range(nodes + 1)),
        latency_us=chance.choice([(100, 300), (100, 300), (50, 20_000), (1000, 150_000)]),
        split_percent=chance.choice([0, 20, 80]),
    )
    actions: list[Action] = []
    at_ms = 0
    while at_ms < length_ms:
        calm_ms = chance.choice([30, 150, 600])
        for _ in range(chance.choice([1, 3, 10, 25])):
            at_ms += int(chance.expovariate(1 / calm_ms))
            if chance.random() < 0.2:
                actions += _drawn_combination(chance, plan, at_ms)
                at_ms = actions[-1].at_ms
            else:
                actions.append(_drawn_action(chance, plan, kinds, at_ms))
        at_ms += chance.randint(0, 1500)
        actions.append(Action(at_ms, "heal"))
        plan = replace(plan, actions=tuple(actions))
        at_ms += healed_within_ms(plan) + 50
    return replace(plan, length_ms=at_ms)


def _drawn_action(chance: random.Random, plan: Plan, kinds: dict[str, Kind], at_ms: int) -> Action:
    (name,) = chance.choices(list(kinds), [kind.weight for kind in kinds.values()])
    kind = kinds[name]
    node = SERVER if kind.of_server else chance.randrange(plan.nodes)
    return Action(at_ms, name, node, kind.draw(chance, plan))


def _drawn_combination(chance: random.Random, plan: Plan, at_ms: int) -> list[Action]:
    node, key = chance.randrange(plan.nodes), chance.randrange(plan.keys)
    actions = []
    for part in chance.choice(COMBINATIONS):
        at_ms += chance.randint(*part.after_ms)
        about_key = part.kind in {"resign", "campaign", "remove", "add", "write"}
        values = part.values(chance, plan)
        actions.append(Action(at_ms, part.kind, node, (key, *values) if about_key else values))
    return actions
