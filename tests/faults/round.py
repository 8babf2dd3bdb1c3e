"""One round: something strikes a fleet, heals, and all is led again, or not.

Rules of this file:
    * A round begins when all is led, ends when all is led again and each leader has written, and
      is checked then, with all that was believed, granted and written meanwhile.
    * What is not promised under a fault is not promised from its strike to one TTL after its heal.
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
    """What one round brought.

    Attributes:
        faults: what struck.
        findings: what did not hold.
        led_again_ms: from the heal, until each election was led.
        gaps_ms: how long elections were without a leader, each time that one changed hands.
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
    """Strike, heal, wait until all is led again, and check.

    Args:
        fleet: what is struck.
        faults: that may strike at once.
        chance: from which they choose.
        spared: nodes whose processes are not to be ended.

    Raises:
        AssertionError: when the fleet is not led to begin with, or a fault cannot strike.
    """
    began_ns = fleet.now_ns()
    assert fleet.wait_led(began_ns, began_ns + round(START_S * _S)), "not all is led at the start"
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
    # What a late request did shows when the next one finds it.
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
