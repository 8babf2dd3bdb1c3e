"""Every error that a user of multielect can meet.

Rules of this file:
    * All derive from `MultielectError`, so that one ``except`` catches them.
    * An error that has a counterpart in the standard library derives from that too.
    * A message says what was wrong and what is allowed or what to do.
"""

from __future__ import annotations

from ._runtime.foreign import in_words


class MultielectError(Exception):
    """Any error raised or reported by multielect."""


class ConfigError(MultielectError, ValueError):
    """An argument was refused where it entered. The message says what is allowed."""


class ClosedError(MultielectError, RuntimeError):
    """A group or elector was used after it stopped, or in a forked child.

    Also where it is waited for before it was started, and where something is added to it, or waited
    for, once it drains: that would never lead.
    """


class NotLeaderError(MultielectError):
    """Leadership was required of a node that does not lead the election now."""


class StaleEpochError(MultielectError):
    """A fenced write was refused, and nothing of it done: a newer epoch is known.

    Whoever wrote no longer leads, or not under this epoch: end the work of that term.

    Attributes:
        key: the election's key; empty for an `Elector`.
        epoch: the epoch of the write.
        newest_epoch: the newest that is known, elected or written.
    """

    def __init__(self, key: str, epoch: int, newest_epoch: int) -> None:
        """Keep who wrote, and who came after."""
        super().__init__(key, epoch, newest_epoch)
        self.key = key
        self.epoch = epoch
        self.newest_epoch = newest_epoch

    def __str__(self) -> str:
        return (
            f"a write for {self.key!r} under epoch {self.epoch} was refused:"
            f" epoch {self.newest_epoch} is newer"
        )


class ConnectionLostError(MultielectError, ConnectionError):
    """The connection to Redis ended, or could not be made. It is being made anew.

    It is for what passes by itself: a network, a restart, a server that is busy or loading.
    What was in flight has an unknown outcome: terms keep their old deadline.
    """


class ServerUnusableError(MultielectError):
    """The server is there but cannot serve elections, and that does not pass by itself.

    Somebody must mend the server, or what this node was told of it. It is tried again all the
    same, ever more seldom, up to twice a minute; a replica as often as a server that is away, as
    it may become the primary at any moment.

    Attributes:
        reason: what is wrong:

            * ``"auth"``: no password, a wrong one, or an unknown user;
            * ``"acl"``: the user may not do what elections need;
            * ``"tls"``: the two ends do not agree on TLS, a certificate is not trusted, or a
              file is missing;
            * ``"replica"``: it is not a primary;
            * ``"cluster"``, ``"sentinel"``: it is a node of Redis Cluster, or a sentinel;
            * ``"version"``: it is older than what elections need;
            * ``"unsupported"``: it lacks a command, or scripts;
            * ``"database"``: it has no database of this number;
            * ``"protected"``: its protected mode keeps other machines out;
            * ``"permission"``: this process may not open its socket;
            * ``"protocol"``: what answers is not Redis.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        """Keep what is wrong, for people and for programs."""
        super().__init__(message)
        self.reason = reason


class ProtocolError(MultielectError):
    """The server sent something that is no answer to what was asked."""


class ServerError(MultielectError):
    """Redis refused a batch, or some elections of one.

    Attributes:
        code: the first word of the server's error, such as ``OOM`` or ``WRONGTYPE``.
        request: what was asked: ``"acquire"``, ``"refresh"``, ``"release"`` or ``"grant"``.
        elections: how many elections it concerns.
        key: the key of one of them; None where that is not known.
        server: where the server is: ``"host:port"`` or a socket's path; empty if that is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        request: str,
        elections: int,
        key: str | None = None,
        server: str = "",
    ) -> None:
        """Keep the server's own words and what they concern."""
        super().__init__(f"{request}{_of(elections, key)}{_at(server)}: {message}")
        self.server = server
        self.code = message.split(" ", 1)[0]
        self.request = request
        self.elections = elections
        self.key = key


