"""The recipes of docs/fencing.md on a real PostgreSQL, where one is installed."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.recipes import as_psycopg, function, recipes

from multielect.fencing import Writer

from .postgres import NotAvailableError, private_postgres

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

RECIPES = {name: as_psycopg(statement).encode() for name, statement in recipes().items()}
OLD, NEW = 1_723_456_789_012, 1_723_456_789_999

Connection = Any  # psycopg need not be there when the types are checked


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(private_postgres())
        except NotAvailableError as reason:
            pytest.skip(str(reason))
        yield running


def connect(address: str) -> Connection:
    return psycopg.connect(address, autocommit=True, connect_timeout=20)


@pytest.fixture
def database(address: str) -> Iterator[Connection]:
    with contextlib.closing(connect(address)) as connection:
        connection.execute("DROP TABLE IF EXISTS checkpoint, fence, log")
        connection.execute(RECIPES["checkpoint-table"])
        connection.execute(RECIPES["fence-table"])
        connection.execute("CREATE TABLE log (number bigserial PRIMARY KEY, epoch bigint)")
        yield connection


@pytest.fixture
def other(address: str) -> Iterator[Connection]:
    with contextlib.closing(connect(address)) as connection:
        yield connection


def changed(connection: Connection, recipe: str, epoch: int, **more: int) -> int:
    given = {"election": "p", "epoch": epoch, **more}
    count = connection.execute(RECIPES[recipe], given).rowcount
    assert isinstance(count, int)
    return count


def checkpoint(connection: Connection) -> Any:
    return connection.execute("SELECT epoch, position FROM checkpoint").fetchone()


def wait_until_waiting(watching: Connection, waiter: Connection) -> None:
    """Return when the connection waits for another's row."""
    query = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
    deadline = time.monotonic() + 20
    while watching.execute(query, [waiter.info.backend_pid]).fetchone() != ("Lock",):
        if time.monotonic() > deadline:
            pytest.fail("it does not wait")


def test_a_checkpoint_goes_on_under_one_epoch_and_under_newer_ones(database: Connection) -> None:
    assert changed(database, "checkpoint-write", OLD, position=1) == 1
    assert changed(database, "checkpoint-write", OLD, position=2) == 1
    assert changed(database, "checkpoint-write", NEW, position=3) == 1
    assert checkpoint(database) == (NEW, 3)


def test_a_checkpoint_never_goes_back(database: Connection) -> None:
    changed(database, "checkpoint-write", NEW, position=3)
    assert changed(database, "checkpoint-write", OLD, position=9) == 0
    assert checkpoint(database) == (NEW, 3)


def test_whoever_claimed_the_checkpoint_need_not_have_written(database: Connection) -> None:
    assert changed(database, "checkpoint-claim", OLD) == 0  # there is none yet
    changed(database, "checkpoint-write", OLD, position=1)
    assert changed(database, "checkpoint-claim", NEW) == 1
    assert changed(database, "checkpoint-write", OLD, position=9) == 0
    assert changed(database, "checkpoint-claim", OLD) == 0
    assert checkpoint(database) == (NEW, 1)


def test_the_guard_holds_for_whoever_claimed_last(database: Connection) -> None:
    assert changed(database, "fence-guard", OLD) == 0  # nobody has claimed
    assert changed(database, "fence-claim", OLD) == 1
    assert changed(database, "fence-claim", OLD) == 1
    assert changed(database, "fence-guard", OLD) == 1
    assert changed(database, "fence-claim", NEW) == 1
    assert changed(database, "fence-guard", OLD) == 0
    assert changed(database, "fence-claim", OLD) == 0
    assert changed(database, "fence-guard", NEW) == 1


