"""The names of the keys in Redis.

Rules of this file:
    * The bucket is in literal braces, so that all keys of a bucket's elections share a Cluster
      slot. It comes before the election's key, and a prefix has no braces. So the election's key
      may have any bytes.
    * The bucket of a key is its CRC-32 modulo the number of buckets, which any language can
      compute.
    * Text becomes UTF-8. Bytes that are not UTF-8 are the same after decoding and encoding
      (``surrogateescape``).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from ..errors import ConfigError

MAX_NAME_BYTES = 512
DEFAULT_BUCKETS = 256
HASH_SLOTS = 16_384
"""The number of hash slots of Redis Cluster."""

MAX_BUCKETS = HASH_SLOTS
"""More buckets would not spread keys any further."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class KeyLayout:
    """The names of the keys of a prefix.

    Attributes:
        prefix: the user's prefix.
        key_prefixes: for each bucket, the part of a Redis key before the election's key.
        separator: the bytes between the closing brace and the election's key.
        channel: the channel of announcements.
        buckets_key: the key of the number of buckets; empty if there is only one.
        members_key: the key of a fleet's members, in the Cluster slot of `plan_key`.
        plan_key: the key of a fleet's plan.
    """

    prefix: str
    key_prefixes: tuple[bytes, ...]
    separator: bytes
    channel: bytes
    buckets_key: bytes
    members_key: bytes
    plan_key: bytes

    leader_tail = b":leader"
    epoch_tail = b":epoch"
    fence_tail = b":fence"

    def bucket(self, key: bytes) -> int:
        """Return the number of the bucket of `key`."""
        return zlib.crc32(key) % len(self.key_prefixes)

    def leader_key(self, key: bytes) -> bytes:
        """Return the Redis key of the lease of election `key`."""
        return self.key_prefixes[self.bucket(key)] + key + self.leader_tail

    def epoch_key(self, key: bytes) -> bytes:
        """Return the Redis key of the epoch counter of election `key`."""
        return self.key_prefixes[self.bucket(key)] + key + self.epoch_tail

    def fence_key(self, key: bytes) -> bytes:
        """Return the Redis key of the newest epoch that made a fenced write for `key`."""
        return self.key_prefixes[self.bucket(key)] + key + self.fence_tail


def group_layout(prefix: str, buckets: int | None = None) -> KeyLayout:
    """Return the layout of a group: ``<prefix>:{<bucket>}:<key>:leader``.

    Args:
        prefix: the namespace in Redis.
        buckets: into how many hash tags the elections are divided; None for `DEFAULT_BUCKETS`.

    Raises:
        ConfigError: if the prefix or the number of buckets is not allowed.
    """
    raw = check_prefix(prefix)
    if buckets is None:
        buckets = DEFAULT_BUCKETS
    if type(buckets) is not int or not 1 <= buckets <= MAX_BUCKETS:
        raise ConfigError(
            f"buckets must be a whole number from 1 to {MAX_BUCKETS}, not {buckets!r}"
        )
    return KeyLayout(
        prefix=prefix,
        key_prefixes=tuple(b"%s:{%d}:" % (raw, number) for number in range(buckets)),
        separator=b":",
        channel=raw + b":released",
        buckets_key=raw + b":buckets",
        members_key=raw + b":{fleet}:members",
        plan_key=raw + b":{fleet}:plan",
    )


def elector_layout(prefix: str) -> KeyLayout:
    """Return the layout of an elector: ``<prefix>:{election}:leader``.

    The election's key is empty. Nodes written in Go use the same two Redis keys.

    Raises:
        ConfigError: if the prefix is not allowed.
    """
    raw = check_prefix(prefix)
    return KeyLayout(
        prefix=prefix,
        key_prefixes=(raw + b":{election}",),
        separator=b"",
        channel=raw + b":{election}:released",
        buckets_key=b"",
        members_key=raw + b":{election}:members",
        plan_key=raw + b":{election}:plan",
    )


def encode_key(key: str | bytes) -> bytes:
    """Return an election's key in bytes.

    Raises:
        ConfigError: if it is empty, too long, or neither str nor bytes.
    """
    if isinstance(key, str):
        raw = _encode("a key", key)
    elif isinstance(key, bytes):
        raw = key
    else:
        raise ConfigError(f"a key must be str or bytes, not {type(key).__name__}")
    _check_length("a key", raw)
    return raw


def decode_key(raw: bytes) -> str:
    """Return an election's key as users see it."""
    return raw.decode("utf-8", "surrogateescape")


def check_prefix(prefix: str) -> bytes:
    """Return `prefix` in bytes.

    Raises:
        ConfigError: if it is empty or too long, or has a brace.
    """
    if not isinstance(prefix, str):
        raise ConfigError(f"prefix must be str, not {type(prefix).__name__}")
    if "{" in prefix or "}" in prefix:
        raise ConfigError(f"prefix must not have braces, which mark the bucket: {prefix!r}")
    raw = _encode("prefix", prefix)
    _check_length("prefix", raw)
    return raw


def check_node_id(node_id: str) -> str:
    """Return `node_id` if it can be part of a lease's value.

    Raises:
        ConfigError: if it is empty or too long, or has a slash or control character.
    """
    if not isinstance(node_id, str):
        raise ConfigError(f"node_id must be str, not {type(node_id).__name__}")
    if "/" in node_id or _CONTROL.search(node_id):
        raise ConfigError(f"node_id must not have '/' or control characters: {node_id!r}")
    _check_length("node_id", _encode("node_id", node_id))
    return node_id


def _encode(what: str, text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ConfigError(f"{what} must be text that has a UTF-8 form: {text!r}") from error


def _check_length(what: str, raw: bytes) -> None:
    if not 1 <= len(raw) <= MAX_NAME_BYTES:
        raise ConfigError(f"{what} must be 1 to {MAX_NAME_BYTES} bytes long, not {len(raw)}")
