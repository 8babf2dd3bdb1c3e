"""The recipes of docs/fencing.md on SQLite."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.recipes import function, recipes

from multielect.fencing import Writer

RECIPES = recipes()
OLD, NEW = 1_723_456_789_012, 1_723_456_789_999


def connect(path: Path) -> sqlite3.Connection:
    # Without isolation of the module's own: transactions begin where the test says.
    return sqlite3.connect(path, isolation_level=None, timeout=20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.sqlite"


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(connect(path)) as connection:
        connection.execute(RECIPES["checkpoint-table"])
        connection.execute(RECIPES["fence-table"])
        connection.execute("CREATE TABLE log (number integer PRIMARY KEY, epoch bigint)")
        yield connection


def changed(connection: sqlite3.Connection, recipe: str, epoch: int, **more: int) -> int:
    given = {"election": "p", "epoch": epoch, **more}
    return connection.execute(RECIPES[recipe], given).rowcount


def checkpoint(connection: sqlite3.Connection) -> tuple[int, int]:
    epoch, position = connection.execute("SELECT epoch, position FROM checkpoint").fetchone()
    return epoch, position


def test_a_checkpoint_goes_on_under_one_epoch_and_under_newer_ones(
    database: sqlite3.Connection,
) -> None:
    assert changed(database, "checkpoint-write", OLD, position=1) == 1
    assert changed(database, "checkpoint-write", OLD, position=2) == 1
    assert changed(database, "checkpoint-write", NEW, position=3) == 1
    assert checkpoint(database) == (NEW, 3)


def test_a_checkpoint_never_goes_back(database: sqlite3.Connection) -> None:
    changed(database, "checkpoint-write", NEW, position=3)
    assert changed(database, "checkpoint-write", OLD, position=9) == 0
    assert checkpoint(database) == (NEW, 3)


def test_whoever_claimed_the_checkpoint_need_not_have_written(database: sqlite3.Connection) -> None:
    assert changed(database, "checkpoint-claim", OLD) == 0  # there is none yet
    changed(database, "checkpoint-write", OLD, position=1)
    assert changed(database, "checkpoint-claim", NEW) == 1
    assert changed(database, "checkpoint-write", OLD, position=9) == 0
    assert changed(database, "checkpoint-claim", OLD) == 0
    assert checkpoint(database) == (NEW, 1)


def test_the_guard_holds_for_whoever_claimed_last(database: sqlite3.Connection) -> None:
    assert changed(database, "fence-guard", OLD) == 0  # nobody has claimed
    assert changed(database, "fence-claim", OLD) == 1
    assert changed(database, "fence-claim", OLD) == 1
    assert changed(database, "fence-guard", OLD) == 1
    assert changed(database, "fence-claim", NEW) == 1
    assert changed(database, "fence-guard", OLD) == 0
    assert changed(database, "fence-claim", OLD) == 0
    assert changed(database, "fence-guard", NEW) == 1


def test_a_claim_waits_for_a_transaction_that_passed_the_guard(
    database: sqlite3.Connection, path: Path
) -> None:
    changed(database, "fence-claim", OLD)
    database.execute("BEGIN IMMEDIATE")
    assert changed(database, "fence-guard", OLD) == 1
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            changed(other, "fence-claim", NEW)
        database.execute("INSERT INTO log (epoch) VALUES (?)", [OLD])
        database.execute("COMMIT")
        assert changed(other, "fence-claim", NEW) == 1
        # What was written before the claim is there for whoever reads after it.
        assert other.execute("SELECT epoch FROM log").fetchall() == [(OLD,)]


def test_the_function_on_the_page_writes_all_or_nothing(database: sqlite3.Connection) -> None:
    write = function("sqlite-write", RECIPES["fence-guard"])
    changed(database, "fence-claim", NEW)

    def log(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO log (epoch) VALUES (?)", [NEW])

    def log_and_fail(connection: sqlite3.Connection) -> None:
        log(connection)
        raise ZeroDivisionError

    write(database, Writer(key="p", epoch=NEW), log)
    with pytest.raises(ZeroDivisionError):
        write(database, Writer(key="p", epoch=NEW), log_and_fail)
    with pytest.raises(RuntimeError, match="stale"):
        write(database, Writer(key="p", epoch=OLD), log)
    write(database, Writer(key="p", epoch=NEW), log)
    assert database.execute("SELECT count(*) FROM log").fetchone() == (2,)


def test_writers_at_once_never_go_back(database: sqlite3.Connection, path: Path) -> None:
    epochs = iter(range(1, 1_000_000))
    electing = threading.Lock()
    refused: list[int] = []

    def write(seed: int) -> None:
        choose = random.Random(seed)
        epoch = 0
        with contextlib.closing(connect(path)) as connection:
            for _ in range(60):
                if epoch == 0 or choose.random() < 0.15:
                    with electing:
                        epoch = next(epochs)
                    changed(connection, "fence-claim", epoch)
                connection.execute("BEGIN IMMEDIATE")
                if changed(connection, "fence-guard", epoch) == 1:
                    connection.execute("INSERT INTO log (epoch) VALUES (?)", [epoch])
                    connection.execute("COMMIT")
                else:
                    connection.execute("ROLLBACK")
                    refused.append(epoch)

    database.execute("PRAGMA synchronous = OFF")
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(write, seed) for seed in range(3)]:
            done.result(timeout=60)
    log = [epoch for (epoch,) in database.execute("SELECT epoch FROM log ORDER BY number")]
    assert log == sorted(log)
    assert len(log) + len(refused) == 180
    assert len(set(log)) > 3
