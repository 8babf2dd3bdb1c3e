"""Leases on a cluster: other ways to hold them, and what their holder tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from multielect.cli.bench.instruments.children import Child
from multielect.cli.bench.subjects.peers import Peer, PeerContender, load
from multielect.cli.bench.suite import BenchError
from multielect.cli.bench.suites.cluster import ON_CLUSTER, ON_ONE, hold
from multielect.cli.client import Client, connect
from multielect.cli.cluster import PrivateCluster
from multielect.cli.command import multielect

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
TTL_S = 1000.0
LEASES = 300


@pytest.fixture(scope="module")
def cluster(binary: str) -> Iterator[PrivateCluster]:
    with PrivateCluster(binary=binary) as running:
        yield running


@pytest.fixture
def client(cluster: PrivateCluster) -> Iterator[Client]:
    with connect(cluster.url, connect_timeout_s=5, timeout_s=5) as made:
        yield made
        for key in list(made.scan_iter()):
            made.delete(key)


@pytest.mark.parametrize("kind", load(PEERS / "cluster").kinds, ids=lambda kind: kind.name)
def test_another_way_extends_every_lease(
    kind: type[Peer], cluster: PrivateCluster, client: Client
) -> None:
    peer = PeerContender(kind())
    peer.prepare(cluster.urls[1], "peers", LEASES, TTL_S)
    keys = list(client.scan_iter())
    assert len(keys) == LEASES
    for key in keys:
        client.expire(key, 100)

    peer.refresh()

    assert all(client.ttl(key) > TTL_S - 100 for key in keys)
    assert len(peer.name) <= 26
    client.delete(keys[0])
    with pytest.raises(BenchError, match="a lease was lost"):
        peer.refresh()
    peer.close()


def test_a_holder_tells_how_often_it_refreshed(cluster: PrivateCluster) -> None:
    with Child("the holder", hold, cluster.url, "held", LEASES, 0.5) as holder:
        holder.receive(30.0)
        first = seen = look(holder)
        while seen["refreshes"] < first["refreshes"] + 2 * LEASES:
            seen = look(holder)

    assert seen["demoted"] == 0
    assert seen["errors"] == []
    assert seen["client_s"] > 0


@pytest.mark.parametrize("of_one_node", [False, True])
def test_a_cluster_of_the_user_is_refused(cluster: PrivateCluster, of_one_node: bool) -> None:
    url = cluster.urls[0] if of_one_node else cluster.url
    ended = CliRunner().invoke(multielect, ["bench", "--suite", "refresh", "--url", url])

    assert ended.exit_code == 2
    assert "Invalid value for --url" in ended.output
    assert ("a cluster" in ended.output) is of_one_node


def look(holder: Child) -> dict[str, Any]:
    holder.send("look")
    seen: dict[str, Any] = holder.receive(30.0)
    return seen


def test_all_of_them_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    ended = CliRunner().invoke(
        multielect,
        ["bench", "--suite", "cluster", "--quick", "--leases", "400", "--peers", str(PEERS),
         "--json", str(path)],
    )  # fmt: skip

    assert ended.exit_code == 0, ended.output
    suite = json.loads(path.read_text())["suites"]["cluster"]
    subjects = {(one["case"].partition("at ")[2].partition(",")[0], one["subject"])
                for one in suite["figures"]}  # fmt: skip
    others = {kind.name for kind in load(PEERS / "cluster").kinds}
    assert len(others) == 2
    assert subjects == {
        *(("pace", name) for name in (ON_CLUSTER, ON_ONE)),
        *(("once", name) for name in (ON_CLUSTER, ON_ONE, *others)),
    }
    bounds = [one["what"] for one in suite["ratios"] if "to_reach" in one]
    assert [what.partition(",")[0] for what in bounds] == ["server CPU", "client CPU"]
