"""What a server refuses to its user for want of a right, and which right that is.

Rules of this file:
    * Pure: it reads what the server said. The server's own words are kept.
    * Servers before 7.2 do not say which command of a script they refuse. Then whoever knows adds
      it, in the words in which newer servers say it.
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
        words: what the server said, without its code.
        command: the command that is refused, in lower case; empty where nobody knows.
        is_of_keys: whether the command is allowed, and some key is not.
    """

    words: str
    command: str
    is_of_keys: bool

    @property
    def remedy(self) -> str:
        """What to do about it, but for the names of keys."""
        if self.is_of_keys:
            return "grant this user the key (ACL SETUSER ... ~pattern)"
        if self.command:
            return f"grant this user +{self.command} (ACL SETUSER)"
        return "grant this user the command that the script calls (ACL SETUSER)"


def refusal_in(error: BaseException | str) -> Refusal | None:
    """Return which right is missing, if that is what an error says."""
    words = str(error)
    is_of_keys = any(part in words for part in _OF_A_KEY)
    if (
        not is_of_keys
        and not any(part in words for part in _OF_A_COMMAND)
        and not isinstance(error, NoPermissionError)
    ):
        return None
    found = _COMMAND.search(words)
    code, _, rest = words.partition(" ")
    return Refusal(
        words=rest if code in ("ERR", "NOPERM") else words,
        command="" if found is None else found[1].lower(),
        is_of_keys=is_of_keys,
    )


def naming(words: str, command: str) -> str:
    """Add to a refusal which command it is of, unless the server said so."""
    if "can't run this command" not in words or _COMMAND.search(words):
        return words
    return f"{words} (the '{command.lower()}' command)"
