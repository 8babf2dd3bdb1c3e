"""A cluster that speaks TLS, also on its bus: each lane has a relay, and all else is the same.

Rules of this file:
    * The certificate is made for the test run and names the loopback address alone. Where openssl,
      or the server, knows no TLS, the tests are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests.clusters import HOST, Cluster
from tests.diary import until
from tests.integration.certificates import make_certificate, start_tls_server
from tests.ports import free_port

from multielect import ServerUnusableError

from .conftest import Stand
from .keys import KEYS, leader_key, leases


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that is its own authority; its key lies beside it."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def tls_cluster(
    binary: str, certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster whose nodes speak TLS to clients and to each other."""
    settings = {
        "tls-cluster": "yes",
        "tls-replication": "yes",
        "tls-cert-file": str(certificate),
        "tls-key-file": str(certificate.with_name("key.pem")),
        "tls-ca-cert-file": str(certificate),
        "tls-auth-clients": "no",
    }
    # This one says why if it was built without.
    start_tls_server(binary, certificate, tls_port=free_port()).stop()
    with Cluster(tmp_path_factory.mktemp("cluster"), binary, settings=settings) as running:
        yield running


@pytest.fixture
def options(certificate: Path) -> str:
    """What a URL must have to trust the nodes."""
    return f"ssl_ca_certs={certificate}"


def test_it_leads_through_a_failover(tls_cluster: Cluster, options: str, stand: Stand) -> None:
    nodes = ",".join(f"{HOST}:{node.port}" for node in tls_cluster.nodes)
    group, record = stand(f"rediss+cluster://{nodes}/0?{options}", ttl=3.0)
    until(lambda: len(group.led) == len(KEYS))
    before = {election.key: election.epoch for election in group.led}
    tls_cluster.failover(tls_cluster.replicas_of(tls_cluster.primaries[0])[0])
    refreshes = group.counters.refreshes + 3 * len(KEYS)
    until(lambda: group.counters.refreshes >= refreshes)
    assert {election.key: election.epoch for election in group.led} == before
    assert record.demotions() == []
    assert set(leases(tls_cluster)) == {leader_key(key) for key in KEYS}
    group.stop()
    assert leases(tls_cluster) == {}


@pytest.mark.parametrize("how", ["a URL", "a client"])
def test_any_node_names_the_others(
    tls_cluster: Cluster, certificate: Path, options: str, stand: Stand, how: str
) -> None:
    port = tls_cluster.replicas[0].port
    if how == "a URL":
        group, _ = stand(f"rediss://{HOST}:{port}/0?{options}")
        until(lambda: len(group.led) == len(KEYS))
        group.stop()
    else:
        with redis.RedisCluster(
            host=HOST, port=port, ssl=True, ssl_ca_certs=str(certificate)
        ) as client:
            group, _ = stand(client)
            until(lambda: len(group.led) == len(KEYS))
            group.stop()
    assert leases(tls_cluster) == {}


def test_a_certificate_that_nobody_vouches_for(tls_cluster: Cluster, stand: Stand) -> None:
    group, record = stand(f"rediss+cluster://{HOST}:{tls_cluster.nodes[0].port}")
    error = record.wait_error(ServerUnusableError, "certificate")
    assert isinstance(error, ServerUnusableError)
    assert error.reason == "tls"
    assert group.led == []


def test_without_tls_the_error_says_so(tls_cluster: Cluster, stand: Stand) -> None:
    group, record = stand(f"redis+cluster://{HOST}:{tls_cluster.nodes[0].port}")
    error = record.wait_error(ServerUnusableError, "TLS")
    assert isinstance(error, ServerUnusableError)
    assert error.reason == "tls"
    assert group.led == []
