"""Netstrings: words of any bytes in one text, each with its length before it.

Rules of this file:
    * The form is ``<length>:<bytes>``, with no comma behind, as the scripts write and read it.
"""

from __future__ import annotations


def netstring(word: bytes) -> bytes:
    """Return a word with its length before it."""
    return b"%d:%s" % (len(word), word)


def read_netstrings(text: bytes) -> list[bytes]:
    """Return the words of a text of netstrings.

    Raises:
        ValueError: for what is none.
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
