"""Servers that cannot serve elections: said at once, plainly, and as what it is.

Rules of this file:
    * A message says who (prefix and node), where, what, and what to do; never the password.
    * What passes by itself is a `ConnectionLostError`, what does not a `ServerUnusableError`.
    * The servers are real ones, but for those of old versions, and what is no Redis at all.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.diary import WITHIN_S, until
from tests.ports import free_cluster_port, free_port

from multielect import (
    ConnectionLostError,
    MultielectError,
    ServerError,
    ServerUnusableError,
)
from multielect.embedded import EmbeddedServer

from .conftest import Stand
from .lease import PREFIX
from .liar import Liar, always
from .record import Record

SECRET = "s3cret"
USER = "node"


def refused(told: Record, reason: str, words: str) -> ServerUnusableError:
    """Return the error that says so, having looked at what each must say."""
    error = told.wait_error(ServerUnusableError, words)
    assert isinstance(error, ServerUnusableError)
    assert error.reason == reason
    assert told.entries == []
    checked(told)
    return error


def checked(told: Record) -> None:
    """See that each error of a connection says who and what to do, and no secret."""
    for error in list(told.errors):
        if isinstance(error, (ConnectionLostError, ServerUnusableError)):
            assert re.match(rf"{PREFIX}/\S+ (cannot (connect to|use)|lost) ", str(error))
            assert re.search(r"\. [A-Z][^.]+", str(error)), f"no advice: {error}"
        assert SECRET not in str(error)
        assert SECRET not in repr(error)


@contextlib.contextmanager
def on_a_port(binary: str, **settings: str | int) -> Iterator[tuple[str, Any]]:
    """A server of its own on a TCP port, a free one by default: its address, and a client of it."""
    port = settings.pop("port", None) or free_port()
    named = {name.replace("_", "-"): value for name, value in settings.items()}
    server = EmbeddedServer(binary=binary, settings={"port": port, "bind": "127.0.0.1", **named})
    with server, redis.Redis.from_url(server.url) as client:
        yield f"127.0.0.1:{port}", client


def is_older(binary: str, version: str) -> bool:
    """Whether it is a Redis before this version, with other settings."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Redis server v=(\d+)", told)
    return found is not None and int(found[1]) < int(version)


