"""What may happen between a node and the server, byte by byte.

Rules of this file:
    * It happens on the wire of the node that leads most; the other nodes' wires are well.
    * A wire is whole again when the fault has healed. What was held on connections that are gone
      has reached the server by then, however late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.integration.proxy import Command, Half, Proxy, script_name

from .fault import Rank, Scene, fault
from .fleet import Node


def _until_healed(scene: Scene, spoil: Callable[[Proxy], None]) -> Iterator[None]:
    wire = scene.leader().wire
    spoil(wire)
    yield
    wire.mend()


@fault("connection-reset", Rank.HURTS_NODE, lasts_ttls=0.5)
def _reset(scene: Scene) -> Iterator[None]:
    """The connection ends by RST."""
    return _until_healed(scene, Proxy.reset)


@fault("connection-cut", Rank.HURTS_NODE, lasts_ttls=0.5)
def _cut(scene: Scene) -> Iterator[None]:
    """The connection ends by FIN."""
    return _until_healed(scene, Proxy.cut)


@fault("connections-refused", Rank.HURTS_NODE)
def _refused(scene: Scene) -> Iterator[None]:
    """The connection ends, and no other comes about for longer than a TTL."""

    def spoil(wire: Proxy) -> None:
        wire.refuses = True
        wire.cut()

    return _until_healed(scene, spoil)


@fault("requests-vanish", Rank.HURTS_NODE)
def _requests_vanish(scene: Scene) -> Iterator[None]:
    """A black hole towards the server."""

    def spoil(wire: Proxy) -> None:
        wire.drops_requests = True

    return _until_healed(scene, spoil)


@fault("replies-vanish", Rank.HURTS_NODE)
def _replies_vanish(scene: Scene) -> Iterator[None]:
    """A black hole towards the node: the server does what nobody hears of."""

    def spoil(wire: Proxy) -> None:
        wire.drops_replies = True

    return _until_healed(scene, spoil)


@fault("all-vanishes", Rank.HURTS_NODE)
def _all_vanishes(scene: Scene) -> Iterator[None]:
    """A black hole both ways."""

    def spoil(wire: Proxy) -> None:
        wire.drops_requests = wire.drops_replies = True

    return _until_healed(scene, spoil)


def _half(
    scene: Scene, *, request: Half | None = None, reply: Half | None = None
) -> Iterator[None]:
    def spoil(wire: Proxy) -> None:
        wire.halves_requests, wire.halves_replies = request, reply

    return _until_healed(scene, spoil)


@fault("half-a-request-then-silence", Rank.HURTS_NODE, lasts_ttls=1.2)
def _half_request_silence(scene: Scene) -> Iterator[None]:
    """Half of each request arrives, on a connection that stays."""
    return _half(scene, request=Half.SILENCE)


@fault("half-a-request-then-the-end", Rank.HURTS_NODE, lasts_ttls=1.2)
def _half_request_cut(scene: Scene) -> Iterator[None]:
    """Half of a request arrives before its connection ends."""
    return _half(scene, request=Half.CUT)


@fault("half-a-reply-then-silence", Rank.HURTS_NODE, lasts_ttls=1.2)
def _half_reply_silence(scene: Scene) -> Iterator[None]:
    """Half of each reply arrives, on a connection that stays."""
    return _half(scene, reply=Half.SILENCE)


@fault("half-a-reply-then-the-end", Rank.HURTS_NODE, lasts_ttls=1.2)
def _half_reply_cut(scene: Scene) -> Iterator[None]:
    """Half of a reply arrives before its connection ends."""
    return _half(scene, reply=Half.CUT)


@fault("requests-delayed-beyond-a-ttl", Rank.HURTS_NODE, lasts_ttls=2.0)
def _requests_delayed(scene: Scene) -> Iterator[None]:
    """Requests arrive when the leases that they were to extend have ended."""

    def spoil(wire: Proxy) -> None:
        wire.request_delay_s = 1.3 * scene.ttl_s

    return _until_healed(scene, spoil)


@fault("replies-delayed-beyond-a-ttl", Rank.HURTS_NODE, lasts_ttls=2.0)
def _replies_delayed(scene: Scene) -> Iterator[None]:
    """Replies arrive when the leases that they tell of have ended."""

    def spoil(wire: Proxy) -> None:
        wire.reply_delay_s = 1.3 * scene.ttl_s

    return _until_healed(scene, spoil)


@fault("replies-late-then-silence", Rank.HURTS_NODE, lasts_ttls=1.3)
def _late_then_silence(scene: Scene) -> Iterator[None]:
    """Replies come late and still count, and then no request arrives any more."""
    wire = scene.leader().wire
    wire.reply_delay_s = 0.27 * scene.ttl_s
    scene.wait(1.0)
    # From the next refresh on: its reply is the last, and as late as one may be.
    wire.on_command = lambda command: _drop_after(wire, command)
    yield
    wire.mend()


def _drop_after(wire: Proxy, command: Command) -> None:
    if script_name(command) == "refresh":
        wire.drops_requests = True


@fault("reply-to-an-acquire-lost", Rank.HURTS_NODE, lasts_ttls=0.8)
def _acquire_reply_lost(scene: Scene) -> Iterator[None]:
    """Leases are won, and whoever won them never hears of it."""
    node = scene.leader()
    led, wire = scene.led(node), node.wire

    def lose(command: Command) -> None:
        wire.loses_replies = script_name(command) == "acquire"

    wire.on_command = lose
    if led:
        node.order("resign", *led)
        node.order("campaign", *led)
    yield
    wire.mend()


def _is_asked_to_release(scene: Scene, node: Node, led: list[int]) -> bool:
    """Have a node resign, and hold its release. Returns whether it asks for one.

    It does not where another fault of the moment ends its terms before it hears the order.
    """
    wire = node.wire
    released = len(wire.scripts("release"))
    wire.hold_requests()
    node.order("resign", *led)
    until_ns = scene.fleet.now_ns() + 4 * scene.fleet.plan.ttl_ns
    while scene.fleet.now_ns() < until_ns:
        if len(wire.scripts("release")) > released:
            return True
        scene.wait(0.02)
    node.order("campaign", *led)
    wire.pass_requests()
    return False


@fault("late-release-on-an-old-connection", Rank.HURTS_NODE, lasts_ttls=0.5)
def _late_release(scene: Scene) -> Iterator[None]:
    """A release reaches the server when its holder leads again, on a connection given up."""
    node = scene.leader()
    others = [other for other in scene.fleet.living() if other not in scene.taken]
    led, wire = scene.led(node), node.wire
    if led and _is_asked_to_release(scene, node, led):
        # The others would be quicker: the release is asked for again on the new connection.
        for other in others:
            other.wire.hold_requests()
        wire.cut()
        wire.pass_requests()
        node.order("campaign", *led)
        # Where another fault of the moment helps a node to be quicker, that one leads.
        until_ns = scene.fleet.now_ns() + 4 * scene.fleet.plan.ttl_ns
        while scene.led(node) == [] and scene.fleet.now_ns() < until_ns:
            scene.wait(0.02)
    wire.pass_late()
    for other in others:
        other.wire.pass_requests()
    yield
    wire.mend()


@fault("requests-late-on-an-old-connection", Rank.HURTS_NODE, lasts_ttls=1.6)
def _late_requests(scene: Scene) -> Iterator[None]:
    """Refreshes and acquires reach the server after a TTL, on connections given up."""
    node = scene.leader()
    node.wire.hold_requests()
    yield
    node.wire.mend()
