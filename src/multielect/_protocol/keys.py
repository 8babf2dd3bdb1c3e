"""How elections are named in Redis.

Rules of this file:
    * The bucket stands in literal braces, so that the keys of an election, and all
      elections of a bucket, share a Cluster slot. It comes before the key, and a prefix
      holds no braces: the key may hold any bytes.
    * The bucket of a key is its CRC-32 modulo the number of buckets, which any language
      can work out.
    * Text becomes bytes as UTF-8, and bytes that are not UTF-8 survive the way there and
      back (``surrogateescape``).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from ..errors import ConfigError

MAX_NAME_BYTES = 512
DEFAULT_BUCKETS = 256
MAX_BUCKETS = 16_384
"""The hash slots of Redis Cluster: more buckets would spread nothing further."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class KeyLayout:
    """Where the keys of a namespace lie.

    Attributes:
        prefix: the namespace, as the user named it.
        key_prefixes: what precedes an election's key, one for each bucket.
        separator: what stands between the closing brace and the election's key.
        channel: where releases are announced.
        buckets_key: where the number of buckets is kept; empty where there is but one.
        members_key: where the members of a fleet are kept; in one Cluster slot with its plan.
        plan_key: where it is kept what they were given last.
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
        """Return the number of the bucket that holds `key`."""
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
    """Return the layout of a group: ``{prefix}:{<bucket>}:<key>:leader``.

    Args:
        prefix: the namespace in Redis.
        buckets: into how many hash tags the elections are divided; None for `DEFAULT_BUCKETS`.

    Raises:
        ConfigError: for a bad prefix or number of buckets.
    """
    head = check_prefix(prefix)
    if buckets is None:
        buckets = DEFAULT_BUCKETS
    if type(buckets) is not int or not 1 <= buckets <= MAX_BUCKETS:
        raise ConfigError(
            f"buckets must be a whole number from 1 to {MAX_BUCKETS}, not {buckets!r}"
        )
    return KeyLayout(
        prefix=prefix,
        key_prefixes=tuple(b"%s:{%d}:" % (head, number) for number in range(buckets)),
        separator=b":",
        channel=head + b":released",
        buckets_key=head + b":buckets",
        members_key=head + b":{fleet}:members",
        plan_key=head + b":{fleet}:plan",
    )


def elector_layout(prefix: str) -> KeyLayout:
    """Return the layout of a single election: ``<prefix>:{election}:leader``.

    Its one key is empty. Nodes written in Go use the same two keys.

    Raises:
        ConfigError: for a bad prefix.
    """
    head = check_prefix(prefix)
    return KeyLayout(
        prefix=prefix,
        key_prefixes=(head + b":{election}",),
        separator=b"",
        channel=head + b":{election}:released",
        buckets_key=b"",
        members_key=head + b":{election}:members",
        plan_key=head + b":{election}:plan",
    )


def encode_key(key: str | bytes) -> bytes:
    """Return an election's key as Redis holds it.

    Raises:
        ConfigError: for a key that is empty, too long, or neither text nor bytes.
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
        ConfigError: for a prefix that is empty, too long, or holds a brace.
    """
    if not isinstance(prefix, str):
        raise ConfigError(f"prefix must be str, not {type(prefix).__name__}")
    if "{" in prefix or "}" in prefix:
        raise ConfigError(f"prefix must hold no braces (they mark the bucket): {prefix!r}")
    raw = _encode("prefix", prefix)
    _check_length("prefix", raw)
    return raw


def check_node_id(node_id: str) -> str:
    """Return `node_id` if it can stand in a leader key.

    Raises:
        ConfigError: for an empty or too long id, or one with a slash or control character.
    """
    if not isinstance(node_id, str):
        raise ConfigError(f"node_id must be str, not {type(node_id).__name__}")
    if "/" in node_id or _CONTROL.search(node_id):
        raise ConfigError(f"node_id must hold no '/' and no control characters: {node_id!r}")
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
