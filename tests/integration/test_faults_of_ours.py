"""A thread of ours that ends by a fault of ours ends its node, and says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from tests.diary import until

from multielect import ClosedError, DemotionReason, MultielectError
from multielect._connection.connector import Connector
from multielect._engine import engine as engines
from multielect._engine.engine import Engine
from multielect._engine.pump import Pump

from .conftest import Stand
from .proxy import Proxy


def failing(*_: Any) -> NoReturn:
    raise LookupError("a fault of ours")


def break_losses(engine: Engine, _: pytest.MonkeyPatch, happen: Callable[[], object]) -> None:
    engine._lanes.take_losses = failing  # type: ignore[method-assign]
    happen()


def break_event_thread(engine: Engine, _: pytest.MonkeyPatch, happen: Callable[[], object]) -> None:
    tell = engine._deliver

    def tell_badly() -> None:
        engine._deliver = tell  # type: ignore[method-assign]
        failing()

    engine._deliver = tell_badly  # type: ignore[method-assign]
    happen()


def break_connector(
    engine: Engine, patch: pytest.MonkeyPatch, happen: Callable[[], object]
) -> None:
    patch.setattr(Connector, "_connect_until_done", failing)
    happen()


@pytest.mark.parametrize("break_it", [break_losses, break_event_thread, break_connector])
def test_the_node_ends_and_says_so(
    break_it: Callable[[Engine, pytest.MonkeyPatch, Callable[[], object]], None],
    proxy: Proxy,
    stand: Stand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group, told = stand(proxy.url, "a", "b", "news", ttl=20.0)
    for key in ("a", "b", "news"):
        told.wait_elected(key)
    assert group._node.is_running
    engine: Any = group._node._engine

    def happen() -> None:
        group["news"].resign()
        proxy.cut()

    break_it(engine, monkeypatch, happen)
    for key in ("a", "b"):
        # Long before the leases' end.
        assert told.wait_demoted(key).reason is DemotionReason.STOPPED
    fault = told.wait_error(MultielectError, "a fault of multielect")
    assert isinstance(fault.__cause__, LookupError)
    until(lambda: not group._node.is_running)
    assert group.led == []
    assert "not running" in repr(group)
    with pytest.raises(ClosedError, match="has failed"):
        group.add("c")
    with pytest.raises(ClosedError, match="has failed"):
        group["a"].wait()
    group.stop()
    until(lambda: not any(thread.is_alive() for thread in engine._thread_group.threads))


def test_a_pump_that_fails_ends_its_node(
    proxy: Proxy, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailingPump(Pump):
        def run(self) -> None:
            failing()

    monkeypatch.setattr(engines, "Pump", FailingPump)
    group, told = stand(proxy.url, "a", ttl=20.0)
    fault = told.wait_error(MultielectError, "the owner thread failed, which is a fault of")
    assert isinstance(fault.__cause__, LookupError)
    until(lambda: not group._node.is_running)
    with pytest.raises(ClosedError, match="has failed"):
        group.add("b")
