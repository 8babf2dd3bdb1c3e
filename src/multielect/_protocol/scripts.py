"""The Lua scripts, as the server at hand wants them.

Rules of this file:
    * The text of a script is in ``lua/``, with the contract of its KEYS, ARGV and reply.
    * From server 7.0 on a script names its flags in a first line. All but acquire are
      then let through on a full server, and a replica refuses all with READONLY instead of
      answering that a lease is not ours.
    * A fenced script is a body of the user's inside `fence.lua`. It gets no flags: a full
      server refuses it whole, before it has done half.
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
"""The files that each is made of."""

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
"""What each script calls, and so what its user must be allowed; beside EVAL and EVALSHA."""

LARGEST_EPOCH = 2**53 - 1
"""Up to here Lua counts exactly; no election mints a larger one."""

PROBE = "#!lua flags=no-writes\nreturn 1"
"""A script that only a server which knows the first line will run."""


def is_about_flags(error: Exception) -> bool:
    """Tell whether a server refused `PROBE` because it knows no first line."""
    # Only what Lua says of the first line speaks of the version.
    return "compiling script" in str(error).lower() or "near '#'" in str(error)


@dataclass(frozen=True)
class Script:
    """A script's text and the name that the server gives it."""

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
        expiring_release: what stands for `release` where epochs are kept for a time.
        expiring_grant: what stands for `grant` there.
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
    # The body begins on the first line that can hold it, so that the lines which Lua speaks
    # of are, or come right after, the body's own.
    first = "#!lua\n" if flags else ""
    return Script.of(f"{first}local function body(KEYS, ARGV) {body}\nend\n{_FENCE}")
