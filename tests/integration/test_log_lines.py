"""What is logged is few lines, none twice the same, and says what a person needs to know.

`outage` and `floods` are programs as well, for as long as one likes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from tests.diary import until

from multielect import ElectionGroup, Elector
from multielect.embedded import EmbeddedServer

from .floods import (
    ELECTIONS,
    REFUSALS,
    log_of_a_refusal,
    log_of_an_absent_server,
    log_of_failing_callbacks,
)
from .outage import GROUPS, Lines, log_of_an_outage
from .proxy import Proxy

SECONDS = 3.0


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def wire(backing: EmbeddedServer) -> Iterator[Proxy]:
    assert backing.socket_path is not None
    with redis.Redis.from_url(backing.url) as client:
        client.flushall()
    with Proxy(backing.socket_path) as made:
        yield made


@pytest.mark.parametrize("balance", [False, True], ids=["alone", "balanced"])
def test_an_outage_of_ten_groups_of_a_thousand_elections(
    private_server: EmbeddedServer, balance: bool
) -> None:
    lines = log_of_an_outage(private_server, SECONDS, ttl=1.0, balance=balance)
    texts = lines.texts
    assert len(set(texts)) == len(texts)
    assert len(texts) <= 60
    assert lines.tracebacks == 0
    assert any(f"{GROUPS * 1_000:,} terms began" in text for text in texts)
    expired = [text for _, level, text in lines.lines if level == "WARNING" and "expired" in text]
    assert sum(int(re.findall(r"([\d,]+) terms", t)[0].replace(",", "")) for t in expired) == 10_000
    assert "no refresh was confirmed for 0.9 s" in expired[0]
    assert any("connected again to" in text and "without a connection" in text for text in texts)


@pytest.mark.parametrize("code", REFUSALS)
def test_a_server_that_refuses_everything(private_server: EmbeddedServer, code: str) -> None:
    with redis.Redis.from_url(private_server.url) as client:
        info: Any = client.info("server")
    if code == "NOREPLICAS" and int(info["redis_version"].split(".")[0]) < 7:
        pytest.skip("before 7.0 a server stops no script for want of replicas")
    lines = log_of_a_refusal(private_server, REFUSALS[code], SECONDS)
    assert any("acquire of" in text for text in lines.texts)
    assert len(lines.lines) <= 12
    assert len(set(lines.texts)) == len(lines.lines)


def test_thousands_of_callbacks_that_fail(backing: EmbeddedServer) -> None:
    with redis.Redis.from_url(backing.url) as client:
        client.flushall()
    lines = log_of_failing_callbacks(backing)
    failed = [text for text in lines.texts if "on_elected failed" in text]
    assert 2 <= len(failed) <= 8
    assert f"{ELECTIONS:,} in all" in failed[-1]
    assert lines.tracebacks == 1


def test_a_hundred_groups_without_a_server() -> None:
    lines = log_of_an_absent_server(100, SECONDS)
    assert len(lines.lines) <= 16
    assert len(set(lines.texts)) == len(lines.lines)
    assert any(text.startswith("100 groups (flood-") for text in lines.texts)


def a_line(lines: Lines, pattern: str, level: str = "INFO") -> Callable[[], bool]:
    """Return what tells whether there is such a line, of one group alone."""
    return lambda: any(
        found == level and re.fullmatch(rf"quiet/node: {pattern}", text)
        for _, found, text in lines.lines
    )


def test_a_quiet_life_is_told_in_a_few_lines(wire: Proxy, lines: Lines) -> None:
    group = ElectionGroup(
        wire.url, prefix="quiet", node_id="node", ttl=1.0, logger=lines.logger("quiet")
    )
    group.add_many(f"k{number}" for number in range(100))
    with group:
        until(a_line(lines, r"started: stands for 100 elections, ttl 1 s"))
        until(a_line(lines, r"connected to 127\.0\.0\.1:\d+ \(.*\)"))
        until(a_line(lines, r"100 terms began"))
        wire.refuses = True
        wire.cut()
        until(a_line(lines, r"100 terms expired: no refresh was confirmed for 0\.9 s.*", "WARNING"))
        wire.mend()
        until(a_line(lines, r"connected again to .* at attempt \d+, after .* without a connection"))
        until(lambda: len(group.led) == 100)
        assert group.drain(5.0)
        until(a_line(lines, r"drain begun: 100 terms to hand over within 5 s"))
        until(a_line(lines, r"drain ended after .* s: all terms have ended"))
    assert a_line(lines, "stopped: .*")()
    assert len(lines.lines) < 20


def test_terms_that_are_lost_are_told_once(
    backing: EmbeddedServer, wire: Proxy, lines: Lines
) -> None:
    group = ElectionGroup(
        wire.url, prefix="quiet", node_id="node", ttl=1.0, logger=lines.logger("quiet")
    )
    group.add_many(f"k{number}" for number in range(100))
    with group, redis.Redis.from_url(backing.url) as client:
        until(lambda: len(group.led) == 100)
        client.flushall()
        until(
            a_line(lines, r"100 terms lost: Redis says that the leases are not this .*", "WARNING")
        )
    assert sum("lost" in text for text in lines.texts) == 1


def test_a_fleet_tells_who_joins_and_how_it_is_shared_out(wire: Proxy, lines: Lines) -> None:
    made = [
        ElectionGroup(
            wire.url,
            prefix="quiet",
            node_id=name,
            ttl=1.0,
            balance=True,
            logger=lines.logger(name) if name == "node" else None,
        )
        for name in ("node", "other")
    ]
    for group in made:
        group.add_many(f"k{number}" for number in range(100))
    with made[0]:
        until(a_line(lines, r"the fleet has 1 member: 100 of 100 elections are this node's.*"))
        with made[1]:
            until(a_line(lines, r"the fleet has 2 members: 50 of 100 elections are this node's.*"))
            until(a_line(lines, r"50 terms ended, as the shares of the fleet changed"))
        until(a_line(lines, r"the fleet has 1 member: 100 of 100 elections are this .* in all\)"))


def test_an_elector_says_the_same(wire: Proxy, lines: Lines) -> None:
    with Elector(
        wire.url, prefix="quiet", node_id="node", ttl=1.0, logger=lines.logger("quiet")
    ) as elector:
        assert elector.wait(10)
    assert [text.split(":")[1].split(" (")[0] for text in lines.texts][:1] == [" started"]
    assert "quiet/node: 1 term began" in lines.texts
    assert "quiet/node: stopped: 1 lease released" in lines.texts


def test_stopping_without_a_connection_says_what_is_left(wire: Proxy, lines: Lines) -> None:
    group = ElectionGroup(
        wire.url, prefix="quiet", node_id="node", ttl=20.0, logger=lines.logger("quiet")
    )
    group.add_many(["a", "b"])
    with group:
        until(lambda: len(group.led) == 2)
        wire.refuses = True
        wire.cut()
        until(lambda: group.counters.reconnects == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    # The stop has used up its time, and waited for nobody.
    until(a_line(lines, r"stopped without an answer to the release of 2 leases: .* 20 s .*"))
