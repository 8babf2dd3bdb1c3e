"""One round: faults strike a fleet and heal, and the fleet must lead all elections again.

Rules of this file:
    * A round begins when all elections are led. It ends when all are led again and each leader has
      written. Then the beliefs, grants and writes of the round are checked.
    * A fault's excuses last from its strike until one TTL after its heal.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from .checker import Excuse, Findings, Heal, first_led_ns, gaps_ms
from .fault import Fault, Scene
from .fleet import Fleet, Node

START_S = 20.0
AFTERWARDS_TTLS = 0.5

_S = 1_000_000_000


@dataclass(frozen=True)
class Round:
    """The results of one round.

    Attributes:
        faults: the faults that struck.
        findings: the violations, and those that are excused.
        led_again_ms: the time from the heal until each election was led.
        gaps_ms: how long elections had no leader, for each change of a leader.
    """

    faults: list[str]
    findings: Findings
    led_again_ms: list[float]
    gaps_ms: list[float]


def run_round(
    fleet: Fleet,
    faults: Sequence[Fault],
    chance: random.Random,
    *,
    spared: Iterable[Node] = (),
) -> Round:
    """Let faults strike and heal, wait until all elections are led again, and check.

    Args:
        fleet: the fleet.
        faults: the faults, which may strike together.
        chance: the source of their choices.
        spared: the nodes whose processes no fault may end.

    Raises:
        AssertionError: if not all elections are led at the start, or a fault cannot strike.
    """
    began_ns = fleet.now_ns()
    is_led = fleet.wait_led(began_ns, began_ns + round(START_S * _S))
    assert is_led, "not all elections are led at the start"
    struck: list[tuple[Fault, Scene, int]] = []
    taken: set[Node] = set()
    with ExitStack() as stack:
        for fault in sorted(faults, key=lambda fault: fault.rank):
            scene = Scene(fleet, chance, taken, frozenset(spared))
            struck_ns = fleet.now_ns()
            stack.callback(_excuse, fleet, fault, scene, struck_ns)
            stack.enter_context(contextmanager(fault.happen)(scene))
            struck.append((fault, scene, struck_ns))
        struck[-1][1].wait(max(fault.lasts_ttls for fault in faults))
    healed_ns = fleet.now_ns()
    bound_ns = round(max(fault.bound_s for fault in faults) * _S)
    by_ns = healed_ns + fleet.plan.patience_ns + bound_ns
    heal = Heal(healed_ns, by_ns, accepts=fleet.plan.writes_soon)
    fleet.wait_led(healed_ns, by_ns)
    if heal.accepts:
        fleet.wait_accepted(heal)
    # The next request shows what a late request has done.
    struck[-1][1].wait(AFTERWARDS_TTLS)
    findings = fleet.check([heal, *(early for _, scene, _ in struck for early in scene.heals)])
    terms = fleet.terms()
    led_ns = [first_led_ns(terms[number], healed_ns) for number in terms]
    result = Round(
        faults=[fault.name for fault in faults],
        findings=findings,
        led_again_ms=[(at_ns - healed_ns) / 1e6 for at_ns in led_ns if at_ns is not None],
        gaps_ms=[gap for each in terms.values() for gap in gaps_ms(each, began_ns)],
    )
    if not findings.violations:
        fleet.forget(began_ns)
    return result


def _excuse(fleet: Fleet, fault: Fault, scene: Scene, struck_ns: int) -> None:
    if fault.excuses:
        until_ns = fleet.now_ns() + fleet.plan.ttl_ns
        fleet.excuse(Excuse(fault.name, fault.excuses, struck_ns, until_ns, scene.struck))
