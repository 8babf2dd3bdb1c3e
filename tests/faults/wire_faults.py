"""Faults of the connections between a node and the server.

Rules of this file:
    * A fault strikes the wire of the node that leads most. It does not affect other nodes' wires.
    * A wire works again when its fault has healed. By then the messages that it held, also those of
      closed connections, have reached the server.
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
    """The connection ends, and new connections are refused for longer than a TTL."""

    def spoil(wire: Proxy) -> None:
        wire.refuses = True
        wire.cut()

    return _until_healed(scene, spoil)


@fault("requests-vanish", Rank.HURTS_NODE)
def _requests_vanish(scene: Scene) -> Iterator[None]:
    """Requests are lost, and the connection stays."""

    def spoil(wire: Proxy) -> None:
        wire.drops_requests = True

    return _until_healed(scene, spoil)


@fault("replies-vanish", Rank.HURTS_NODE)
def _replies_vanish(scene: Scene) -> Iterator[None]:
    """Replies are lost, and the connection stays: the server runs commands without an answer."""

    def spoil(wire: Proxy) -> None:
        wire.drops_replies = True

    return _until_healed(scene, spoil)


@fault("all-vanishes", Rank.HURTS_NODE)
def _all_vanishes(scene: Scene) -> Iterator[None]:
    """Requests and replies are lost, and the connection stays."""

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
    """Refreshes arrive after their leases have ended."""

    def spoil(wire: Proxy) -> None:
        wire.request_delay_s = 1.3 * scene.ttl_s

    return _until_healed(scene, spoil)


@fault("replies-delayed-beyond-a-ttl", Rank.HURTS_NODE, lasts_ttls=2.0)
def _replies_delayed(scene: Scene) -> Iterator[None]:
    """Replies arrive after their leases have ended."""

    def spoil(wire: Proxy) -> None:
        wire.reply_delay_s = 1.3 * scene.ttl_s

    return _until_healed(scene, spoil)


@fault("replies-late-then-silence", Rank.HURTS_NODE, lasts_ttls=1.3)
def _late_then_silence(scene: Scene) -> Iterator[None]:
    """Replies come late but still count, and then no request arrives any more."""
    wire = scene.leader().wire
    wire.reply_delay_s = 0.27 * scene.ttl_s
    scene.wait(1.0)
    # The reply to the next refresh is the last one, and comes as late as a reply may.
    wire.on_command = lambda command: _drop_after(wire, command)
    yield
    wire.mend()


def _drop_after(wire: Proxy, command: Command) -> None:
    if script_name(command) == "refresh":
        wire.drops_requests = True


@fault("reply-to-an-acquire-lost", Rank.HURTS_NODE, lasts_ttls=0.8)
def _acquire_reply_lost(scene: Scene) -> Iterator[None]:
    """The server grants leases, and the replies are lost."""
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
    """Let a node resign, and hold its release. Returns whether it sent one.

    It sends none if another fault of this round ends its terms before it gets the order.
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
    """A release on a connection that was given up arrives when its sender leads again."""
    node = scene.leader()
    others = [other for other in scene.fleet.living() if other not in scene.taken]
    led, wire = scene.led(node), node.wire
    if led and _is_asked_to_release(scene, node, led):
        # The node sends the release again on its new connection, and other nodes would be faster.
        for other in others:
            other.wire.hold_requests()
        wire.cut()
        wire.pass_requests()
        node.order("campaign", *led)
        # If another fault of this round lets another node be faster, that node leads.
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
    """Refreshes and acquires on connections that were given up arrive after a TTL."""
    node = scene.leader()
    node.wire.hold_requests()
    yield
    node.wire.mend()
