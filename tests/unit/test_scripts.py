"""The scripts as servers of either kind want them."""

from __future__ import annotations

import hashlib

import pytest

from multielect._protocol.scripts import PROBE, WITH_FLAGS, WITHOUT_FLAGS, ScriptSet

NAMES = ("acquire", "refresh", "release")


@pytest.mark.parametrize("scripts", [WITH_FLAGS, WITHOUT_FLAGS], ids=["flags", "no flags"])
@pytest.mark.parametrize("name", NAMES)
def test_a_digest_is_that_of_the_text(scripts: ScriptSet, name: str) -> None:
    script = getattr(scripts, name)
    assert script.sha == hashlib.sha1(script.body).hexdigest().encode()


@pytest.mark.parametrize("name", NAMES)
def test_the_two_kinds_differ_in_their_first_line_only(name: str) -> None:
    first, _, rest = getattr(WITH_FLAGS, name).body.partition(b"\n")
    assert rest == getattr(WITHOUT_FLAGS, name).body
    assert first.startswith(b"#!lua")


def test_a_full_server_refreshes_and_releases_but_takes_no_new_lease() -> None:
    flagged = {name for name in NAMES if b"allow-oom" in getattr(WITH_FLAGS, name).body}
    assert flagged == {"refresh", "release"}


def test_the_probe_is_a_script_with_a_first_line() -> None:
    assert PROBE.startswith("#!lua ")


def test_no_two_scripts_are_the_same() -> None:
    digests = {getattr(s, name).sha for s in (WITH_FLAGS, WITHOUT_FLAGS) for name in NAMES}
    assert len(digests) == 6
