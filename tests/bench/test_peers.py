"""The adapters to others: those that are here refresh, and those that are not are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from multielect.cli.bench.subjects.peers import Peer, PeerContender, load
from multielect.cli.bench.suite import BenchError

FOLDER = Path(__file__).parents[2] / "benchmarks" / "peers"
TTL_S = 1000.0
LEASES = 3


@pytest.fixture(params=sorted(path.stem for path in FOLDER.glob("[!_]*.py")))
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> type[Peer]:
    """Each adapter whose library is installed."""
    (tmp_path / f"{request.param}.py").symlink_to(FOLDER / f"{request.param}.py")
    found = load(tmp_path)
    if found.missing:
        pytest.skip(str(found.missing))
    return found.kinds[0]


@pytest.fixture
def peer(kind: type[Peer], redis_url: str) -> Iterator[PeerContender]:
    """An adapter that has taken its leases."""
    contender = PeerContender(kind())
    contender.prepare(redis_url, "peers", LEASES, TTL_S)
    yield contender
    contender.close()


def test_a_peer_extends_every_lease(peer: PeerContender, redis_client: redis.Redis) -> None:
    keys = [key for key in redis_client.scan_iter() if redis_client.ttl(key) > 0]
    assert len(keys) == LEASES
    assert all(b"peers" in key for key in keys), "what it leaves is found by its prefix"
    for key in keys:
        redis_client.expire(key, 100)

    cost = peer.refresh()

    assert all(redis_client.ttl(key) > TTL_S - 100 for key in keys)
    assert cost.wall_s > 0
    assert cost.client_s > 0
    assert len(peer.name) <= 26


def test_a_peer_that_lost_a_lease_says_so(peer: PeerContender, redis_client: redis.Redis) -> None:
    redis_client.flushall()

    with pytest.raises(BenchError, match=f"{peer.name} failed to refresh"):
        peer.refresh()


def test_a_peer_says_its_version(kind: type[Peer]) -> None:
    assert kind().version
    assert kind.library


def test_a_library_that_is_not_installed_is_told(tmp_path: Path) -> None:
    (tmp_path / "some_lock.py").write_text("import some_lock_that_is_nowhere\n")

    found = load(tmp_path)

    assert found.kinds == []
    assert found.missing == {
        "some-lock": "there is no module some_lock_that_is_nowhere; "
        "install it: pip install --group peers"
    }


def test_without_a_folder_it_is_told_where_they_are() -> None:
    assert "benchmarks/peers" in load(None).missing["the others"]


def test_one_that_cannot_take_leases_is_told(tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text(
        "class Peer:\n"
        "    name, library, one_by_one, version = 'full', 'full', True, '1'\n"
        "    def prepare(self, url, prefix, leases, ttl): raise RuntimeError('no room')\n"
        "    refresh = close = None\n"
    )
    (kind,) = load(tmp_path).kinds

    with pytest.raises(BenchError, match="no room"):
        PeerContender(kind()).prepare("", "", 1, 1.0)