@contextlib.contextmanager
def saying(words: bytes) -> Iterator[str]:
    """What is no Redis: it says the same to everybody, once it was spoken to, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                with link:
                    link.recv(1 << 16)
                    link.sendall(words)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(WITHIN_S)


# ---- what it is


def test_a_cluster_without_slots(binary: str, stand: Stand) -> None:
    with on_a_port(binary, port=free_cluster_port(), cluster_enabled="yes") as (address, _):
        group, told = stand(f"redis://{address}", "k")
        error = told.wait_error(ConnectionLostError, "no node of the cluster serves slot")
        assert address in str(error)
        assert group.health.state == "connecting"


@pytest.mark.parametrize(
    "words",
    ["MOVED 7155 10.0.0.1:7000", "CROSSSLOT Keys don't hash", "CLUSTERDOWN Hash slot not served"],
)
def test_a_cluster_behind_something_that_hides_it(liar: Liar, stand: Stand, words: str) -> None:
    liar.lies["acquire"] = always(b"-%s\r\n" % words.encode())
    group, told = stand(liar.url, "k", ttl=0.5)
    refused(told, "cluster", f"does not say that it is one: {words}")
    # Asked ever more seldom, however short the leases.
    until(lambda: len(liar.links) >= 3)
    assert liar.links[2] - liar.links[0] >= 0.25 + 0.5
    liar.lies.clear()
    assert group["k"].wait(WITHIN_S)


def test_a_sentinel(tmp_path: Path, stand: Stand) -> None:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server is installed, and the bundled one knows no sentinels")
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nlogfile {tmp_path}/log\n")
    with subprocess.Popen([program, str(config), "--sentinel"]) as sentinel:
        try:
            _, told = stand(f"redis://127.0.0.1:{port}", "k")
            refused(told, "sentinel", "it is a sentinel")
        finally:
            sentinel.kill()


HELLO_OF_6_0 = (
    b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.0.16\r\n$5\r\nproto\r\n:3\r\n"
    b"$2\r\nid\r\n:4\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
    b"$7\r\nmodules\r\n*0\r\n"
)
INFO_OF_5_0 = b"# Server\r\nredis_version:5.0.14\r\nredis_mode:standalone\r\n"


@pytest.mark.parametrize(
    ("lies", "version"),
    [
        ({"hello": HELLO_OF_6_0, "info": b"-NOPERM no INFO\r\n"}, "6.0.16"),
        (
            {
                "hello": b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n",
                "info": b"$%d\r\n%s\r\n" % (len(INFO_OF_5_0), INFO_OF_5_0),
            },
            "5.0.14",
        ),
    ],
    ids=["6.0", "5.0"],
)
def test_a_server_that_is_too_old(
    lies: dict[str, bytes], version: str, liar: Liar, stand: Stand
) -> None:
    liar.lies |= {name: always(words) for name, words in lies.items()}
    _, told = stand(liar.url, "k")
    refused(told, "version", f"it is Redis {version}. Use Redis 6.2 or newer, or Valkey")


def test_a_real_server_that_is_too_old(old_binary: str, stand: Stand) -> None:
    with on_a_port(old_binary) as (address, _):
        _, told = stand(f"redis://{address}", "k")
        refused(told, "version", ". Use Redis 6.2 or newer, or Valkey")


def test_a_replica_says_whom_it_follows(binary: str, stand: Stand) -> None:
    with on_a_port(binary) as (address, client):
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        group, told = stand(f"redis://{address}", "k", ttl=0.6)
        refused(told, "replica", "it is a replica of 127.0.0.1:1: elections can only be held")
        # As soon as it is promoted it is asked again.
        client.execute_command("REPLICAOF", "NO", "ONE")
        assert group["k"].wait(WITHIN_S)


def test_a_server_without_scripts(liar: Liar, stand: Stand) -> None:
    liar.lies["eval"] = always(b"-ERR Could not find scripting engine 'lua'\r\n")
    _, told = stand(liar.url, "k")
    refused(told, "unsupported", "it lacks EVAL: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", "it is an HTTP server"),
        (b"<!DOCTYPE HTML>\n<html>", "it is an HTTP server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it does not speak the Redis protocol"),
    ],
)
def test_what_is_no_redis(words: bytes, said: str, stand: Stand) -> None:
    with saying(words) as address:
        _, told = stand(f"redis://{address}", "k")
        error = refused(told, "protocol", said)
        assert repr(words.split()[0].decode())[1:-1] in str(error)


# ---- who may log in, and what to


@pytest.mark.parametrize(
    ("login", "said"),
    [
        ("", "it requires a password, and this node has none"),
        (f":wrong-{SECRET}@", "it does not accept the password of user 'default'"),
        (f"stranger:{SECRET}@", "it does not accept the password of user 'stranger'"),
    ],
    ids=["none", "wrong", "unknown user"],
)
def test_a_login_that_is_not_accepted(binary: str, login: str, said: str, stand: Stand) -> None:
    with on_a_port(binary) as (address, client):
        client.config_set("requirepass", SECRET)
        group, told = stand(f"redis://{login}{address}", "k")
        error = refused(told, "auth", said)
        assert address in str(error)
        # Somebody mends it.
        client.config_set("requirepass", "")
        client.execute_command(
            "ACL", "SETUSER", "stranger", "on", f">{SECRET}", "~*", "&*", "+@all"
        )
        assert group["k"].wait(WITHIN_S)


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        ("~* +@all -eval", "its user 'node' may not run EVAL: NOPERM"),
        ("~* +@all -get", f"its user 'node' may not run GET {PREFIX}:buckets: NOPERM"),
        ("~* +@all -select", "its user 'node' may not run a command of the handshake: NOPERM"),
        ("~other:* +@all", f"its user 'node' may not run GET {PREFIX}:buckets: NOPERM"),
    ],
    ids=lambda text: text.split(":")[0],
)
def test_a_user_who_may_not_do_what_it_takes(
    binary: str, rights: str, said: str, stand: Stand
) -> None:
    with on_a_port(binary) as (address, client):
        client.execute_command(
            "ACL", "SETUSER", USER, "reset", "on", f">{SECRET}", "&*", *rights.split()
        )
        _, told = stand(f"redis://{USER}:{SECRET}@{address}/1", "k")
        refused(told, "acl", said)


def test_a_right_that_is_taken_away_later_is_told_as_such(binary: str, stand: Stand) -> None:
    with on_a_port(binary) as (address, client):
        client.execute_command("ACL", "SETUSER", USER, "on", f">{SECRET}", "~*", "&*", "+@all")
        group, told = stand(f"redis://{USER}:{SECRET}@{address}", "k")
        told.wait_elected("k")
        client.execute_command("ACL", "SETUSER", USER, "-evalsha", "-eval")
        words = "its user 'node' may not run the script for refresh of 'k': NOPERM"
        error = told.wait_error(ServerUnusableError, words)
        assert isinstance(error, ServerUnusableError)
        assert error.reason == "acl"
        assert isinstance(error.__cause__, ServerError)
        told.wait_demoted("k")
        checked(told)
        # Said once, however often it is refused.
        refusals = group.counters.batches
        until(lambda: group.counters.batches >= refusals + 5)
        client.execute_command("ACL", "SETUSER", USER, "+@all")
        assert group["k"].wait(WITHIN_S)
        assert len([each for each in told.errors if isinstance(each, ServerUnusableError)]) == 1


def test_a_database_that_is_not_there(binary: str, stand: Stand) -> None:
    with on_a_port(binary) as (address, _):
        _, told = stand(f"redis://{address}/99", "k")
        refused(told, "database", "it has no database of this number")


def test_protected_mode(binary: str, stand: Stand) -> None:
    if is_older(binary, "7"):
        pytest.skip("Redis 6.2 lets everybody in once it is bound to an address")
    here = own_address()
    if here is None:
        pytest.skip("this machine has no address but that of the loopback")
    with on_a_port(binary, bind=f"127.0.0.1 {here}", protected_mode="yes") as (address, _):
        _, told = stand(f"redis://{here}:{address.split(':')[1]}", "k")
        refused(told, "protected", "it refuses other machines: DENIED")


def own_address() -> str | None:
    """Return an address of this machine that others reach it by."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # nothing is sent
        except OSError:
            return None
        found = str(probe.getsockname()[0])
    return None if found.startswith("127.") else found


