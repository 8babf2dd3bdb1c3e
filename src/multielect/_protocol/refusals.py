"""Refusals of a server for a missing right, and which right that is.

Rules of this file:
    * No I/O: this file reads the server's text, and keeps it.
    * Servers before 7.2 do not name the command of a script that they refuse. The caller adds its
      name if it knows it, in the words of newer servers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from redis.exceptions import NoPermissionError

_COMMAND = re.compile(r"the '([\w|]+)' command")

_OF_A_COMMAND = ("can't run this command", "no permissions to run")
_OF_A_KEY = (
    "can't access at least one of the keys",
    "permissions to access a key",
    "permissions to access one of the keys",
)


@dataclass(frozen=True)
class Refusal:
    """A right that is missing.

    Attributes:
        text: the server's text, without its code.
        command: the command that is refused, in lower case; empty if unknown.
        is_of_keys: whether the command is allowed, and some key is not.
    """

    text: str
    command: str
    is_of_keys: bool

    @property
    def remedy(self) -> str:
        """What to do, without the names of keys."""
        if self.is_of_keys:
            return "grant this user the key (ACL SETUSER ... ~pattern)"
        if self.command:
            return f"grant this user +{self.command} (ACL SETUSER)"
        return "grant this user the command that the script calls (ACL SETUSER)"


def refusal_in(error: BaseException | str) -> Refusal | None:
    """Return the missing right, if an error is about one."""
    text = str(error)
    is_of_keys = any(part in text for part in _OF_A_KEY)
    if (
        not is_of_keys
        and not any(part in text for part in _OF_A_COMMAND)
        and not isinstance(error, NoPermissionError)
    ):
        return None
    found = _COMMAND.search(text)
    code, _, rest = text.partition(" ")
    return Refusal(
        text=rest if code in ("ERR", "NOPERM") else text,
        command="" if found is None else found[1].lower(),
        is_of_keys=is_of_keys,
    )


def naming(text: str, command: str) -> str:
    """Return a refusal's text with the command that was refused, unless it names one."""
    if "can't run this command" not in text or _COMMAND.search(text):
        return text
    return f"{text} (the '{command.lower()}' command)"
