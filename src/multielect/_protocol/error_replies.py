"""What the server refused, as the core notes it, made into errors for people.

Rules of this file:
    * The code of an error is the server's own word for it, whatever its version puts before it and
      after. What the access control list forbids is NOPERM.
    * An error says which right is missing. Where the server does not, it is one of those that the
      script needs, and all are named.
    * What a refusal costs is said where that is not plain.
"""

from __future__ import annotations

import re

from ..errors import EndlessLeaseError, MultielectError, ServerError
from .keys import KeyLayout, decode_key
from .scripts import COMMANDS

_BEFORE = re.compile(
    r"^(?:ERR )?(?:Error running script \(call to \w+\): )?(?:@?\w+: ?\d+: ?)*(?:-(?=[A-Z]))?"
)
"""What Redis 6.2 puts before what it says: where in which script it was called."""

_AFTER = re.compile(r" script: (?:\w+, )?on @\w+:\d+\.$")
"""What later versions put after it."""

_CODE = re.compile(r"[A-Z][A-Z0-9_]*(?= |$)")
_FORBIDDEN = re.compile(r"(?:ACL failure in script: |The user executing the script can't )")
_COMMAND = re.compile(r"to run the '([^']+)' command")

_COSTS = {
    "claim": "a leader cannot be told which of its elections are to be this node's, so nothing is"
    " handed over to it",
    "wake-up": "the other nodes cannot be told of elections that are given up or handed over, and"
    " take them only when the lease would have ended",
    "unended": "it stays taken until its lease runs out, one TTL later",
}
_ASKED = {"claim": "acquire", "wake-up": "release", "unended": "release"}


def as_error(
    what: str, elections: int, text: str, raw: bytes | None, *, layout: KeyLayout, server: str
) -> MultielectError:
    """Return what a server refused, as an error to be reported.

    Args:
        what: what was asked of the server: one of `REQUEST_NAMES`.
        elections: how many elections are concerned.
        text: the server's words.
        raw: the key of one of the elections, as bytes; None where none can be named.
        layout: where the elections are kept.
        server: where the server is.
    """
    key = None if raw is None else decode_key(raw)
    if what == "endless":
        assert raw is not None
        assert key is not None
        name = decode_key(layout.leader_key(raw))
        return EndlessLeaseError(
            key, holder=text, leader_key=name, elections=elections, server=server
        )
    code, said = split(text)
    if code == "NOPERM":
        said += f" ({_right(what, said, layout)})"
    if what in _COSTS:
        said += f": {_COSTS[what]}"
    return ServerError(
        f"{code} {said}",
        request=_ASKED.get(what, what),
        elections=elections,
        key=key,
        server=server,
    )


def split(text: str) -> tuple[str, str]:
    """Return the code of a server's error, and its words without what is before and after."""
    said = _AFTER.sub("", _BEFORE.sub("", text, count=1))
    if _FORBIDDEN.match(said):
        return "NOPERM", said
    code = _CODE.match(said)
    if code is None:
        return "ERR", said
    return code[0], said[code.end() :].lstrip()


def _right(what: str, said: str, layout: KeyLayout) -> str:
    """Return which right the access control list has to grant."""
    channel = f"&{decode_key(layout.channel)}"
    named = _COMMAND.search(said)
    if named is not None:
        return f"the user needs +{named[1]}"
    if "channel" in said:
        return f"the user needs {channel}"
    if "key" in said:
        # The channel's name is the prefix and a last word.
        prefix = decode_key(layout.channel).rpartition(":")[0]
        return f"the user needs ~{prefix}:*"
    needed = {"claim": ("publish",), "wake-up": ("publish",), "unended": ("del",)}.get(
        what, COMMANDS.get(what, ())
    )
    return "the user needs " + " ".join(f"+{command}" for command in needed)
