"""A primary that was stopped answers, once it goes on, though a replica has taken its place."""

from __future__ import annotations

from multielect import DemotionReason, ElectionGroup
from multielect._protocol.keys import group_layout
from multielect._protocol.netstrings import netstring
from multielect.fencing._writes import Write, Writer, packed
from multielect.testing import SimulatedWorld

from .worlds import make, watched

LAYOUT = group_layout("p")


def written(world: SimulatedWorld, group: ElectionGroup) -> bool:
    """Write behind the fence as the leader does; what it is told of, its node is told."""
    election = group["k"]
    writer = Writer(key="k", epoch=election.epoch)
    (batch,) = packed([Write.set(writer, "p:data", "x")], LAYOUT, spans_buckets=True)
    count = b"%d" % len(batch.keys)
    script = batch.script.with_flags.body
    reply = world.server.model.call([b"EVAL", script, count, *batch.keys, *batch.arguments])
    assert isinstance(reply, list)
    assert isinstance(reply[0], list)
    if reply[0][0] == 0:
        assert isinstance(reply[0][1], int)
        election.learn_epoch(reply[0][1])
    return reply[0][0] == 1


def leads(group: ElectionGroup) -> bool:
    return group["k"].is_leader


def test_the_lawful_leader_leads_again_above_who_was_elected_by_the_old_primary(
    world: SimulatedWorld,
) -> None:
    lawful, told = watched(world, "lawful", "k")
    world.run(1)
    assert leads(lawful)
    other = make(world, "other", "k")
    world.run(1)

    left = world.orphan(other._node.environment, 0.1)  # type: ignore[arg-type]
    left.publish(LAYOUT.channel, netstring(b"nobody/1") + netstring(LAYOUT.leader_key(b"k")))
    world.run(0.05)
    assert leads(other)
    assert other["k"].epoch > lawful["k"].epoch
    assert written(world, other)
    newest = other["k"].epoch

    assert leads(lawful)
    assert not written(world, lawful), "the fence lets no older epoch in"
    assert not leads(lawful)
    world.run(0.01)
    assert told.terms == [("k", None), ("k", DemotionReason.SUPERSEDED), ("k", None)]
    assert lawful["k"].epoch > newest
    assert written(world, lawful)

    world.run(5)
    assert not leads(other), "its server is gone, and its lease with it"
    assert leads(lawful)
    assert written(world, lawful)
