"""How elections are named in Redis, and which names are refused."""

from __future__ import annotations

import zlib

import pytest

from multielect._protocol import keys as _keys
from multielect.errors import ConfigError

LONE_SURROGATE = ("\ud800", "UTF-8")


def test_both_keys_of_an_election_stand_in_its_bucket() -> None:
    layout = _keys.group_layout("demo")
    bucket = zlib.crc32(b"N14228") % 256
    assert layout.bucket(b"N14228") == bucket
    assert layout.leader_key(b"N14228") == b"demo:{%d}:N14228:leader" % bucket
    assert layout.epoch_key(b"N14228") == b"demo:{%d}:N14228:epoch" % bucket


def test_the_bucket_is_a_checksum_that_any_language_has() -> None:
    # The check value of CRC-32: 0xCBF43926 for these nine digits.
    assert _keys.group_layout("p", 16_384).bucket(b"123456789") == 0xCBF43926 % 16_384
    assert _keys.group_layout("p", 7).bucket(b"123456789") == 0xCBF43926 % 7


def test_a_group_has_its_channel_and_keeps_its_number_of_buckets() -> None:
    layout = _keys.group_layout("demo", 3)
    assert layout.key_prefixes == (b"demo:{0}:", b"demo:{1}:", b"demo:{2}:")
    assert layout.channel == b"demo:released"
    assert layout.buckets_key == b"demo:buckets"


def test_a_single_election_has_the_keys_that_go_uses() -> None:
    layout = _keys.elector_layout("billing")
    assert layout.leader_key(b"") == b"billing:{election}:leader"
    assert layout.epoch_key(b"") == b"billing:{election}:epoch"
    assert layout.buckets_key == b""


@pytest.mark.parametrize("key", ["a", "ключ", b"\x00\xff", b"{x}", "\udcff", "x" * 512])
def test_a_key_survives_the_way_there_and_back(key: str | bytes) -> None:
    raw = _keys.encode_key(key)
    shown = _keys.decode_key(raw)
    assert _keys.encode_key(shown) == raw
    assert shown == key or isinstance(key, bytes)


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("", "1 to 512 bytes"),
        (b"", "1 to 512 bytes"),
        ("x" * 513, "1 to 512 bytes"),
        ("ж" * 257, "1 to 512 bytes"),
        (7, "str or bytes"),
        (None, "str or bytes"),
        (bytearray(b"x"), "str or bytes"),
        LONE_SURROGATE,
    ],
)
def test_a_bad_key_is_refused(key: object, allowed: str) -> None:
    with pytest.raises(ConfigError, match=allowed):
        _keys.encode_key(key)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prefix", "allowed"),
    [
        ("", "1 to 512 bytes"),
        ("p" * 513, "1 to 512 bytes"),
        ("a{b", "not have braces"),
        ("a}b", "not have braces"),
        (b"bytes", "must be str"),
        (None, "must be str"),
        LONE_SURROGATE,
    ],
)
def test_a_bad_prefix_is_refused(prefix: object, allowed: str) -> None:
    for make in (_keys.group_layout, _keys.elector_layout):
        with pytest.raises(ConfigError, match=allowed):
            make(prefix)  # type: ignore[arg-type]


@pytest.mark.parametrize("buckets", [0, -1, 16_385, 1.0, True, "256"])
def test_a_bad_number_of_buckets_is_refused(buckets: object) -> None:
    with pytest.raises(ConfigError, match="from 1 to 16384"):
        _keys.group_layout("p", buckets)  # type: ignore[arg-type]


def test_a_group_has_256_buckets_unless_told_otherwise() -> None:
    assert _keys.group_layout("p") == _keys.group_layout("p", None) == _keys.group_layout("p", 256)


@pytest.mark.parametrize(
    ("node_id", "allowed"),
    [
        ("", "1 to 512 bytes"),
        ("n" * 513, "1 to 512 bytes"),
        ("a/b", "not have '/'"),
        ("a\nb", "or control characters"),
        ("a\x7f", "or control characters"),
        (7, "must be str"),
        LONE_SURROGATE,
    ],
)
def test_a_bad_node_id_is_refused(node_id: object, allowed: str) -> None:
    with pytest.raises(ConfigError, match=allowed):
        _keys.check_node_id(node_id)  # type: ignore[arg-type]


def test_a_good_node_id_is_kept() -> None:
    assert _keys.check_node_id("host.example:7 ж") == "host.example:7 ж"