class EndlessLeaseError(MultielectError):
    """Somebody holds an election by a leader key that has no TTL: it never comes free.

    No node of multielect leaves such a key. It is told once for each election and holder.

    Attributes:
        key: the key of one of the elections.
        holder: who holds them.
        leader_key: the Redis key that has no TTL.
        elections: how many elections it concerns.
        server: where the key is: ``"host:port"`` or a socket's path; empty if that is not known.
    """

    def __init__(
        self, key: str, *, holder: str, leader_key: str, elections: int, server: str = ""
    ) -> None:
        """Keep which election it is, and who has it."""
        super().__init__(
            f"nobody can be elected{_of(elections, key, 'for')}: {holder!r} holds it by a key"
            f" without a TTL{_at(server)}. If that holder is gone, delete the key: DEL {leader_key}"
        )
        self.server = server
        self.key = key
        self.holder = holder
        self.leader_key = leader_key
        self.elections = elections


def _of(elections: int, key: str | None, word: str = "of") -> str:
    """Return which elections an error concerns, for its text."""
    if elections == 0 or (elections == 1 and not key):
        return ""
    if elections == 1:
        return f" {word} {key!r}"
    return f" {word} {elections} elections" + ("" if key is None else f", e.g. {key!r}")


def _at(server: str) -> str:
    """Return where the server of an error is, for its text."""
    return f" at {server}" if server else ""


class ClockJumpError(MultielectError):
    """The server's clock jumped, by which it ends leases; or this machine's stood still.

    Forward, leases end earlier than was counted on: terms that this endangers were given up at
    once, and the others are refreshed. Back, they last longer, and a crash is noticed later.

    Attributes:
        jump_ms: by how many milliseconds, against what passed here; negative for a jump back.
        terms: how many terms were given up.
        server: where the server is: ``"host:port"`` or a socket's path; empty if that is not known.
    """

    def __init__(self, jump_ms: int, *, terms: int, server: str = "") -> None:
        """Keep how far it jumped, and what it cost."""
        way = "forward" if jump_ms > 0 else "back"
        super().__init__(
            f"the server's clock{_at(server)} jumped {way} by {abs(jump_ms) / 1000:.3f} s:"
            f" {terms} term(s) were given up"
        )
        self.server = server
        self.jump_ms = jump_ms
        self.terms = terms


class CallbackError(MultielectError):
    """A callback of the user raised; the cause is in ``__cause__``.

    Nothing else suffers: other callbacks run, and leases are refreshed as before.

    Attributes:
        callback: which, by the name of its argument: ``"on_elected"``.
        key: the election's key; empty for an `Elector`, and for ``"on_error"``.
        epoch: of the term that it was told of; 0 for ``"on_error"``, which is told of none.
    """

    def __init__(self, callback: str, key: str, epoch: int) -> None:
        """Keep which callback failed, and on what."""
        super().__init__(callback, key, epoch)
        self.callback = callback
        self.key = key
        self.epoch = epoch

    def __str__(self) -> str:
        of = f" for election {self.key!r}" if self.key else ""
        at = f" at epoch {self.epoch}" if self.epoch else ""
        return f"{self.callback} failed{of}{at}: {in_words(self.__cause__)}"


class HandlerError(CallbackError):
    """The handler of a stream consumer failed on a batch; the cause is in ``__cause__``.

    Attributes:
        callback: ``"handler"``.
        key: the partition's key.
        epoch: of the term under which it was read.
        ids: the ids of the batch's first and last entry.
        attempt: which attempt at its first entry it was.
        outcome: what becomes of the batch: ``"retry"``; ``"dead-letter"``: its one entry is set
            aside; ``"halt"``: the partition goes no further; ``"dropped"``: the term has ended,
            and the next leader will handle it.
    """

    def __init__(
        self, key: str, epoch: int, ids: tuple[str, str], attempt: int, outcome: str
    ) -> None:
        """Keep which batch it was, and what becomes of it."""
        super().__init__("handler", key, epoch)
        self.args = (key, epoch, ids, attempt, outcome)
        self.ids = ids
        self.attempt = attempt
        self.outcome = outcome

    def __str__(self) -> str:
        what = self.ids[0] if self.ids[0] == self.ids[1] else f"{self.ids[0]} to {self.ids[1]}"
        return (
            f"the handler failed on {what} of {self.key!r} at attempt {self.attempt}"
            f" ({self.outcome}): {in_words(self.__cause__)}"
        )
