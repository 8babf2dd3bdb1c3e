"""What it takes to run workers: the same on threads and in an event loop."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from multielect import CallbackError, MultielectError, Term
from multielect._callbacks.asyncio_workers import AsyncioWorkers
from multielect._callbacks.dispatcher import Delivery, ThreadDispatcher
from multielect._callbacks.worker_dispatcher import RunsWorkers, WorkerSetup, with_workers
from multielect._callbacks.workers import Workers
from multielect._settings.settings import Settings

SETTINGS = Settings.checked(node_id="a", ttl=3.0, margin=None)


def dispatcher() -> ThreadDispatcher[Term]:
    logger = logging.getLogger("multielect.test")
    return ThreadDispatcher(
        Delivery(notify=None, notify_error=None, threads=1, name="setup", logger=logger)
    )


def work(_term: Term) -> None:
    """Do nothing."""


def test_without_a_worker_nothing_is_made() -> None:
    below = dispatcher()

    def make(_setup: WorkerSetup) -> RunsWorkers:
        raise AssertionError("a worker was set up")

    assert with_workers(below, None, SETTINGS, make) is below


@pytest.mark.parametrize("kind", [Workers, AsyncioWorkers])
def test_both_kinds_are_set_up_alike(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    below, setups = dispatcher(), []
    reported: list[MultielectError] = []
    monkeypatch.setattr(below, "put_error", reported.append)

    def make(setup: WorkerSetup) -> RunsWorkers:
        setups.append(setup)
        made: RunsWorkers = kind(setup)
        return made

    assert with_workers(below, work, SETTINGS, make).is_listening
    [setup] = setups
    assert (setup.work, setup.patience_s, setup.name) == (work, 3.0, "multielect-a-worker")
    error = CallbackError("worker", "k", 7)
    setup.report(error)
    assert reported == [error]
