"""An election costs no more than 200 bytes beyond its key."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .memory_probe import resident_bytes
from .rig import Rig

PROBE = Path(__file__).with_name("memory_probe.py")
MAX_BYTES = 200


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.resident
@pytest.mark.parametrize("key_bytes", [8, 64])
def test_an_election_costs_no_more_than_200_bytes_beyond_its_key(key_bytes: int) -> None:
    done = subprocess.run(
        [sys.executable, str(PROBE), "200000", str(key_bytes)],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    cost = json.loads(done.stdout)
    assert 0 < cost["resident"] <= MAX_BYTES
    assert 0 < cost["counted"] <= MAX_BYTES
    assert cost["counted"] <= cost["resident"] + 16, "what it counts of its own is what it takes"


def test_elections_that_come_and_go_cost_nothing_in_the_end(rig: Rig) -> None:
    node = rig.node(*(f"first{n}" for n in range(2000)))
    rig.settle()
    held = node.core.elections.memory_bytes
    for turn in range(20):
        for key in node.core.elections.list_keys():
            node.remove(key.decode())
        rig.settle()
        node.add(*(f"turn{turn % 10}-{n:03}"[:9] for n in range(2000)))
        rig.settle()
    assert len(node.core.elections) <= 2000
    assert node.core.elections.memory_bytes <= held


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_names_of_leaders_that_are_gone_are_forgotten(rig: Rig) -> None:
    node = rig.node("a", ttl_ms=1000)
    name_bytes, names = 1000, 20_000
    before = 0
    for number in range(names):
        rig.server.put(rig.leader_key("a"), b"%0*d/1" % (name_bytes, number), 1)
        node.exchange()
        rig.server.batches.clear()
        rig.advance_ms(14)
        if number == 100:
            before = resident_bytes()
    assert node.counted("checks") == names
    assert resident_bytes() - before < name_bytes * names / 4
