"""A node's settings: what they become, and what each refusal says."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from multielect import generate_node_id
from multielect._protocol.keys import check_node_id
from multielect._settings.settings import Settings, checked_timeout
from multielect.balance import MAX_LEASES, Member
from multielect.errors import ConfigError

MS = 1_000_000


def checked(**given: Any) -> Settings:
    return Settings.checked(**{"node_id": "n", "ttl": 10.0, "margin": None, **given})


def test_the_defaults() -> None:
    settings = checked()
    assert settings.ttl_ns == 10_000 * MS
    assert settings.margin_ns == 1000 * MS
    assert settings.max_leases is None
    assert settings.epochs == "time"


@pytest.mark.parametrize(
    ("ttl", "ttl_ms"), [(0.1, 100), (7, 7000), (0.1234567, 123), (7 * 86_400, 604_800_000)]
)
def test_a_ttl_is_kept_in_whole_milliseconds(ttl: float, ttl_ms: int) -> None:
    assert checked(ttl=ttl).ttl_ns == ttl_ms * MS


@pytest.mark.parametrize(
    ("ttl", "margin", "margin_ms"),
    [(0.1, None, 20), (0.2, None, 20), (0.3, None, 30), (1, 0, 0), (1, 0.5, 500), (1, 0.001, 1)],
)
def test_the_margin_is_a_tenth_and_no_less_than_20_ms(
    ttl: float, margin: float | None, margin_ms: int
) -> None:
    assert checked(ttl=ttl, margin=margin).margin_ns == margin_ms * MS


@pytest.mark.parametrize("ttl", [0.0999, 0, -1, 604_800.1])
def test_a_ttl_out_of_bounds_is_refused(ttl: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"from 0.1 to 604800 seconds, not {ttl!r}")):
        checked(ttl=ttl)


TOO_LARGE_FOR_A_FLOAT = pytest.param(10**400, id="10^400")


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "10", None, True, TOO_LARGE_FOR_A_FLOAT]
)
def test_a_ttl_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="ttl must be a number of seconds"):
        checked(ttl=value)


@pytest.mark.parametrize("margin", [-0.001, 0.501, 3])
def test_a_margin_out_of_bounds_is_refused(margin: float) -> None:
    with pytest.raises(ConfigError, match=r"from 0 to half of the ttl \(0.5 seconds\)"):
        checked(ttl=1, margin=margin)


@pytest.mark.parametrize("margin", [float("nan"), "0.1", False])
def test_a_margin_that_is_no_number_is_refused(margin: object) -> None:
    with pytest.raises(ConfigError, match="margin must be a number of seconds"):
        checked(margin=margin)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", 2**31, 3_000_000_000])
def test_a_bad_number_of_leases_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="max_leases must be a whole number from 1 to 2147483647"):
        checked(max_leases=value)


@pytest.mark.parametrize("cap", [1, MAX_LEASES])
def test_any_number_of_leases_that_is_allowed_can_be_told_to_the_fleet(cap: int) -> None:
    assert Member("n", max_leases=checked(max_leases=cap).max_leases).max_leases == cap


@pytest.mark.parametrize("value", [0, 1001, None])
def test_a_bad_number_of_threads_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="callback_threads must be a whole number from 1 to 1000"):
        checked(callback_threads=value)


@pytest.mark.parametrize("epochs", ["TIME", None, [], 1])
def test_a_bad_kind_of_epochs_is_refused(epochs: object) -> None:
    with pytest.raises(ConfigError, match="'time' or 'counter'"):
        checked(epochs=epochs)


def test_epochs_are_kept_for_ever_or_for_as_long_as_was_asked() -> None:
    assert checked().retention_ms == 0
    assert checked(epoch_retention=3600).retention_ms == 3_600_000
    assert checked(epoch_retention=timedelta(days=1)).retention_ms == 86_400_000
    assert checked(epoch_retention=3_650 * 86_400).retention_ms == 3_650 * 86_400_000


@pytest.mark.parametrize(
    ("ttl", "retention", "least"),
    [(10, 3599, 3600), (10, 0, 3600), (10, -1, 3600), (600, 5999, 6000), (10, 315_360_001, 3600)],
)
def test_a_retention_out_of_bounds_is_refused(ttl: float, retention: float, least: int) -> None:
    said = (
        f"epoch_retention must be from {least} (an hour, and 10 times the ttl) to 315360000"
        f" seconds, or None, not {retention!r}"
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        checked(ttl=ttl, epoch_retention=retention)


@pytest.mark.parametrize("value", [float("nan"), "3600", True])
def test_a_retention_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="epoch_retention must be a number of seconds"):
        checked(epoch_retention=value)


def test_counted_epochs_are_kept_for_ever() -> None:
    with pytest.raises(ConfigError, match="a counter that has expired begins at 1 again"):
        checked(epochs="counter", epoch_retention=3600)


def test_a_bad_node_id_is_refused() -> None:
    with pytest.raises(ConfigError, match="node_id"):
        checked(node_id="a/b")


@pytest.mark.parametrize("timeout", [-1, -0.001])
def test_a_negative_timeout_is_refused(timeout: float) -> None:
    with pytest.raises(ConfigError, match="must not be negative"):
        checked_timeout(timeout)


@pytest.mark.parametrize("timeout", ["1", None, float("nan")])
def test_a_timeout_that_is_no_number_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigError, match="timeout must be a number of seconds"):
        checked_timeout(timeout)


def test_a_refusal_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="ttl"):
        checked(ttl=0)


@pytest.mark.parametrize("hostname", ["web-7.example", "", "a/b\nc", "ж" * 300, "x" * 300])
def test_a_generated_node_id_is_allowed_and_unique(
    monkeypatch: pytest.MonkeyPatch, hostname: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: hostname)
    first, second = generate_node_id(), generate_node_id()
    assert first != second
    assert check_node_id(first) == first
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,200}-[0-9a-f]{8}", first)


def test_a_generated_node_id_begins_with_the_hostname(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "web-7.example")
    assert generate_node_id().startswith("web-7.example-")
    assert checked(node_id=None).node_id.startswith("web-7.example-")


# ---- shares of a fleet


def balanced(**given: Any) -> Any:
    return checked(**{"balance": True, **given}).balance


def test_a_share_is_kept_in_milliseconds_and_nanoseconds() -> None:
    only = {"k": {"gpu"}}
    share = balanced(weight=2, labels=["gpu"], only=only, join_delay=1.5, moves_per_second=20)
    assert (share.weight, share.labels, share.only) == (2, frozenset({"gpu"}), only)
    assert (share.join_delay_ms, share.move_ns) == (1500, 50 * MS)


def test_who_does_not_balance_has_no_share() -> None:
    assert balanced(balance=False) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("balance", 1, "balance must be True or False, not 1"),
        ("weight", -1, "weight must be 0 or a number"),
        ("labels", "gpu", "labels must be a set of texts, not 'gpu'"),
        ("only", 3, "only must map keys to sets of labels, or be a function of key and member,"),
        ("join_delay", -1, "join_delay must be from 0 to 3600 seconds, not -1"),
        ("join_delay", 3600.5, "join_delay must be from 0 to 3600 seconds, not 3600.5"),
        ("join_delay", "1", "join_delay must be a number of seconds or a timedelta, not '1'"),
        ("moves_per_second", 0, "moves_per_second must be from 0.01 to 1,000,000 or None, not 0"),
        ("moves_per_second", 2e6, "moves_per_second must be from 0.01 to 1,000,000 or None"),
    ],
)
def test_a_bad_share_is_refused(name: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        balanced(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", 2.0),
        ("labels", ["gpu"]),
        ("only", {"k": {"gpu"}}),
        ("join_delay", 1.0),
        ("moves_per_second", 10.0),
    ],
)
def test_what_is_of_use_to_a_fleet_alone_needs_one(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} needs balance=True"):
        balanced(balance=False, **{name: value})


def test_a_timedelta_is_as_good_as_seconds() -> None:
    given = {
        "ttl": timedelta(seconds=2),
        "margin": timedelta(milliseconds=300),
        "max_stall": timedelta(minutes=1),
        "drain_timeout": timedelta(seconds=2.5),
        "balance": True,
        "join_delay": timedelta(seconds=1.5),
    }
    settings = checked(**given)
    assert (settings.ttl_ns, settings.margin_ns) == (2000 * MS, 300 * MS)
    assert (settings.max_stall_ns, settings.drain_ns) == (60_000 * MS, 2500 * MS)
    assert settings.balance is not None
    assert settings.balance.join_delay_ms == 1500
    assert checked_timeout(timedelta(seconds=0.25)) == 0.25


@pytest.mark.parametrize("name", ["ttl", "margin", "max_stall", "drain_timeout"])
def test_a_timedelta_is_held_to_the_same_bounds(name: str) -> None:
    for bad in (timedelta(seconds=-1), timedelta(days=8)):
        with pytest.raises(ConfigError, match=f"{name} must be from "):
            checked(**{name: bad})


def test_a_drain_is_kept_in_nanoseconds() -> None:
    assert checked(drain_timeout=2.5).drain_ns == 2500 * MS
    assert checked(drain_timeout=0).drain_ns == 0


@pytest.mark.parametrize("value", [-0.1, 604_800.1])
def test_a_drain_out_of_bounds_is_refused(value: float) -> None:
    words = f"drain_timeout must be from 0 to 604800 seconds, not {value!r}"
    with pytest.raises(ConfigError, match=re.escape(words)):
        checked(drain_timeout=value)
