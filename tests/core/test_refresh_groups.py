"""Each lease is refreshed once a third of the TTL and no term outlasts its deadline, come what may.

Refresh groups of few slots, so that there are many of them, with timers that come and go.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from .rig import MS, Node, Rig

TTL_MS, PERIOD_MS = 3000, 1000
KEYS = [f"k{n}" for n in range(23)]

actions = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 1200)),
    st.tuples(st.sampled_from(["resign", "remove", "delete"]), st.integers(0, len(KEYS) - 1)),
    st.tuples(st.sampled_from(["lose", "connect", "refresh all", "add all"]), st.just(0)),
)


class Watch:
    """One node among its events, and when each of its leases was sent last."""

    def __init__(self, batch_keys: int, margin_ms: int) -> None:
        self.rig = Rig()
        self.sent_ns: dict[bytes, int] = {}
        self.node: Node = self.rig.node(
            *KEYS, ttl_ms=TTL_MS, margin_ms=margin_ms, batch_keys=batch_keys
        )

    def act(self, what: str, amount: int) -> None:
        key = KEYS[amount % len(KEYS)]
        node = self.node
        if what == "run":
            self.run(amount)
        elif what == "resign" and self.knows(key):
            node.resign(key)
        elif what == "remove" and self.knows(key):
            node.remove(key)
        elif what == "delete":
            self.rig.server.delete(self.rig.leader_key(key))
        elif what == "lose" and node.is_connected:
            node.lose()
        elif what == "connect" and not node.is_connected:
            node.connect()
        elif what == "refresh all":
            node.core.refresh_all()
        elif what == "add all":
            node.add(*(key for key in KEYS if not self.knows(key)))
        self.settle()

    def knows(self, key: str) -> bool:
        return self.node.core.elections.find(key.encode()) is not None

    def run(self, span_ms: int) -> None:
        until_ns = self.rig.clock.now_ns() + span_ms * MS
        while self.rig.clock.now_ns() < until_ns:
            next_ns = min(self.node.next_turn_ns(), until_ns)
            self.rig.clock.advance_ns(max(next_ns - self.rig.clock.now_ns(), 1))
            self.settle()

    def settle(self) -> None:
        """Let everything happen that happens at this instant, and see what is so afterwards."""
        self.rig.server.batches.clear()
        if self.node.is_connected:
            self.rig.settle()
        else:
            self.node.turn()
        now_ns = self.rig.clock.now_ns()
        for batch in self.rig.server.batches:
            step = 1 if batch.request == "refresh" else 2
            self.sent_ns.update(dict.fromkeys(batch.keys[::step], now_ns))
        led = [key.decode() for key, _, _ in self.node.core.elections.led(now_ns)]
        assert self.node.core.elections.leading == len(led), "a term outlasts its deadline"
        if self.node.is_connected:
            for key in led:
                late_ns = now_ns - self.sent_ns[self.rig.leader_key(key)] - PERIOD_MS * MS
                assert late_ns < 0, f"{key} was not refreshed in time"


@settings(max_examples=200)
@given(
    batch_keys=st.sampled_from([1, 2, 5]),
    margin_ms=st.sampled_from([0, 300, 1500]),
    story=st.lists(actions, max_size=30),
)
def test_refreshes_and_ends_are_on_time(
    batch_keys: int, margin_ms: int, story: list[tuple[str, int]]
) -> None:
    watch = Watch(batch_keys, margin_ms)
    watch.settle()
    for what, amount in story:
        watch.act(what, amount)
    if not watch.node.is_connected:
        watch.act("connect", 0)
    watch.act("add all", 0)
    watch.run(2 * TTL_MS)
    assert watch.node.core.elections.leading == len(KEYS)


def test_a_refresh_moves_nothing_out_of_its_turn(rig: Rig) -> None:
    node = rig.leader(*KEYS, ttl_ms=TTL_MS)
    rig.run_ms(PERIOD_MS)
    rig.server.batches.clear()
    rig.run_ms(10 * PERIOD_MS)
    refreshes = [batch for batch in rig.server.batches if batch.request == "refresh"]
    assert [batch.elections for batch in refreshes] == [len(KEYS)] * 10
    assert node.core.elections.leading == len(KEYS)


def test_a_refresh_that_was_due_while_one_was_under_way_follows_on_its_answer(rig: Rig) -> None:
    node = rig.node(*KEYS, ttl_ms=TTL_MS, margin_ms=1500)
    node.exchange()
    node.core.refresh_all()
    node.turn()
    rig.advance_ms(PERIOD_MS + 5)
    node.turn()
    assert len(node.requests) == 1, "it would only burden a server that is slow"
    node.serve()
    node.deliver()
    refreshes = node.counted("refreshes")
    node.exchange()
    assert node.counted("refreshes") == refreshes + len(KEYS)
    # Without it they would have ended by now.
    rig.advance_ms(PERIOD_MS)
    node.exchange()
    assert node.core.elections.leading == len(KEYS)
    assert all(node.told(key) == [None] for key in KEYS)
