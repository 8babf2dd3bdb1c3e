"""Netstrings: what is written is read again, and what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multielect._protocol.netstrings import netstring, read_netstrings


@given(st.lists(st.binary()))
def test_what_is_written_is_read_again(words: list[bytes]) -> None:
    assert read_netstrings(b"".join(map(netstring, words))) == words


@pytest.mark.parametrize("text", [b"3:ab", b"3", b":", b"-1:", b"+1:a", b" 1:a", b"x:a", b"1:ab"])
def test_what_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"netstring|sub|literal"):
        read_netstrings(text)
