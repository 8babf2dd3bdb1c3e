"""Real servers for the tests that need one.

Rules of this file:
    * A test that takes `server` runs once on each of the two servers that users have, and is
      skipped, with the reason, for one that is not there. `ON_EVERY_SERVER` runs on the other
      releases too.
    * `--servers all` runs everything on every server, `--servers redis-6.2` on that one alone.
    * The tests of a module share a `cluster`, and leave it whole.
    * The shared servers are flushed before each test that uses them. A test that stops, kills
      or configures its server takes `private_server`.
    * A run ends with the number of tests that each server bore.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from tests.rights import Clerk

from multielect.embedded import EmbeddedServer

from .clusters import Cluster
from .servers import TOO_OLD, Server, from_wheel, from_wheels, of_users

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent
OF_USERS = of_users()
OTHERS = [
    server for server in from_wheels() if server.name not in {known.name for known in OF_USERS}
]
SERVERS = {server.name: server for server in [*OF_USERS, *OTHERS]}

ON_EVERY_SERVER = (
    "aio/test_life.py",
    "demo/test_checkpoint.py",
    "demo/test_worker.py",
    "fencing",
    "integration/test_balance.py",
    "integration/test_batch_size.py",
    "integration/test_connecting.py",
    "integration/test_drain.py",
    "integration/test_elector.py",
    "integration/test_epochs.py",
    "integration/test_group.py",
    "integration/test_newer_epoch.py",
    "integration/test_one_leader.py",
    "integration/test_only_the_holder.py",
    "integration/test_server_away.py",
    "integration/test_server_refuses.py",
    "integration/test_stop.py",
    "integration/test_takeover.py",
    "integration/test_unknown_means_no.py",
    "integration/test_unusable_servers.py",
    "simulation/test_model.py",
    "streams",
)
"""What hangs on the words of the server, or on commands that not all have: scripts and their
errors, epochs, fences, streams, how a connection begins and ends."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers",
        default=os.environ.get("MULTIELECT_SERVERS", "usual"),
        metavar="NAMES",
        help="which servers the tests run on: all, names with commas between"
        f" ({', '.join(SERVERS)}), or usual (the default): two, and every one for"
        " ON_EVERY_SERVER of tests/conftest.py. So does MULTIELECT_SERVERS in the environment",
    )


def pytest_configure(config: pytest.Config) -> None:
    asked = config.getoption("servers")
    unknown = set(asked.split(",")) - set(SERVERS) if asked not in {"all", "usual"} else set()
    if unknown:
        raise pytest.UsageError(
            f"--servers {asked}: there is no {', '.join(sorted(unknown))};"
            f" there are all, usual, {', '.join(SERVERS)}"
        )


def pytest_report_header() -> list[str]:
    return ["servers: " + ", ".join(server.missing or server.name for server in SERVERS.values())]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "binary" not in metafunc.fixturenames:
        return
    asked = metafunc.config.getoption("servers")
    if asked == "all" or (asked == "usual" and is_for_every_server(metafunc.definition.path)):
        chosen = list(SERVERS.values())
    elif asked == "usual":
        chosen = OF_USERS
    else:
        chosen = [SERVERS[name] for name in asked.split(",")]
    ids = [server.name for server in chosen]
    metafunc.parametrize("binary", chosen, ids=ids, indirect=True, scope="session")


def is_for_every_server(path: Path) -> bool:
    return any(path.is_relative_to(TESTS / name) for name in ON_EVERY_SERVER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    callspec = getattr(item, "callspec", None)
    chosen = callspec.params.get("binary") if callspec else None
    if isinstance(chosen, Server):
        item.user_properties.append(("server", chosen.name))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how many tests each server bore."""
    passed = Counter(
        str(value)
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "server"
    )
    told = [
        server.missing or f"{server.name} ({passed[server.name]} passed)"
        for server in SERVERS.values()
        if server.missing or passed[server.name]
    ]
    if passed:
        terminalreporter.write_line("servers: " + ", ".join(told))


@pytest.fixture(scope="session")
def binary(request: pytest.FixtureRequest) -> str:
    """The server program of this kind."""
    return _path(request.param)


@pytest.fixture(scope="session")
def old_binary() -> str:
    """The program of a server that is too old for multielect."""
    return _path(from_wheel(TOO_OLD))


def _path(server: Server) -> str:
    if server.path is None:
        pytest.skip(server.missing)
    return server.path


@pytest.fixture(scope="session")
def server(binary: str) -> Iterator[EmbeddedServer]:
    """A running server, shared by all tests of the session."""
    with EmbeddedServer(binary=binary) as running:
        yield running


@pytest.fixture
def redis_client(server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the shared server, which holds no keys and no scripts yet."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        client.script_flush()
        yield client


@pytest.fixture
def redis_url(server: EmbeddedServer, redis_client: redis.Redis) -> str:
    """The address of the shared server, which holds no keys and no scripts yet."""
    return server.url


@pytest.fixture
def clerk(server: EmbeddedServer, redis_client: redis.Redis) -> Iterator[Clerk]:
    """A user of the shared server who may do nothing yet."""
    user = Clerk(server, redis_client)
    yield user
    user.dismiss()


@pytest.fixture
def private_server(binary: str) -> Iterator[EmbeddedServer]:
    """A running server that the test may stop, kill and start again."""
    with EmbeddedServer(binary=binary) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three primaries with a replica each, which the tests of a module share.

    It takes two seconds to form. A test that breaks it mends it.
    """
    with Cluster(tmp_path_factory.mktemp("cluster"), binary) as running:
        yield running
