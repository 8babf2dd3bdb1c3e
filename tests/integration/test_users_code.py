"""No code of the user's ends or delays a thread of ours, whatever happens to the node meanwhile.

Rules of this file:
    * Each kind of user's code that goes wrong meets each thing that gets it called: the node goes
      on leading, its callbacks go on, and it stops in time.
    * What blocks does so until the test is over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
import redis
from tests.diary import WITHIN_S, until

from multielect import ConnectionLostError, ElectionGroup, MultielectError, Term
from multielect.balance import Member
from multielect.embedded import EmbeddedServer
from multielect.streams import Batch, StreamConsumer

from .lease import LAYOUT, PREFIX
from .proxy import Proxy
from .record import Record

STOP_S = 3.0
KEYS = ["a", "b", "bad"]


class MuteError(Exception):
    """An exception that ends whoever looks at it."""

    def __repr__(self) -> str:
        raise SystemExit(7)

    __str__ = __repr__


class Users:
    """Code of a user's that goes wrong, and how often it did."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = threading.Event()
        self.threads: set[str] = set()

    def note(self) -> None:
        self.calls += 1
        self.threads.add(threading.current_thread().name)

    def raising(self, error: BaseException) -> Callable[..., NoReturn]:
        def raise_it(*_: object) -> NoReturn:
            self.note()
            raise error

        return raise_it

    def blocking(self) -> Callable[..., bool]:
        def block(*_: object) -> bool:
            self.note()
            return self.gate.wait(4 * WITHIN_S)

        return block

    # ---- kinds

    def filter(self, act: Callable[..., Any]) -> dict[str, Any]:
        logger = self.logger()
        logger.filter = act  # type: ignore[method-assign]
        return {"logger": logger}

    def handler(self, act: Callable[..., Any]) -> dict[str, Any]:
        logger = self.logger()
        logger.handlers[0].emit = act  # type: ignore[method-assign]
        return {"logger": logger}

    def formatter(self, act: Callable[..., Any]) -> dict[str, Any]:
        logger = self.logger()
        logger.handlers[0].format = act  # type: ignore[method-assign]
        return {"logger": logger}

    def log(self, act: Callable[..., Any]) -> dict[str, Any]:
        logger = self.logger()
        logger.log = act  # type: ignore[method-assign]
        return {"logger": logger}

    @staticmethod
    def logger() -> logging.Logger:
        logger = logging.Logger("users", logging.DEBUG)  # noqa: LOG001  # of the test alone
        logger.addHandler(logging.StreamHandler())
        return logger


KINDS: dict[str, Callable[[Users], dict[str, Any]]] = {
    "filter-ValueError": lambda u: u.filter(u.raising(ValueError("no"))),
    "filter-SystemExit": lambda u: u.filter(u.raising(SystemExit(1))),
    "filter-KeyboardInterrupt": lambda u: u.filter(u.raising(KeyboardInterrupt())),
    "filter-mute": lambda u: u.filter(u.raising(MuteError())),
    "handler-SystemExit": lambda u: u.handler(u.raising(SystemExit(1))),
    "handler-blocks": lambda u: u.handler(u.blocking()),
    "formatter-SystemExit": lambda u: u.formatter(u.raising(SystemExit(1))),
    "log-AttributeError": lambda u: u.log(u.raising(AttributeError("log"))),
    "on_error-SystemExit": lambda u: {"on_error": u.raising(SystemExit(1))},
    "on_error-blocks": lambda u: {"on_error": u.blocking()},
    "on_error-mute": lambda u: {"on_error": u.raising(MuteError())},
}


@pytest.fixture(params=KINDS)
def users(request: pytest.FixtureRequest) -> Iterator[tuple[Users, dict[str, Any]]]:
    """Code of a user's, and the settings that bring it into a group."""
    made = Users()
    yield made, KINDS[request.param](made)
    made.gate.set()


@pytest.fixture
def wire(backing: EmbeddedServer) -> Iterator[Proxy]:
    """A wire to an empty server."""
    assert backing.socket_path is not None
    with redis.Redis.from_url(backing.url) as client:
        client.flushall()
    with Proxy(backing.socket_path) as made:
        yield made


