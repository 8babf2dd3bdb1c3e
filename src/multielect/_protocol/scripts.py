"""The Lua scripts, for servers with and without script flags.

Rules of this file:
    * The text of a script is in ``lua/``, with the contract of its KEYS, ARGV and reply.
    * From server 7.0 on, the first line of a script has its flags. A full server then runs all
      scripts but acquire. A replica refuses all of them with READONLY, and does not answer that a
      lease is not ours.
    * A fenced script is the user's body inside `fence.lua`. It has no flags: a full server refuses
      the whole script, before it has made half of its writes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

_SHEBANG = {
    "acquire": "#!lua\n",
    "refresh": "#!lua flags=allow-oom\n",
    "release": "#!lua flags=allow-oom\n",
    "grant": "#!lua flags=allow-oom\n",
    "expiring_release": "#!lua flags=allow-oom\n",
    "expiring_grant": "#!lua flags=allow-oom\n",
    "membership": "#!lua flags=allow-oom\n",
}

_PARTS = {
    "acquire": ("values", "reporting", "acquire"),
    "refresh": ("values", "refresh"),
    "release": ("values", "reporting", "epochs_stay", "release"),
    "grant": ("values", "reporting", "epochs_stay", "grant"),
    "expiring_release": ("values", "reporting", "epochs_expire", "release"),
    "expiring_grant": ("values", "reporting", "epochs_expire", "grant"),
    "membership": ("membership",),
}
"""The files of each script."""

COMMANDS = {
    "acquire": ("get", "incr", "mget", "pttl", "publish", "set", "time"),
    "refresh": ("get", "mget", "pexpireat", "time"),
    "release": ("del", "get", "mget", "publish", "time"),
    "grant": ("del", "get", "mget", "publish", "set", "time"),
    "membership": (
        "get",
        "getrange",
        "hdel",
        "hgetall",
        "hset",
        "pexpireat",
        "publish",
        "set",
        "strlen",
        "time",
    ),
}
"""The commands that each script calls, beside EVAL and EVALSHA. Its user needs the rights."""

LARGEST_EPOCH = 2**53 - 1
"""The largest number that Lua counts exactly. No election mints a larger epoch."""

PROBE = "#!lua flags=no-writes\nreturn 1"
"""A script that runs only on servers that know script flags."""


def is_about_flags(error: Exception) -> bool:
    """Return whether a server refused `PROBE` because it does not know script flags."""
    # Other errors, such as a missing right, say nothing about the version.
    return "compiling script" in str(error).lower() or "near '#'" in str(error)


@dataclass(frozen=True)
class Script:
    """A script's text, and its SHA-1 digest, by which the server knows it."""

    body: bytes
    sha: bytes

    @classmethod
    def of(cls, text: str) -> Script:
        """Return the script with this text."""
        body = text.encode()
        return cls(body, hashlib.sha1(body, usedforsecurity=False).hexdigest().encode())


@dataclass(frozen=True)
class ScriptSet:
    """The scripts for one kind of server.

    Attributes:
        expiring_release: the `release` for a limited epoch retention.
        expiring_grant: the `grant` for a limited epoch retention.
    """

    acquire: Script
    refresh: Script
    release: Script
    grant: Script
    expiring_release: Script
    expiring_grant: Script
    membership: Script


def _load(*, flags: bool) -> ScriptSet:
    scripts = {
        name: Script.of((first if flags else "") + "".join(map(lua_text, _PARTS[name])))
        for name, first in _SHEBANG.items()
    }
    return ScriptSet(**scripts)


def lua_text(name: str) -> str:
    """Return the text of a file in ``lua/``."""
    return resources.files(__package__).joinpath("lua").joinpath(f"{name}.lua").read_text("utf-8")


WITH_FLAGS = _load(flags=True)
"""For servers from 7.0 on."""

WITHOUT_FLAGS = _load(flags=False)
"""For servers before 7.0."""

_FENCE = lua_text("fence")


def fenced(body: str, *, flags: bool) -> Script:
    """Return the script that runs `body` behind the fence."""
    # The body begins on the first possible line, so that line numbers in Lua's errors are those of
    # the body, or one more.
    first = "#!lua\n" if flags else ""
    return Script.of(f"{first}local function body(KEYS, ARGV) {body}\nend\n{_FENCE}")
