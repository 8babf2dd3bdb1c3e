"""A node that leaves its fleet: whether it says so, and what it waits for."""

from __future__ import annotations

import pytest
from tests.diary import WITHIN_S

from multielect._fleet.balancer import Balancer
from multielect._fleet.membership import pack
from multielect._settings.settings import BalanceSettings
from multielect.testing._resp import encode

from .fleet import members_on
from .rig import LAYOUT, MS, Node, Rig

HERE, GONE = b"I am here", b"I am gone"


def member(rig: Rig) -> Node:
    """A node that is to poll the membership, and has not."""
    node = rig.node(balanced=True)
    node.core.fleet.set_membership_poll(pack(HERE), 1, period_ns=100 * MS)
    return node


def leave(node: Node) -> None:
    node.core.fleet.set_membership_poll(pack(GONE), 1, period_ns=100 * MS, last_ns=400 * MS)
    node.core.elections.stop()


def said(node: Node) -> list[bytes]:
    """Take what it says, and answer it."""
    node.turn()
    words = [request[-1] for request in node.requests]
    node.requests.clear()
    for _ in words:
        node.driver.receive(encode(b"the membership"), node.clock.now_ns())
    return words


def test_who_leaves_says_so_and_waits_until_it_is_heard(rig: Rig) -> None:
    node = member(rig)
    assert said(node) == [HERE]
    leave(node)
    assert not node.is_quiet()
    assert said(node) == [GONE]
    assert node.is_quiet()
    rig.advance_ms(1000)
    assert said(node) == []


def test_who_leaves_before_it_was_answered_says_so(rig: Rig) -> None:
    node = member(rig)
    node.turn()
    leave(node)
    node.turn()
    assert len(node.requests) == 1, "one call is in flight at most"
    assert not node.is_quiet()
    node.requests.clear()
    node.driver.receive(encode(b"the membership"), node.clock.now_ns())
    assert said(node) == [GONE]
    assert node.is_quiet()


def test_who_leaves_as_its_first_call_is_lost_says_so(rig: Rig) -> None:
    """The call may have arrived."""
    node = member(rig)
    node.turn()
    leave(node)
    node.lose()
    assert not node.is_quiet()
    node.connect()
    assert said(node) == [GONE]
    assert node.is_quiet()


def test_who_never_called_has_nothing_to_leave(rig: Rig) -> None:
    node = member(rig)
    leave(node)
    assert node.is_quiet()
    assert said(node) == []
    node.lose()
    node.connect()
    assert said(node) == []


# ---- the balancer, which knows that it is a member only once it was answered


def balanced(rig: Rig) -> tuple[Node, Balancer]:
    """A node whose first poll of the membership is at the server, and not answered yet."""
    node = rig.node("a", balanced=True)
    balancer = Balancer(
        node.core,
        BalanceSettings(),
        holder=node.holder.decode(),
        max_leases=1000,
        ttl_ns=1000 * MS,
        reconnect_ns=0,
        layout=LAYOUT,
        clock=rig.clock,
        on_error=lambda error: pytest.fail(str(error)),
        on_shared_out=lambda *_: None,
        on_acted=lambda: None,
        wake=lambda: None,
        name="balance",
    )
    balancer.start()
    node.turn()
    node.serve()
    assert members_on(rig.server) == [node.holder]
    return node, balancer


def end(balancer: Balancer, node: Node) -> None:
    balancer.leave()
    node.core.elections.stop()
    balancer.join(WITHIN_S)


def test_a_member_that_does_not_know_that_it_is_one_leaves(rig: Rig) -> None:
    node, balancer = balanced(rig)
    end(balancer, node)
    rig.settle()
    assert members_on(rig.server) == []
    assert node.is_quiet()


def test_who_has_left_does_not_come_back_by_what_it_hears_late(rig: Rig) -> None:
    node, balancer = balanced(rig)
    node.deliver()
    answer = node.take_report().membership
    assert answer is not None
    end(balancer, node)
    balancer.hear(answer, rig.clock.now_ns())
    rig.run_ms(2000)
    assert members_on(rig.server) == []


def test_who_has_left_does_not_come_back_by_a_drain(rig: Rig) -> None:
    node, balancer = balanced(rig)
    end(balancer, node)
    balancer.retire()
    rig.run_ms(2000)
    assert members_on(rig.server) == []
