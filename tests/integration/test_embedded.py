"""The embedded server ends with its parent, however that ends, and leaves nothing behind.

The parents that die here are real processes, killed with SIGKILL. A bound in seconds below is
generous for a busy machine: what it bounds takes about a tenth of a second.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from multielect.embedded import EmbeddedServer, EmbeddedServerError, find_binary
from multielect.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GONE_WITHIN_S = 5.0

START = """
import json, os, sys, threading
from multielect.embedded import EmbeddedServer

server = EmbeddedServer(binary=sys.argv[1])

def tell(**more):
    print(json.dumps({"pid": server.pid, "directory": os.path.dirname(server.socket_path), **more}))
    sys.stdout.flush()
"""

WAIT = """
sys.stdin.read()
"""

IN_MAIN_THREAD = f"{START}server.start(); tell(){WAIT}"

IN_THREAD_THAT_ENDS = f"""{START}
starter = threading.Thread(target=server.start)
starter.start()
starter.join()
tell(){WAIT}"""

WITH_FORK_THAT_OUTLIVES = f"""{START}
server.start()
child = os.fork()
if child:
    tell(child=child)
{WAIT}"""

EXITS_WITHOUT_STOP = f"{START}server.start(); tell()"

EXITS_FROM_FORK = f"""{START}
server.start()
child = os.fork()
if not child:
    server.stop()
    try:
        server.start()
    except Exception as error:
        sys.exit("belongs to the process that made it" not in str(error))
    sys.exit("a fork could start it")
