"""Every error that a user of multielect can meet.

Rules of this file:
    * All errors derive from `MultielectError`, so one ``except`` catches them.
    * An error that has a counterpart in the standard library derives from that too.
    * A message says what was wrong, and what is allowed or what to do.
"""

from __future__ import annotations

from ._runtime.foreign import in_words


class MultielectError(Exception):
    """Any error raised or reported by multielect."""


class ConfigError(MultielectError, ValueError):
    """An argument is not allowed. The message says what is allowed."""


class ClosedError(MultielectError, RuntimeError):
    """A group or elector was used after it stopped, or in a forked child.

    Also raised when a program waits for a group that was not started, and when it adds an election
    to a group that drains, or waits for one there: the group would never lead it.
    """


class NotLeaderError(MultielectError):
    """This node must lead the election now, and does not."""


class StaleEpochError(MultielectError):
    """A fenced write was refused as a whole, because a newer epoch is known.

    The writer no longer leads, or leads under another epoch. End the work of that term.

    Attributes:
        key: the election's key; empty for an `Elector`.
        epoch: the epoch of the write.
        newest_epoch: the newest epoch that was elected or written.
    """

    def __init__(self, key: str, epoch: int, newest_epoch: int) -> None:
        """Keep both epochs."""
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
    """The connection to Redis was lost, or could not be made. The node tries again.

    The cause is temporary: a network failure, a restart, a server that is busy or loading. The
    requests in flight have an unknown outcome, so terms keep their old deadlines.
    """


class ServerUnusableError(MultielectError):
    """The server answers but cannot serve elections, until somebody mends the cause.

    The cause is in the server, or in this node's settings. The node tries again all the same, with
    growing pauses of up to 30 seconds. It tries a replica as often as a server that does not
    answer, because the replica may become the primary at any moment.

    Attributes:
        reason: what is wrong:

            * ``"auth"``: no password, a wrong one, or an unknown user;
            * ``"acl"``: the user may not run a command that elections need;
            * ``"tls"``: the two ends do not agree on TLS, a certificate is not trusted, or a
              file is missing;
            * ``"replica"``: it is not a primary;
            * ``"cluster"``: it is not a node of Redis Cluster, though the URL says so; or there are
              more primaries than a node can serve;
            * ``"sentinel"``: it is a sentinel;
            * ``"version"``: it is older than elections need;
            * ``"unsupported"``: it lacks a command, or scripts;
            * ``"database"``: it has no database of this number;
            * ``"protected"``: its protected mode refuses other machines;
            * ``"permission"``: this process may not open its socket;
            * ``"protocol"``: the program that answers is not Redis.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        """Keep the cause, as text and as one word."""
        super().__init__(message)
        self.reason = reason


class ProtocolError(MultielectError):
    """The server sent something that does not answer the request."""


class ServerError(MultielectError):
    """Redis refused a batch, or some elections of one.

    Attributes:
        code: the first word of the server's error, such as ``OOM`` or ``WRONGTYPE``.
        request: the request: ``"acquire"``, ``"refresh"``, ``"release"`` or ``"grant"``.
        elections: how many elections the error concerns.
        key: the key of one of them; None if that is not known.
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
        """Keep the server's message, and which elections it concerns."""
        super().__init__(f"{request}{_of(elections, key)}{_at(server)}: {message}")
        self.server = server
        self.code = message.split(" ", 1)[0]
        self.request = request
        self.elections = elections
        self.key = key


class EndlessLeaseError(MultielectError):
    """A leader key has no TTL, so the election never becomes free.

    No node of multielect leaves such a key. The error is reported once for each election and
    holder.

    Attributes:
        key: the key of one of the elections.
        holder: the value of the leader key.
        leader_key: the Redis key that has no TTL.
        elections: how many elections the error concerns.
        server: where the key is: ``"host:port"`` or a socket's path; empty if that is not known.
    """

    def __init__(
        self, key: str, *, holder: str, leader_key: str, elections: int, server: str = ""
    ) -> None:
        """Keep the election and its holder."""
        super().__init__(
            f"no node can be elected{_of(elections, key, 'for')}: the leader key of {holder!r}"
            f"{_at(server)} has no TTL. If that holder no longer runs, delete the key:"
            f" DEL {leader_key}"
        )
        self.server = server
        self.key = key
        self.holder = holder
        self.leader_key = leader_key
        self.elections = elections


def _of(elections: int, key: str | None, word: str = "of") -> str:
    """Return the part of a message that says which elections an error concerns."""
    if elections == 0 or (elections == 1 and not key):
        return ""
    if elections == 1:
        return f" {word} {key!r}"
    return f" {word} {elections} elections" + ("" if key is None else f", e.g. {key!r}")


def _at(server: str) -> str:
    """Return where the server of an error is, for its text."""
    return f" at {server}" if server else ""


class ClockJumpError(MultielectError):
    """The server's clock jumped, or this machine's clock stood still.

    The server ends leases by its clock. After a jump forward, leases end earlier than this node
    expected: it ended the terms that were endangered, and refreshes the other leases. After a jump
    back, leases last longer, and other nodes take over later after a crash.

    Attributes:
        jump_ms: milliseconds by which the server's clock moved more than this machine's; negative
            for a jump back.
        terms: how many terms were given up.
        server: where the server is: ``"host:port"`` or a socket's path; empty if that is not known.
    """

    def __init__(self, jump_ms: int, *, terms: int, server: str = "") -> None:
        """Keep the jump, and how many terms it cost."""
        way = "forward" if jump_ms > 0 else "back"
        super().__init__(
            f"the server's clock{_at(server)} jumped {way} by {abs(jump_ms) / 1000:.3f} s:"
            f" {terms} term(s) were given up"
        )
        self.server = server
        self.jump_ms = jump_ms
        self.terms = terms


class CallbackError(MultielectError):
    """A callback raised an exception, which is in ``__cause__``.

    Other callbacks run, and leases are refreshed, as before.

    Attributes:
        callback: the name of the argument, such as ``"on_elected"``.
        key: the election's key; empty for an `Elector`, and for ``"on_error"``.
        epoch: the epoch of the term for which it was called; 0 for ``"on_error"``.
    """

    def __init__(self, callback: str, key: str, epoch: int) -> None:
        """Keep which callback failed, and for which term."""
        super().__init__(callback, key, epoch)
        self.callback = callback
        self.key = key
        self.epoch = epoch

    def __str__(self) -> str:
        of = f" for election {self.key!r}" if self.key else ""
        at = f" at epoch {self.epoch}" if self.epoch else ""
        return f"{self.callback} failed{of}{at}: {in_words(self.__cause__)}"


class HandlerError(CallbackError):
    """The handler of a stream consumer failed on a batch. The exception is in ``__cause__``.

    Attributes:
        callback: ``"handler"``.
        key: the partition's key.
        epoch: the epoch of the term under which the batch was read.
        ids: the ids of the batch's first and last entry.
        attempt: the number of this attempt at the batch's first entry.
        outcome: what the consumer does with the batch: ``"retry"``: handles it again;
            ``"dead-letter"``: moves its one entry to the dead-letter stream; ``"halt"``: stops the
            partition; ``"dropped"``: nothing, as the term has ended and the next leader handles
            the batch.
    """

    def __init__(
        self, key: str, epoch: int, ids: tuple[str, str], attempt: int, outcome: str
    ) -> None:
        """Keep the batch, and what the consumer does with it."""
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
