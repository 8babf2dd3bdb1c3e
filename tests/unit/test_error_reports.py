"""What the server refuses is told with its code, the election, the missing right and the cost."""

from __future__ import annotations

import re

import pytest

from multielect import EndlessLeaseError, ServerError
from multielect._protocol.error_replies import as_error, split
from multielect._protocol.keys import elector_layout, group_layout
from multielect._protocol.scripts import COMMANDS, lua_text

LAYOUT = group_layout("orders", 16)
SHA = "9cc7343e684251662645f30969ebd18d0634550f"

# As redis-server 6.2.5, 7.0.15 and 8.2.3 and Valkey 9.1 say it.
SAID = {
    "OOM command not allowed when used memory > 'maxmemory'.": (
        "OOM",
        "command not allowed when used memory > 'maxmemory'.",
    ),
    "@user_script: 22: -OOM command not allowed when used memory > 'maxmemory'.": (
        "OOM",
        "command not allowed when used memory > 'maxmemory'.",
    ),
    f"ERR Error running script (call to f_{SHA}): @user_script:1: @user_script: 1: -OOM command"
    " not allowed when used memory > 'maxmemory'.": (
        "OOM",
        "command not allowed when used memory > 'maxmemory'.",
    ),
    f"ERR Error running script (call to f_{SHA}): @user_script:1: WRONGTYPE Operation against": (
        "WRONGTYPE",
        "Operation against",
    ),
    f"WRONGTYPE Operation against script: {SHA}, on @user_script:1.": (
        "WRONGTYPE",
        "Operation against",
    ),
    "WRONGTYPE Operation against script: on @user_script:1.": ("WRONGTYPE", "Operation against"),
    "@user_script: 1: The user executing the script can't run this command or subcommand": (
        "NOPERM",
        "The user executing the script can't run this command or subcommand",
    ),
    f"ERR The user executing the script can't run this command or subcommand script: {SHA},"
    " on @user_script:1.": (
        "NOPERM",
        "The user executing the script can't run this command or subcommand",
    ),
    "ERR ACL failure in script: User u has no permissions to run the 'incr' command": (
        "NOPERM",
        "ACL failure in script: User u has no permissions to run the 'incr' command",
    ),
    f"ERR Error running script (call to f_{SHA}): @enable_strict_lua:15: user_script:1: Script"
    " attempted": ("ERR", "Script attempted"),
    "ERR user_script:1: Script attempted script: on @user_script:1.": ("ERR", "Script attempted"),
    "ERR epoch counter would overflow": ("ERR", "epoch counter would overflow"),
    "NOPERM No permissions to access a key": ("NOPERM", "No permissions to access a key"),
    "READONLY You can't write against a read only replica.": (
        "READONLY",
        "You can't write against a read only replica.",
    ),
    "LOADING": ("LOADING", ""),
    "no code at all": ("ERR", "no code at all"),
    "": ("ERR", ""),
}


@pytest.mark.parametrize(("said", "expected"), SAID.items())
def test_the_code_is_the_servers_own(said: str, expected: tuple[str, str]) -> None:
    assert split(said) == expected


def told(what: str, elections: int, text: str, raw: bytes | None, server: str = "") -> ServerError:
    error = as_error(what, elections, text, raw, layout=LAYOUT, server=server)
    assert isinstance(error, ServerError)
    return error


def test_an_error_names_an_election_as_text() -> None:
    error = told("acquire", 3, "OOM no room", b"partition-7")
    assert str(error) == "acquire of 3 elections, e.g. 'partition-7': OOM no room"
    assert (error.code, error.request, error.elections, error.key) == (
        "OOM",
        "acquire",
        3,
        "partition-7",
    )
    assert str(told("refresh", 1, "OOM no room", b"k")) == "refresh of 'k': OOM no room"
    assert str(told("acquire", 1, "OOM no room", b"")) == "acquire: OOM no room"
    assert str(told("membership", 0, "OOM no room", None)) == "membership: OOM no room"
    assert told("acquire", 1, "OOM", b"\xff").key == "\udcff"


@pytest.mark.parametrize(
    ("what", "said", "right"),
    [
        ("refresh", "ERR ACL failure in script: ... to run the 'pexpireat' command", "+pexpireat"),
        ("acquire", "NOPERM User u has no permissions to run the 'evalsha' command", "+evalsha"),
        ("refresh", "ERR The user executing the script can't run this command or subcommand",
         "+get +mget +pexpireat +time"),
        ("claim", "@user_script: 9: The user executing the script can't run this command",
         "+publish"),
        ("unended", "@user_script: 9: The user executing the script can't run this command",
         "+del"),
        ("wake-up", "ERR ACL failure in script: No permissions to access a channel",
         "&orders:released"),
        ("claim", "ERR The user executing the script can't publish to the channel mentioned",
         "&orders:released"),
        ("acquire", "NOPERM No permissions to access a key", "~orders:*"),
    ],
)  # fmt: skip
def test_an_error_names_the_right_that_is_missing(what: str, said: str, right: str) -> None:
    error = told(what, 2, said, b"k")
    assert error.code == "NOPERM"
    assert f"(the user needs {right})" in str(error)


def test_the_rights_of_an_elector_are_its_own() -> None:
    text = "ERR ACL failure in script: No permissions: channel"
    error = as_error("wake-up", 1, text, None, layout=elector_layout("app"), server="")
    assert "&app:{election}:released" in str(error)


@pytest.mark.parametrize(
    ("what", "asked", "cost"),
    [
        ("claim", "acquire", "no leader hands an election over to it"),
        ("wake-up", "release", "only when the lease would have ended"),
        ("unended", "release", "until the lease expires"),
    ],
)
def test_an_error_says_what_it_costs(what: str, asked: str, cost: str) -> None:
    error = told(what, 2, "NOPERM no", b"k")
    assert error.request == asked
    assert cost in str(error)


def test_a_lease_without_an_end_is_an_error_of_its_own() -> None:
    error = as_error("endless", 7, "go-node", b"k", layout=LAYOUT, server="h:1")
    assert isinstance(error, EndlessLeaseError)
    bucket = LAYOUT.bucket(b"k")
    leader_key = f"orders:{{{bucket}}}:k:leader"
    assert str(error) == (
        "no node can be elected for 7 elections, e.g. 'k': the leader key of 'go-node' at h:1 has"
        f" no TTL. If that holder no longer runs, delete the key: DEL {leader_key}"
    )
    assert (error.key, error.holder, error.leader_key, error.elections, error.server) == (
        "k",
        "go-node",
        leader_key,
        7,
        "h:1",
    )


def test_an_error_names_the_server() -> None:
    error = told("refresh", 1, "OOM no room", b"k", "redis-3:6379")
    assert str(error) == "refresh of 'k' at redis-3:6379: OOM no room"
    assert error.server == "redis-3:6379"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_a_script_are_those_that_it_calls(name: str) -> None:
    texts = {file: lua_text(file) for file in ("values", "reporting", name)}
    called = {
        file: {word.lower() for word in re.findall(r"(?:try|redis\.p?call)\('([A-Z]+)'", text)}
        for file, text in texts.items()
    }
    needed = called[name]
    if "values_of(" in texts[name]:
        needed |= called["values"]
    if "deleted_alone(" in texts[name]:
        needed |= {"del"}
    if "publish(" in texts[name]:
        needed |= {"publish"}
    assert set(COMMANDS[name]) == needed