refused = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
tell(refused=refused){WAIT}"""


@contextmanager
def parent(program: str, binary: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run a program that starts a server and tells of it, then waits for its standard input."""
    with subprocess.Popen(
        [sys.executable, "-c", program, binary],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the parent said nothing: its error is above"
            yield process, json.loads(line)
        finally:
            process.kill()


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def soon(condition: Callable[[], bool]) -> bool:
    """Return whether the condition comes true in bounded time; what it asks sends no event."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def assert_gone(told: dict[str, Any]) -> None:
    assert soon(lambda: not exists(told["pid"])), "the server outlived its parent"
    assert soon(lambda: not Path(told["directory"]).exists()), "its directory was left behind"


def directory_of(server: EmbeddedServer) -> Path:
    assert server.socket_path is not None
    return Path(server.socket_path).parent


def stranger_to(**place: Any) -> redis.Redis:
    """Return a client that knows no password, and takes no for an answer."""
    return redis.Redis(retry=Retry(NoBackoff(), 0), **place)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory with a short path, where servers put theirs."""
    with tempfile.TemporaryDirectory(prefix="me-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


class TestWhileItRuns:
    def test_says_what_it_is(self, server: EmbeddedServer, redis_client: redis.Redis) -> None:
        info = redis_client.info("server")

        assert server.pid == info["process_id"]
        assert server.name == info.get("server_name", "redis")
        assert server.version == info[f"{server.name}_version"]

    def test_listens_only_in_a_private_directory(
        self, server: EmbeddedServer, redis_client: redis.Redis
    ) -> None:
        assert redis_client.config_get("port")["port"] == "0"
        assert stat.S_IMODE(directory_of(server).stat().st_mode) == 0o700

    def test_saves_nothing(self, redis_client: redis.Redis) -> None:
        assert redis_client.config_get("save")["save"] == ""
        assert redis_client.config_get("appendonly")["appendonly"] == "no"

    def test_gets_no_signals_of_the_terminal(self, server: EmbeddedServer) -> None:
        assert os.getsid(server.pid) != os.getsid(0)

    def test_takes_settings(self, binary: str) -> None:
        settings: dict[str, str | int] = {"maxmemory": 50_000_000, "requirepass": "p@ss/word"}
        with EmbeddedServer(binary=binary, settings=settings) as server:
            with redis.Redis.from_url(server.url) as client:
                assert client.config_get("maxmemory")["maxmemory"] == "50000000"
            with (
                stranger_to(unix_socket_path=server.socket_path) as stranger,
                pytest.raises(redis.AuthenticationError),
            ):
                stranger.ping()

    def test_falls_back_to_the_loopback_and_a_password(
        self, binary: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deep = temporary / ("d" * 100)
        deep.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        with EmbeddedServer(binary=binary) as server:
            assert server.socket_path is None
            with redis.Redis.from_url(server.url) as client:
                assert client.config_get("bind")["bind"] == "127.0.0.1"
                port = int(client.config_get("port")["port"])
            with (
                stranger_to(host="127.0.0.1", port=port) as stranger,
                pytest.raises(redis.AuthenticationError),
            ):
                stranger.ping()
        assert not list(deep.iterdir())


class TestStop:
    def test_leaves_no_process_and_no_directory(self, binary: str, temporary: Path) -> None:
        server = EmbeddedServer(binary=binary)
        server.start()
        pid = server.pid
        assert list(temporary.iterdir())

        server.stop()

        assert not exists(pid)
        assert not list(temporary.iterdir())
        server.stop()

    def test_start_again_gives_the_same_address_and_no_data(
        self, private_server: EmbeddedServer
    ) -> None:
        url, pid = private_server.url, private_server.pid
        with redis.Redis.from_url(url) as client:
            client.set("key", "value")

        private_server.stop()
        private_server.start()

        assert private_server.pid != pid
        with redis.Redis.from_url(url) as client:
            assert client.get("key") is None

    def test_after_the_server_was_killed(self, private_server: EmbeddedServer) -> None:
        os.kill(private_server.pid, signal.SIGKILL)
        assert soon(lambda: not directory_of(private_server).exists())

        private_server.stop()
        private_server.start()

        with redis.Redis.from_url(private_server.url) as client:
            assert client.ping()

    def test_of_a_server_that_hangs(self, private_server: EmbeddedServer) -> None:
        pid = private_server.pid
        os.kill(pid, signal.SIGSTOP)

        private_server.stop()

        assert not exists(pid)

    @pytest.mark.skipif(sys.platform != "linux", reason="finds the supervisor through /proc")
    def test_after_the_supervisor_was_killed(self, private_server: EmbeddedServer) -> None:
        pid = private_server.pid
        supervisor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(supervisor, signal.SIGKILL)

        with redis.Redis.from_url(private_server.url) as client:
            assert client.ping()
            private_server.stop()
            with pytest.raises(redis.ConnectionError):
                client.ping()
        assert not directory_of(private_server).exists()

    def test_leaves_no_descriptor_and_no_zombie(self, binary: str) -> None:
        program = f"""{START}
server.start(); server.stop()
before = os.listdir("/dev/fd")
for _ in range(3):
    server.start()
    server.stop()
assert os.listdir("/dev/fd") == before
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("clean")
"""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, binary],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("clean\n", "")


class TestEndsWithItsParent:
    @pytest.mark.parametrize(
        "program",
        [
            pytest.param(IN_MAIN_THREAD, id="started in the main thread"),
            pytest.param(IN_THREAD_THAT_ENDS, id="started in a thread that ended"),
            pytest.param(WITH_FORK_THAT_OUTLIVES, id="with a fork that lives on"),
        ],
    )
    def test_that_is_killed(self, program: str, binary: str) -> None:
        with parent(program, binary) as (process, told):
            try:
                # Two ticks of the supervisor: the thread that started it is long gone.
                with redis.Redis(unix_socket_path=f"{told['directory']}/server.sock") as client:
                    assert client.blpop(["nothing"], timeout=0.25) is None
                process.kill()
                assert_gone(told)
                assert "child" not in told or exists(told["child"])
            finally:
                if "child" in told:
                    os.kill(told["child"], signal.SIGKILL)

    def test_that_is_killed_while_the_server_hangs(self, binary: str) -> None:
        with parent(IN_MAIN_THREAD, binary) as (process, told):
            os.kill(told["pid"], signal.SIGSTOP)
            process.kill()
            assert_gone(told)

    def test_that_exits_without_stopping_it(self, binary: str) -> None:
        with parent(EXITS_WITHOUT_STOP, binary) as (process, told):
            assert process.wait(GONE_WITHIN_S) == 0
            assert_gone(told)

    def test_but_not_with_a_fork(self, binary: str) -> None:
        with parent(EXITS_FROM_FORK, binary) as (process, told):
            assert told["refused"]
            assert exists(told["pid"])
            process.kill()
            assert_gone(told)

    def test_or_with_its_object(self, binary: str) -> None:
        server = EmbeddedServer(binary=binary)
        server.start()
        pid = server.pid
        del server
        gc.collect()
        assert not exists(pid)


class TestRefuses:
    def test_when_no_server_is_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def nothing(name: str) -> None:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "files", nothing)
        monkeypatch.setenv("PATH", "")
        with pytest.raises(EmbeddedServerError, match=r"pip install 'multielect\[embedded\]'"):
            EmbeddedServer()

    def test_finds_one_on_the_path(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(importlib.metadata, "files", lambda _: None)
        monkeypatch.setenv("PATH", str(tmp_path))
        program = tmp_path / "valkey-server"
        program.touch(0o700)
        assert find_binary() == str(program)

    def test_a_program_that_is_not_there(self) -> None:
        with pytest.raises(EmbeddedServerError, match="'no-such-server'"):
            EmbeddedServer(binary="no-such-server")

    def test_a_server_that_ends_at_once_with_its_log(self, binary: str, temporary: Path) -> None:
        server = EmbeddedServer(binary=binary, settings={"no-such-directive": "1"})
        with pytest.raises(EmbeddedServerError, match=r"(?s)exit status 1.*no-such-directive"):
            server.start()
        assert not list(temporary.iterdir())
        with pytest.raises(EmbeddedServerError, match="not started"):
            _ = server.pid

    def test_a_server_that_never_answers(self, temporary: Path) -> None:
        program = temporary / "silent-server"
        pid_file = temporary / "pid"
        program.write_text(f'#!/bin/sh\necho $$ >"{pid_file}"\nexec sleep 60\n')
        program.chmod(0o700)
        server = EmbeddedServer(binary=str(program), startup_timeout=0.5)
        with pytest.raises(EmbeddedServerError, match=r"did not answer within 0\.5 s"):
            server.start()
        assert not exists(int(pid_file.read_text()))
        assert sorted(temporary.iterdir()) == [pid_file, program]

    def test_a_program_that_cannot_run(self, temporary: Path) -> None:
        program = temporary / "broken-server"
        program.write_bytes(b"\x7fELF")
        program.chmod(0o700)
        with pytest.raises(EmbeddedServerError, match="cannot run"):
            EmbeddedServer(binary=str(program)).start()
        assert list(temporary.iterdir()) == [program]

    def test_a_directory_that_cannot_be_made(
        self, binary: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(temporary / "missing"))
        with pytest.raises(EmbeddedServerError, match="cannot make a directory"):
            EmbeddedServer(binary=binary).start()

    def test_a_second_start(self, private_server: EmbeddedServer) -> None:
        with pytest.raises(EmbeddedServerError, match="already started"):
            private_server.start()

    @pytest.mark.parametrize("timeout", [0, -1, float("nan")])
    def test_a_timeout_that_cannot_be(self, timeout: float) -> None:
        with pytest.raises(ConfigError, match="startup_timeout"):
            EmbeddedServer(startup_timeout=timeout)

    @pytest.mark.parametrize("settings", [{"a": "b\nport 6379"}, {"": "x"}, {"a\rb": "c"}])
    def test_a_setting_of_two_lines(self, settings: dict[str, str]) -> None:
        with pytest.raises(ConfigError, match="one line"):
            EmbeddedServer(settings=settings)
