"""What servers of all kinds say where a right is missing."""

from __future__ import annotations

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from multielect._protocol.refusals import naming, refusal_in

OF_6_AND_7_0 = "The user executing the script can't run this command or subcommand"


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (NoPermissionError("this user has no permissions to run the 'evalsha' command"), "evalsha"),
        (NoPermissionError("User u has no permissions to run the 'xread' command"), "xread"),
        (ResponseError(f"ERR {OF_6_AND_7_0}"), ""),
        (ResponseError(naming(f"ERR {OF_6_AND_7_0}", "HSET")), "hset"),
        (
            ResponseError(
                "ERR ACL failure in script: User u has no permissions to run the 'xinfo|stream'"
                " command"
            ),
            "xinfo|stream",
        ),
    ],
    ids=str,
)
def test_a_command_that_is_refused_is_the_one_to_grant(error: Exception, command: str) -> None:
    refusal = refusal_in(error)
    assert refusal is not None
    assert (refusal.command, refusal.is_of_keys) == (command, False)
    assert (f"+{command} " if command else "the command that the script calls") in refusal.remedy
    assert refusal.text in str(error)
    assert not refusal.text.startswith("ERR")


@pytest.mark.parametrize(
    "error",
    [
        NoPermissionError("No permissions to access a key"),
        NoPermissionError(
            "this user has no permissions to access one of the keys used as arguments"
        ),
        ResponseError(
            "ERR The user executing the script can't access at least one of the keys mentioned in"
            " the command arguments"
        ),
        ResponseError("ERR ACL failure in script: No permissions to access a key"),
    ],
    ids=str,
)
def test_a_key_that_is_refused_is_told_from_a_command(error: Exception) -> None:
    refusal = refusal_in(error)
    assert refusal is not None
    assert (refusal.command, refusal.is_of_keys) == ("", True)
    assert "~" in refusal.remedy


@pytest.mark.parametrize(
    "error",
    [
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        ResponseError("ERR wrong number of arguments for 'hset' command"),
        ResponseError("OOM command not allowed when used memory > 'maxmemory'."),
        ConnectionError("gone"),
    ],
    ids=str,
)
def test_what_is_no_matter_of_rights_is_none(error: Exception) -> None:
    assert refusal_in(error) is None


def test_a_command_that_the_server_named_is_not_named_again() -> None:
    told = "ACL failure in script: User u has no permissions to run the 'get' command"
    assert naming(told, "SET") == told