# ---- what passes by itself


def lost(told: Record, words: str) -> MultielectError:
    error = told.wait_error(ConnectionLostError, words)
    checked(told)
    return error


def is_loading(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.BusyLoadingError:
        return True
    return False


def test_a_server_that_is_loading(binary: str, stand: Stand) -> None:
    if is_older(binary, "7"):
        pytest.skip("Redis 6.2 answers so seldom while it loads that it is as good as silent")
    settings: dict[str, str | int] = {
        "enable_debug_command": "yes",
        "loading_process_events_interval_bytes": 1024,
    }
    with on_a_port(binary, **settings) as (address, client):
        with client.pipeline() as pipe:
            for number in range(1000):
                pipe.set(f"filler-{number}", "x" * 100)
            pipe.execute()
        client.config_set("key-load-delay", 2000)  # microseconds a key

        def reload() -> None:
            with redis.Redis.from_url(f"redis://{address}", socket_timeout=60) as other:
                admin: Any = other
                admin.execute_command("DEBUG", "RELOAD")

        reloading = threading.Thread(target=reload)
        reloading.start()
        until(lambda: is_loading(client))
        group, told = stand(f"redis://{address}", "k", ttl=10.0)
        lost(told, "it is still loading its data: LOADING")
        assert group["k"].wait(WITHIN_S)
        reloading.join(WITHIN_S)


def test_as_many_clients_as_it_allows(binary: str, stand: Stand) -> None:
    with on_a_port(binary) as (address, client):
        client.config_set("maxclients", 1)
        group, told = stand(f"redis://{address}", "k")
        lost(told, "it has as many clients as it allows: ERR max number of clients")
        client.config_set("maxclients", 100)
        assert group["k"].wait(WITHIN_S)


def test_a_name_that_nobody_knows(stand: Stand) -> None:
    _, told = stand("redis://no-such-host.invalid:6379", "k")
    error = lost(told, "its name cannot be resolved")
    assert "no-such-host.invalid:6379" in str(error)


def test_a_port_where_nobody_listens(stand: Stand) -> None:
    port = free_port()
    _, told = stand(f"redis://127.0.0.1:{port}", "k")
    assert f"127.0.0.1:{port}: no server listens there" in str(lost(told, "cannot connect"))


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_port_that_never_answers(scheme: str, stand: Stand) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, told = stand(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", "k")
        lost(told, "it did not answer within 0.5 s")


def test_a_port_that_hangs_up(stand: Stand) -> None:
    with saying(b"") as address:
        _, told = stand(f"redis://{address}", "k")
        lost(told, f"cannot connect to {address}")


def test_a_credential_provider_that_fails(redis_url: str, stand: Stand) -> None:
    class Provider(redis.CredentialProvider):
        gives: Any = None

        def get_credentials(self) -> Any:
            if self.gives is None:
                raise LookupError("no token today")
            return self.gives

    provider = Provider()
    with redis.Redis.from_url(redis_url, credential_provider=provider) as given:
        group, told = stand(given, "k")
        told.wait_error(ConnectionLostError, "the credential provider failed: LookupError")
        provider.gives = 7
        told.wait_error(ConnectionLostError, "it returned int, not a tuple of user and password")
        provider.gives = ("any",)
        assert group["k"].wait(WITHIN_S)
