"""Netstrings: byte strings one after the other, each with its length before it.

Rules of this file:
    * The form is ``<length>:<bytes>`` without a comma at the end, as in the scripts.
"""

from __future__ import annotations


def netstring(word: bytes) -> bytes:
    """Return `word` with its length before it."""
    return b"%d:%s" % (len(word), word)


def read_netstrings(text: bytes) -> list[bytes]:
    """Return the byte strings of a row of netstrings.

    Raises:
        ValueError: if `text` is malformed.
    """
    words = []
    at = 0
    while at < len(text):
        colon = text.index(b":", at)
        size = text[at:colon]
        end = colon + 1 + int(size)
        if not size.isdigit() or end > len(text):
            raise ValueError("a netstring is cut off")
        words.append(text[colon + 1 : end])
        at = end
    return words
