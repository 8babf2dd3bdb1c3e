"""The same world under Hypothesis: what is done is chosen, and cut short, by it.

Rules of this file:
    * Its rules are the actions of `plan`, and its checks those of `checker`.
    * At the end all is healed, and everything must be led within the bound that is stated.
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from .plan import KINDS, SERVER, Action, Plan, healed_within_ms
from .story import Story

QUICK = settings(
    max_examples=12,
    stateful_step_count=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""What `make test` runs: the same examples every time."""

LONG = settings(
    max_examples=3000,
    stateful_step_count=60,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
"""Other examples every time, for as long as one likes to wait."""


class World(RuleBasedStateMachine):
    """A story that nobody has written down."""

    story: Story | None = None

    @initialize(
        seed=st.integers(0, 2**16),
        nodes=st.integers(1, 3),
        keys=st.integers(1, 3),
        epochs=st.sampled_from(["time", "counter"]),
        balanced=st.booleans(),
        old_server=st.booleans(),
        split_percent=st.sampled_from([0, 50]),
    )
    def begin(  # noqa: PLR0917  # Hypothesis passes them by name
        self,
        seed: int,
        nodes: int,
        keys: int,
        epochs: str,
        balanced: bool,
        old_server: bool,
        split_percent: int,
    ) -> None:
        plan = Plan(
            seed=seed,
            nodes=nodes,
            keys=keys,
            epochs=epochs,
            balanced=balanced,
            old_server=old_server,
            split_percent=split_percent,
        )
        self.plan = plan
        self.story = Story(plan)
        self.set_back_ms = 0

    @rule(
        kind=st.sampled_from(sorted(KINDS)),
        node=st.integers(0, 2),
        chance=st.randoms(use_true_random=False),
    )
    def act(self, kind: str, node: int, chance: random.Random) -> None:
        assert self.story is not None
        values = KINDS[kind].draw(chance, self.plan)
        if kind == "step-clock":
            self.set_back_ms += max(0, -values[0])
        whom = SERVER if KINDS[kind].of_server else node % self.plan.nodes
        self.story.act(Action(0, kind, whom, values))

    @rule(span_ms=st.integers(0, 1500))
    def wait(self, span_ms: int) -> None:
        assert self.story is not None
        self.story.world.run(span_ms / 1000)

    def teardown(self) -> None:
        """Heal all, and see that all is led, and ends in order."""
        story = self.story
        if story is None:
            return
        with story.world:
            story.act(Action(0, "heal"))
            story.world.run((healed_within_ms(self.plan) + self.set_back_ms) / 1000)
            story.checker.all_is_led()
            story.end()


def explore(how: settings = LONG) -> None:
    """Look for a story that breaks a promise.

    Raises:
        BrokenPromiseError: if there is one, the shortest that was found being printed.
    """
    run_state_machine_as_test(World, settings=how)