def test_a_claim_waits_for_a_transaction_that_passed_the_guard(
    database: Connection, other: Connection, address: str
) -> None:
    changed(database, "fence-claim", OLD)
    with contextlib.closing(connect(address)) as watching, ThreadPoolExecutor(1) as pool:
        with database.transaction():
            assert changed(database, "fence-guard", OLD) == 1
            claim = pool.submit(changed, other, "fence-claim", NEW)
            wait_until_waiting(watching, other)
            database.execute("INSERT INTO log (epoch) VALUES (%s)", [OLD])
        assert claim.result(timeout=20) == 1
    # What was written before the claim is there for whoever reads after it.
    assert other.execute("SELECT epoch FROM log").fetchall() == [(OLD,)]
    assert changed(database, "fence-guard", OLD) == 0


@pytest.mark.parametrize(
    ("late", "position"), [("fence-guard", None), ("fence-claim", None), ("checkpoint-write", 9)]
)
def test_whoever_waited_for_a_newer_claim_is_refused(
    database: Connection, other: Connection, address: str, late: str, position: int | None
) -> None:
    more = {} if position is None else {"position": position}
    changed(database, "fence-claim", OLD)
    changed(database, "checkpoint-write", OLD, position=1)
    with contextlib.closing(connect(address)) as watching, ThreadPoolExecutor(1) as pool:
        with database.transaction():
            assert changed(database, "fence-claim", NEW) == 1
            assert changed(database, "checkpoint-claim", NEW) == 1
            write = pool.submit(changed, other, late, OLD, **more)
            wait_until_waiting(watching, other)
        assert write.result(timeout=20) == 0
    assert checkpoint(database) == (NEW, 1)


def test_at_a_stricter_level_whoever_waited_fails(
    database: Connection, other: Connection, address: str
) -> None:
    changed(database, "fence-claim", OLD)
    other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    def write() -> None:
        with other.transaction():
            changed(other, "fence-guard", OLD)

    with contextlib.closing(connect(address)) as watching, ThreadPoolExecutor(1) as pool:
        with database.transaction():
            changed(database, "fence-claim", NEW)
            late = pool.submit(write)
            wait_until_waiting(watching, other)
        with pytest.raises(psycopg.errors.SerializationFailure):
            late.result(timeout=20)


def test_the_function_on_the_page_writes_all_or_nothing(database: Connection) -> None:
    write = function("postgres-write", RECIPES["fence-guard"])
    changed(database, "fence-claim", NEW)

    def log(connection: Connection) -> None:
        connection.execute("INSERT INTO log (epoch) VALUES (%s)", [NEW])

    def log_and_fail(connection: Connection) -> None:
        log(connection)
        raise ZeroDivisionError

    write(database, Writer(key="p", epoch=NEW), log)
    with pytest.raises(ZeroDivisionError):
        write(database, Writer(key="p", epoch=NEW), log_and_fail)
    with pytest.raises(RuntimeError, match="stale"):
        write(database, Writer(key="p", epoch=OLD), log)
    write(database, Writer(key="p", epoch=NEW), log)
    assert database.execute("SELECT count(*) FROM log").fetchone() == (2,)


def test_writers_at_once_never_go_back(database: Connection, address: str) -> None:
    epochs = iter(range(1, 1_000_000))
    electing = threading.Lock()
    refused: list[int] = []

    def write(seed: int) -> None:
        choose = random.Random(seed)
        epoch = 0
        with contextlib.closing(connect(address)) as connection:
            for _ in range(60):
                if epoch == 0 or choose.random() < 0.15:
                    with electing:
                        epoch = next(epochs)
                    changed(connection, "fence-claim", epoch)
                with connection.transaction():
                    if changed(connection, "fence-guard", epoch) == 1:
                        connection.execute("INSERT INTO log (epoch) VALUES (%s)", [epoch])
                    else:
                        refused.append(epoch)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write, seed) for seed in range(4)]:
            done.result(timeout=60)
    log = [epoch for (epoch,) in database.execute("SELECT epoch FROM log ORDER BY number")]
    assert log == sorted(log)
    assert len(log) + len(refused) == 240
    assert len(set(log)) > 3
    assert refused
