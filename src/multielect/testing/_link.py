"""One connection between a simulated node and the model of Redis.

Rules of this file:
    * A connection delivers in order in each direction. Two connections have no common order.
    * Bytes travel in pieces that may be cut anywhere. Each piece has its own latency.
    * A direction that is held keeps its messages until it is let go. So a reply can be lost though
      its request arrived, and a request can arrive long after its node has given up.
    * The messages of a node arrive even if it has closed the connection or died, unless the
      connection was cut without late arrival.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ._model import RedisModel, Session

if TYPE_CHECKING:
    from ._server import SimulatedServer


class Carrier(Protocol):
    """The network, as a link sees it."""

    now_ns: int

    def at(self, at_ns: int, act: Callable[[], object]) -> None:
        """Call `act` at a time of the world."""

    def note_bytes(self, name: str, data: bytes) -> None:
        """Add bytes to the digest."""


class Weather:
    """How a node's connections treat bytes.

    Attributes:
        min_latency_ns: the shortest time that a piece travels.
        max_latency_ns: the longest time that a piece travels.
        split: the share of messages that are cut into pieces, 0 to 1.
        holds_requests: whether messages to the server are held.
        holds_replies: whether messages from the server are held.
    """

    def __init__(self, chance: random.Random) -> None:
        self.min_latency_ns = 100_000
        self.max_latency_ns = 300_000
        self.split = 0.0
        self.holds_requests = False
        self.holds_replies = False
        self._chance = chance

    def delay_ns(self) -> int:
        """Return how long a piece travels."""
        spread = self.max_latency_ns - self.min_latency_ns
        return self.min_latency_ns + int(spread * self._chance.random())

    def pieces(self, data: bytes) -> list[bytes]:
        """Return a message as the pieces that arrive."""
        if len(data) < 2 or self._chance.random() >= self.split:
            return [data]
        places = sorted(
            int(len(data) * self._chance.random()) for _ in range(self._chance.choice((1, 2, 3)))
        )
        cuts = [0, *places, len(data)]
        return [data[start:end] for start, end in itertools.pairwise(cuts) if end > start]


class Link:
    """One connection.

    Args:
        carrier: the network.
        weather: how it treats bytes.
        server: the server at its other end.
        name: its name in the history.
        receive: takes the bytes that arrive at the node.
        closed: called when the server has closed the connection.
        pushes: whether announcements arrive on it as pushes.
    """

    def __init__(
        self,
        carrier: Carrier,
        weather: Weather,
        server: SimulatedServer,
        *,
        name: str,
        receive: Callable[[bytes], None],
        closed: Callable[[], None],
        pushes: bool,
    ) -> None:
        self.name = name
        self.is_open = True
        self.is_heard = True
        self._carrier = carrier
        self._weather = weather
        self._receive = receive
        self._closed = closed
        self._server = server
        self._session = Session(server.model, self._answer, pushes=pushes)
        self._up_ns = 0
        self._down_ns = 0
        self._held_up: list[bytes] = []
        self._held_down: list[bytes] = []

    # ---- the node's end

    def send(self, data: bytes) -> None:
        """Send bytes to the server."""
        self._carrier.note_bytes(f"{self.name} >", data)
        if self._held_up or self._weather.holds_requests:
            self._held_up.append(data)
        else:
            self._carry_up(data)

    def close(self) -> None:
        """Close the node's end: nothing arrives there any more."""
        self.is_open = False
        self._held_down.clear()
        if not self._held_up:
            self._end_after_all()

    # ---- the network

    def cut(self, late_ns: int | None) -> None:
        """Break the connection. The node learns of it at once.

        Args:
            late_ns: after how long its messages arrive at the server; None for never.
        """
        held, self._held_up = self._held_up, []
        if late_ns is None:
            self.end()
        else:
            self._up_ns = max(self._up_ns, self._carrier.now_ns) + late_ns
            for data in held:
                self._carry_up(data)
        if self.is_open:
            self._closed()
        elif late_ns is not None:
            self._end_after_all()

    def lead_to(self, server: RedisModel) -> None:
        """Lead to another server from now on, with the same subscriptions."""
        self._session = self._session.moved_to(server)

    def let_go(self) -> None:
        """Deliver the held messages of each direction that is no longer held."""
        if not self._weather.holds_requests:
            held, self._held_up = self._held_up, []
            for data in held:
                self._carry_up(data)
            if not self.is_open:
                self._end_after_all()
        if not self._weather.holds_replies:
            held, self._held_down = self._held_down, []
            for data in held:
                self._carry_down(data)

    def end(self) -> None:
        """Close the server's end: what arrives there is lost."""
        self.is_heard = False
        self._session.close()

    def take(self, data: bytes) -> int:
        """Let the server read bytes that have arrived. Returns how many commands it ran."""
        return self._session.receive(data) if self.is_heard else 0

    def hang_up(self) -> None:
        """Close the server's end, and let the node learn of it."""
        self.end()
        if self.is_open:
            self._closed()

    # ---- inside

    def _end_after_all(self) -> None:
        self._carrier.at(max(self._up_ns, self._carrier.now_ns), self.end)

    def _carry_up(self, data: bytes) -> None:
        for piece in self._weather.pieces(data):
            self._up_ns = max(self._up_ns, self._carrier.now_ns + self._weather.delay_ns())
            self._carrier.at(self._up_ns, lambda piece=piece: self._server.serve(self, piece))  # type: ignore[misc]

    def _answer(self, data: bytes) -> None:
        if not self.is_open:
            return
        if self._held_down or self._weather.holds_replies:
            self._held_down.append(data)
        else:
            self._carry_down(data)

    def _carry_down(self, data: bytes) -> None:
        for piece in self._weather.pieces(data):
            self._down_ns = max(self._down_ns, self._carrier.now_ns + self._weather.delay_ns())
            self._carrier.at(self._down_ns, lambda piece=piece: self._arrive(piece))  # type: ignore[misc]

    def _arrive(self, piece: bytes) -> None:
        if self.is_open:
            self._carrier.note_bytes(f"{self.name} <", piece)
            self._receive(piece)
