"""Cuts a plan that breaks a promise down to the shortest one found that still does.

Rules of this file:
    * It breaks the same promise, or it is another story.
    * Every step is tried on the real thing: a plan is told again from the beginning.
    * It ends: after `MAX_TRIES` the best plan so far is good enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .plan import Action, Plan

MAX_TRIES = 600


def shrunk(plan: Plan, breaks: Callable[[Plan], bool], max_tries: int = MAX_TRIES) -> Plan:
    """Return the shortest plan found for which `breaks` holds, as it does for `plan`."""
    shrinker = _Shrinker(plan, breaks, max_tries)
    shrinker.run()
    return shrinker.best


class _Shrinker:
    def __init__(self, plan: Plan, breaks: Callable[[Plan], bool], max_tries: int) -> None:
        self.best = plan
        self._breaks = breaks
        self._tries_left = max_tries

    def run(self) -> None:
        size = None
        while size != self._size() and self._tries_left:
            size = self._size()
            self._drop_actions()
            self._try_all(_simpler(self.best))
            self._try_all(_hastened(self.best))

    def _size(self) -> tuple[int, int, str]:
        return len(self.best.actions), self.best.length_ms, self.best.to_json()

    def _try(self, plan: Plan) -> bool:
        if not self._tries_left or plan == self.best:
            return False
        self._tries_left -= 1
        if self._breaks(plan):
            self.best = plan
            return True
        return False

    def _try_all(self, plans: Iterator[Callable[[Plan], Plan]]) -> None:
        for change in plans:
            self._try(change(self.best))

    def _drop_actions(self) -> None:
        """Leave out parts of the actions, halves first and single ones last (ddmin)."""
        parts = 2
        while len(self.best.actions) >= 1:
            actions = self.best.actions
            size = -(-len(actions) // parts)
            for start in range(0, len(actions), size):
                rest = actions[:start] + actions[start + size :]
                if self._try(replace(self.best, actions=rest)):
                    parts = max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    return
                parts = min(2 * parts, len(actions))


def _simpler(plan: Plan) -> Iterator[Callable[[Plan], Plan]]:
    """Yield changes that leave less to think about."""
    yield Plan.without_noise
    yield lambda best: replace(best, drifts=())
    yield lambda best: replace(best, latency_us=(100, 300))
    yield lambda best: replace(best, split_percent=0)
    yield lambda best: replace(best, balanced=False)
    yield lambda best: replace(best, old_server=False)
    yield lambda best: replace(best, max_leases=0)
    for node in reversed(range(plan.nodes)):
        yield lambda best, node=node: _without_node(best, node)  # type: ignore[misc]
    yield _with_one_key
    yield lambda best: replace(best, length_ms=_last_ms(best))
    for number in range(len(plan.actions)):
        yield lambda best, number=number: _halved(best, number)  # type: ignore[misc]


def _hastened(plan: Plan) -> Iterator[Callable[[Plan], Plan]]:
    """Yield changes after which less time passes."""
    for number in range(len(plan.actions)):
        for share in (0, 2, 4):
            yield lambda best, n=number, s=share: _sooner(best, n, s)  # type: ignore[misc]


def _last_ms(plan: Plan) -> int:
    return max((action.at_ms for action in plan.actions), default=0) + 4 * plan.ttl_ms


def _without_node(plan: Plan, node: int) -> Plan:
    if node >= plan.nodes or plan.nodes <= 1:
        return plan
    actions = [
        action._replace(node=action.node - (action.node > node))
        for action in plan.actions
        if action.node != node
    ]
    drifts = plan.drifts[: node + 1] + plan.drifts[node + 2 :]
    return replace(plan, nodes=plan.nodes - 1, actions=tuple(actions), drifts=drifts)


def _with_one_key(plan: Plan) -> Plan:
    """Have one election, and let all that is about another be about it."""
    about_key = {"resign", "campaign", "remove", "add", "evict", "evict-epoch", "write", "spoil"}
    actions = [
        action._replace(values=(0, *action.values[1:])) if action.kind in about_key else action
        for action in plan.actions
    ]
    return replace(plan, keys=1, max_leases=min(plan.max_leases, 1), actions=tuple(actions))


def _halved(plan: Plan, number: int) -> Plan:
    if number >= len(plan.actions):
        return plan
    action = plan.actions[number]
    if not action.values or action.values[-1] < 2:
        return plan
    values = (*action.values[:-1], action.values[-1] // 2)
    return _with_action(plan, number, action._replace(values=values))


def _sooner(plan: Plan, number: int, share: int) -> Plan:
    """Let an action, and all after it, come earlier: at once, or by a share of the wait."""
    if number >= len(plan.actions):
        return plan
    before_ms = plan.actions[number - 1].at_ms if number else 0
    wait_ms = plan.actions[number].at_ms - before_ms
    saved_ms = wait_ms if share == 0 else wait_ms // share
    later = [action._replace(at_ms=action.at_ms - saved_ms) for action in plan.actions[number:]]
    if any(action.kind == "heal" for action in plan.actions[:number]):
        return plan  # after a heal nothing may come too early
    length_ms = max(plan.length_ms - saved_ms, 0)
    return replace(plan, actions=(*plan.actions[:number], *later), length_ms=length_ms)


def _with_action(plan: Plan, number: int, action: Action) -> Plan:
    actions = (*plan.actions[:number], action, *plan.actions[number + 1 :])
    return replace(plan, actions=actions)


def describe(plan: Plan) -> str:
    """Return a plan in words, a line for each action."""
    head = (
        f"{plan.nodes} nodes, {plan.keys} elections, TTL {plan.ttl_ms} ms, seed {plan.seed}"
        f"{', balanced' * plan.balanced}{', old server' * plan.old_server}, epochs by {plan.epochs}"
    )
    whole = [head, *map(str, plan.actions), f"{plan.length_ms / 1000:9.3f} s  the end"]
    return "\n".join(whole)