class Node:
    """A group whose callbacks are kept, and which must stop in time."""

    def __init__(self, url: str, told: Record, settings: dict[str, Any]) -> None:
        self.told = told
        self.group = ElectionGroup(
            url,
            **{
                "prefix": PREFIX,
                "ttl": 1.0,
                "callback_threads": 3,
                "on_elected": told.elected,
                "on_demoted": told.demoted,
                **settings,
            },
        )
        self.group.add_many(KEYS[:2])
        self.group.start()

    def leads(self, *, above: int = 0) -> int:
        """See that it leads and tells so. Returns the newest epoch."""
        return max(self.told.wait_elected(key, above=above).epoch for key in KEYS[:2])

    def goes_on(self) -> None:
        """See that later events are told as well, and that it stops in time."""
        epoch = self.group["a"].epoch
        until(self.group["a"].resign)
        self.told.wait_demoted("a", above=epoch - 1)
        self.group["a"].campaign()
        self.told.wait_elected("a", above=epoch)
        assert self.group._node.is_running
        began = time.monotonic()
        self.group.stop(STOP_S)
        # Far above what is promised, for a busy machine: before, it was for ever.
        assert time.monotonic() - began < STOP_S + 5
        until(lambda: self.told.entries[-1].reason is not None)


def test_a_connection_is_lost(users: tuple[Users, dict[str, Any]], wire: Proxy) -> None:
    node = Node(wire.url, Record(), users[1])
    epoch = node.leads()
    wire.refuses = True
    wire.cut()
    until(lambda: not node.group.led)
    wire.mend()
    node.leads(above=epoch)
    assert users[0].calls
    node.goes_on()


def test_redis_is_away_at_the_start(users: tuple[Users, dict[str, Any]], wire: Proxy) -> None:
    wire.refuses = True
    node = Node(wire.url, Record(), users[1])
    if isinstance(users[1].get("logger"), logging.Logger) or "on_error" in users[1]:
        until(lambda: users[0].calls > 0)
    wire.mend()
    node.leads()
    node.goes_on()


def test_the_server_refuses_something(
    users: tuple[Users, dict[str, Any]], wire: Proxy, backing: EmbeddedServer
) -> None:
    with redis.Redis.from_url(backing.url) as client:
        client.rpush(LAYOUT.leader_key(b"bad"), "an element")
    node = Node(wire.url, Record(), users[1])
    node.group.add("bad")
    node.leads()
    until(lambda: users[0].calls > 0)
    node.goes_on()


@pytest.mark.parametrize("raised", [SystemExit(1), MuteError()], ids=["SystemExit", "mute"])
def test_callbacks_raise(
    users: tuple[Users, dict[str, Any]], wire: Proxy, raised: BaseException
) -> None:
    told = Record()

    def elected(term: Term) -> None:
        told.elected(term)
        raise raised

    def demoted(term: Term, reason: Any) -> None:
        told.demoted(term, reason)
        raise raised

    node = Node(wire.url, told, {**users[1], "on_elected": elected, "on_demoted": demoted})
    node.leads()
    until(lambda: users[0].calls > 0)
    node.goes_on()


def test_a_streams_handler_raises_and_the_connection_is_lost(
    users: tuple[Users, dict[str, Any]], wire: Proxy, backing: EmbeddedServer
) -> None:
    handled: set[bytes] = set()
    failed = threading.Event()

    def handle(batch: Batch[Any]) -> None:
        if not failed.is_set():
            failed.set()
            raise MuteError
        handled.update(entry.fields[b"n"] for entry in batch.entries)

    consumer = StreamConsumer(
        wire.url,
        prefix=PREFIX,
        partitions=["s"],
        handler=handle,
        ttl=1.0,
        retry_base=0.01,
        drain_timeout=STOP_S,
        **users[1],
    )
    with redis.Redis.from_url(backing.url) as client:
        client.xadd("s", {"n": "1"})
        consumer.start()
        until(lambda: b"1" in handled)
        assert failed.is_set()
        wire.refuses = True
        wire.cut()
        until(lambda: not consumer.group.led)
        wire.mend()
        client.xadd("s", {"n": "2"})
        until(lambda: b"2" in handled)
        until(lambda: users[0].calls > 0)
    began = time.monotonic()
    consumer.stop()
    assert time.monotonic() - began < STOP_S + 5


