"""The hashes of keys and nodes, which decide who gets which key.

Rules of this file:
    * BLAKE2b, 64 bits: the same in every process, on every platform, in every version of Python.
    * Keys and nodes are hashed differently, so a key with the name of a node has no special hash.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from hashlib import blake2b

_BYTES = 8


def key_hashes(keys: Iterable[bytes]) -> array[int]:
    """Return the hash of each key."""
    return _hashes(keys, b"key")


def node_hashes(nodes: Iterable[bytes]) -> array[int]:
    """Return the hash of each node."""
    return _hashes(nodes, b"node")


def _hashes(names: Iterable[bytes], kind: bytes) -> array[int]:
    numbers = array("Q")
    numbers.frombytes(
        b"".join([blake2b(name, digest_size=_BYTES, person=kind).digest() for name in names])
    )
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
