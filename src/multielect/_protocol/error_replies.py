"""Turns the core's error reports into errors for users.

Rules of this file:
    * The code of an error is the server's own, without what its version puts before and after it.
      An error of the access control list has the code NOPERM.
    * Such an error names the missing right. If the server does not name it, the error names all
      rights that the script needs.
    * An error says what follows from it, if that is not obvious.
"""

from __future__ import annotations

import re

from ..errors import EndlessLeaseError, MultielectError, ServerError
from .keys import KeyLayout, decode_key
from .scripts import COMMANDS

_BEFORE = re.compile(
    r"^(?:ERR )?(?:Error running script \(call to \w+\): )?(?:@?\w+: ?\d+: ?)*(?:-(?=[A-Z]))?"
)
"""Redis 6.2 puts this before an error: the place in the script."""

_AFTER = re.compile(r" script: (?:\w+, )?on @\w+:\d+\.$")
"""Later versions put this after an error."""

_CODE = re.compile(r"[A-Z][A-Z0-9_]*(?= |$)")
_FORBIDDEN = re.compile(r"(?:ACL failure in script: |The user executing the script can't )")
_COMMAND = re.compile(r"to run the '([^']+)' command")

_COSTS = {
    "claim": "this node cannot announce its claims, so no leader hands an election over to it",
    "wake-up": "this node cannot announce elections that it gives up or hands over, so the other"
    " nodes take them only when the lease would have ended",
    "unended": "the election has no new leader until the lease expires, one TTL later",
}
_ASKED = {"claim": "acquire", "wake-up": "release", "unended": "release"}


def as_error(
    what: str, elections: int, text: str, raw: bytes | None, *, layout: KeyLayout, server: str
) -> MultielectError:
    """Return the error for what a server refused.

    Args:
        what: the request, or the kind of report: one of `REQUEST_NAMES`.
        elections: how many elections the refusal concerns.
        text: the server's message.
        raw: the key of one of the elections, as bytes; None if no election can be named.
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
    """Return the code of a server's error and its text, without what versions put around them."""
    said = _AFTER.sub("", _BEFORE.sub("", text, count=1))
    if _FORBIDDEN.match(said):
        return "NOPERM", said
    code = _CODE.match(said)
    if code is None:
        return "ERR", said
    return code[0], said[code.end() :].lstrip()


def _right(what: str, said: str, layout: KeyLayout) -> str:
    """Return the right that the access control list must grant."""
    channel = f"&{decode_key(layout.channel)}"
    named = _COMMAND.search(said)
    if named is not None:
        return f"the user needs +{named[1]}"
    if "channel" in said:
        return f"the user needs {channel}"
    if "key" in said:
        # The channel's name is the prefix, a colon and one word.
        prefix = decode_key(layout.channel).rpartition(":")[0]
        return f"the user needs ~{prefix}:*"
    needed = {"claim": ("publish",), "wake-up": ("publish",), "unended": ("del",)}.get(
        what, COMMANDS.get(what, ())
    )
    return "the user needs " + " ".join(f"+{command}" for command in needed)