@pytest.mark.parametrize("raised", [SystemExit(1), MuteError()], ids=["SystemExit", "mute"])
def test_only_raises(wire: Proxy, raised: BaseException) -> None:
    told = Record()
    asked = threading.Semaphore(0)
    answers = threading.Event()

    def only(key: str, member: Member) -> bool:
        asked.release()
        if not answers.is_set():
            raise raised
        return True

    node = Node(wire.url, told, {"balance": True, "only": only, "on_error": told.error})
    assert asked.acquire(timeout=WITHIN_S)
    told.wait_error(MultielectError, "cannot be shared out")
    answers.set()
    node.leads()
    node.goes_on()


def test_only_does_not_return(wire: Proxy) -> None:
    told = Record()
    may_return = threading.Event()

    def only(key: str, member: Member) -> bool:
        return may_return.wait(WITHIN_S)

    node = Node(wire.url, told, {"balance": True, "only": only, "on_error": told.error})
    told.wait_error(MultielectError, "the function that was passed as only has not returned for 1")
    may_return.set()
    node.leads()
    node.goes_on()
    # Other polls of the membership came meanwhile, and said nothing of it again.
    assert [str(e) for e in told.errors if "as only" in str(e)][1:] == []


def test_labels_run_nothing_where_they_are_compared(wire: Proxy) -> None:
    threads: set[str] = set()

    class Label(str):
        __slots__ = ()

        def __hash__(self) -> int:
            threads.add(threading.current_thread().name)
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            threads.add(threading.current_thread().name)
            return super().__eq__(other)

    node = Node(
        wire.url,
        Record(),
        {"balance": True, "labels": [Label("gpu")], "only": {"a": {Label("gpu")}}},
    )
    node.leads()
    node.goes_on()
    assert not [name for name in threads if name.startswith("multielect")]


@pytest.mark.parametrize("raised", [SystemExit(1), MuteError()], ids=["SystemExit", "mute"])
def test_a_credential_provider_raises(
    backing: EmbeddedServer, wire: Proxy, raised: BaseException
) -> None:
    calls: list[int] = []

    class Provider(redis.CredentialProvider):
        def get_credentials(self) -> tuple[str, str]:
            calls.append(1)
            if len(calls) < 3:
                raise raised
            return ("provided", "secret")

    host, port = wire.url.removeprefix("redis://").split(":")
    client = redis.Redis(host=host, port=int(port), credential_provider=Provider())
    with redis.Redis.from_url(backing.url) as admin:
        admin.execute_command("ACL SETUSER provided on >secret +@all ~* &*")
    told = Record()
    group = ElectionGroup(client, prefix=PREFIX, ttl=1.0, on_error=told.error)
    with group:
        assert group.add("a").wait(WITHIN_S)
        told.wait_error(MultielectError, "cannot connect")


def test_a_credential_provider_takes_its_time(backing: EmbeddedServer, wire: Proxy) -> None:
    calls: list[int] = []
    may_answer = threading.Event()

    class Provider(redis.CredentialProvider):
        def get_credentials(self) -> tuple[str, str]:
            calls.append(1)
            may_answer.wait(WITHIN_S)
            return ("provided", "secret")

    host, port = wire.url.removeprefix("redis://").split(":")
    client = redis.Redis(host=host, port=int(port), credential_provider=Provider())
    with redis.Redis.from_url(backing.url) as admin:
        admin.execute_command("ACL SETUSER provided on >secret +@all ~* &*")
    told = Record()
    group = ElectionGroup(client, prefix=PREFIX, ttl=1.0, on_error=told.error)
    election = group.add("a")
    with group:
        told.wait_error(ConnectionLostError, "the credential provider has not answered for 0.5 s")
        until(lambda: sum("has not answered" in str(error) for error in told.errors) > 3)
        assert {type(error) for error in told.errors} == {ConnectionLostError}
        assert all("the credential provider" in str(error) for error in told.errors)
        assert "the credential provider has not answered" in str(group.health.last_error)
        may_answer.set()
        assert election.wait(WITHIN_S)
        assert calls == [1]
