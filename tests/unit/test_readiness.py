"""When a node calls itself balanced."""

from __future__ import annotations

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from multielect._connection.health import Reading
from multielect._node.readiness import Readiness


@pytest.mark.parametrize(
    ("share", "leads", "is_connected", "is_balanced"),
    [
        ({b"a", b"b"}, [b"a", b"b"], True, True),
        ({b"a", b"b"}, [b"a"], True, False),
        ({b"a"}, [b"b"], True, False),
        ({b"a"}, [b"a", b"b"], True, False),
        (set(), [], True, True),
        (None, [], True, False),
        ({b"a"}, [b"a"], False, False),
    ],
)
def test_a_node_is_balanced_with_its_share_and_nothing_else(
    share: set[bytes] | None, leads: list[bytes], *, is_connected: bool, is_balanced: bool
) -> None:
    since = datetime.now(timezone.utc) if is_connected else None
    clock = SimpleNamespace(now_ns=lambda: 0)
    phase = SimpleNamespace(check_started=lambda: None)
    node: Any = SimpleNamespace(phase=phase, clock=clock)
    led = [(key, 0, 0) for key in leads]
    elections = SimpleNamespace(leading=len(leads), led=lambda _: led)
    core: Any = SimpleNamespace(elections=elections)
    engine: Any = SimpleNamespace(reading=Reading(connected_since=since))
    balancer: Any = SimpleNamespace(share=lambda: share)
    assert Readiness(node, core, engine, balancer).is_balanced() == is_balanced
