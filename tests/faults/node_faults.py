"""Faults of a node's process, and of the user's code in it.

Rules of this file:
    * A fault strikes the node that leads most. A node that leads nothing has nothing to lose.
"""

from __future__ import annotations

from collections.abc import Iterator

from .fault import Rank, Scene, fault


@fault("node-killed", Rank.ENDS_NODE, lasts_ttls=1.2)
def _killed(scene: Scene) -> Iterator[None]:
    """Kill -9; another process takes its place later."""
    node = scene.leader(to_end=True)
    place = scene.fleet.places.index(node)
    scene.fleet.kill_node(node)
    yield
    scene.fleet.start_node(place)


@fault("node-killed-and-back-at-once", Rank.ENDS_NODE, lasts_ttls=0.5)
def _killed_and_back(scene: Scene) -> Iterator[None]:
    """Kill -9; a new process has the same node id while the old leases still last."""
    node = scene.leader(to_end=True)
    place = scene.fleet.places.index(node)
    scene.fleet.kill_node(node)
    scene.taken.add(scene.fleet.start_node(place))
    yield


@fault("node-frozen-for-less-than-a-ttl", Rank.HURTS_NODE, lasts_ttls=0.5)
def _frozen_briefly(scene: Scene) -> Iterator[None]:
    """SIGSTOP at any moment, and SIGCONT before the leases end."""
    node = scene.leader()
    node.interrupt()
    yield
    node.thaw()


@fault("node-frozen-for-more-than-a-ttl", Rank.HURTS_NODE, lasts_ttls=1.7)
def _frozen(scene: Scene) -> Iterator[None]:
    """SIGSTOP; after SIGCONT the sampler runs before all other threads."""
    node = scene.leader()
    node.freeze()
    yield
    node.thaw()
    node.wait_obeyed()


@fault("node-frozen-and-killed", Rank.ENDS_NODE, lasts_ttls=1.2)
def _frozen_and_killed(scene: Scene) -> Iterator[None]:
    """SIGSTOP for longer than a TTL, and then kill -9."""
    node = scene.leader(to_end=True)
    place = scene.fleet.places.index(node)
    node.interrupt()
    yield
    scene.fleet.kill_node(node)
    scene.fleet.start_node(place)


@fault("node-stopped", Rank.ENDS_NODE, lasts_ttls=0.5)
def _stopped(scene: Scene) -> Iterator[None]:
    """A clean stop, and another process in its place."""
    node = scene.leader(to_end=True)
    place = scene.fleet.places.index(node)
    scene.fleet.stop_node(node)
    yield
    scene.fleet.start_node(place)


@fault("node-forks", Rank.HURTS_NODE, lasts_ttls=2.0)
def _forks(scene: Scene) -> Iterator[None]:
    """A forked child reads `is_leader` of its parent's elections, and records what it sees."""
    scene.fleet.fork_node(scene.leader(), 2.0 * scene.ttl_s)
    yield


@fault("terms-resigned", Rank.HURTS_NODE, lasts_ttls=0.5)
def _resigned(scene: Scene) -> Iterator[None]:
    """A node resigns all that it leads, and stands again at once for half of it."""
    node = scene.leader()
    led = scene.led(node)
    if led:
        node.order("resign", *led)
        node.order("campaign", *led[::2])
    yield


@fault("gil-held", Rank.HURTS_NODE)
def _gil_held(scene: Scene) -> Iterator[None]:
    """One call into C keeps the GIL for longer than a TTL."""
    node = scene.leader()
    node.begin("keep_gil", 1.4 * scene.ttl_s)
    yield
    node.wait_obeyed()


def _misbehaving(scene: Scene, how: str) -> Iterator[None]:
    node = scene.leader()
    led = scene.led(node)
    node.order(how)
    if led:
        # Twice, so that a second term begins and ends while the first one's end is being reported.
        for _ in range(2):
            node.order("resign", *led)
            node.order("campaign", *led)
            scene.wait(0.3)
    yield
    node.order("behave")


@fault("callbacks-block", Rank.HURTS_NODE)
def _callbacks_block(scene: Scene) -> Iterator[None]:
    """Each callback of a node blocks, at the end of a term and at the beginning of the next."""
    return _misbehaving(scene, "block")


@fault("callbacks-raise", Rank.HURTS_NODE, lasts_ttls=0.8)
def _callbacks_raise(scene: Scene) -> Iterator[None]:
    """Each callback of a node raises."""
    return _misbehaving(scene, "raise")


@fault("callbacks-reenter", Rank.HURTS_NODE, lasts_ttls=0.8)
def _callbacks_reenter(scene: Scene) -> Iterator[None]:
    """Callbacks resign, remove, add, campaign, and list the elections that are led."""
    return _misbehaving(scene, "reenter")
