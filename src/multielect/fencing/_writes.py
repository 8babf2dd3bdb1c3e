"""Fenced writes as data: their writers, their scripts and their outcomes.

Rules of this file:
    * No I/O: the fences send the scripts and hand back the replies.
    * A `Write` is checked, encoded and given its epoch when it is made. Each `Write` can be sent.
    * The text of a script is a constant. Data goes through KEYS and ARGV only.
    * A script serves at most 250 writes, and the writes of one election stay in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from .._protocol.keys import KeyLayout, decode_key, encode_key
from .._protocol.refusals import naming, refusal_in
from .._protocol.scripts import LARGEST_EPOCH, Script, fenced
from ..election import Candidacy, layout_of, learn_epoch
from ..errors import ConfigError, NotLeaderError, StaleEpochError

MAX_WRITES = 250
MAX_KEYS = 750
MAX_BYTES = 1_000_000
"""The limits of one script. A single write may have more bytes; it then has a script of its own."""

MAX_FIELDS = 3_500
"""Lua's `unpack` takes some 8,000 arguments at once, and a field needs two."""

Value = str | bytes | int | float
"""A value for Redis. Text becomes UTF-8."""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """A writer for programs without a `Term`, such as another process.

    Attributes:
        epoch: the epoch under which the work began.
        key: the election's key in its group; empty for an `Elector`.

    Raises:
        ConfigError: if the key is not allowed, or `epoch` is not an epoch.
    """

    epoch: int
    key: str | bytes = ""

    def __post_init__(self) -> None:
        if self.key not in ("", b""):
            encode_key(self.key)
        if type(self.epoch) is not int or not 1 <= self.epoch <= LARGEST_EPOCH:
            raise ConfigError(
                f"an epoch must be a whole number from 1 to {LARGEST_EPOCH}, not {self.epoch!r}"
            )


class FencedScript:
    """A Lua body that only the current epoch of an election can run.

    ::

        ADVANCE = FencedScript('''
            if redis.call('HGET', KEYS[1], 'state') ~= 'open' then return 0 end
            redis.call('HSET', KEYS[1], 'offset', ARGV[1])
            return redis.call('HINCRBY', KEYS[1], 'done', ARGV[2])
        ''')

    Make the body once, as a constant of your program. Pass data through KEYS and ARGV, which the
    body has to itself. So data is never taken for code, and Redis keeps one script and not one for
    each value. What the body returns is the write's reply.

    Redis does not roll a body back. If it fails half way, the write is reported as failed, and what
    the body wrote before stays; its epoch was the newest then. So put everything that can fail,
    such as a key of another type, before the first command that writes.

    Args:
        body: Lua as for EVAL, without a ``#!`` line.

    Raises:
        ConfigError: if the body is not a str, is empty, or begins with ``#!``.
    """

    __slots__ = ("body", "with_flags", "without_flags")

    body: str
    with_flags: Script
    without_flags: Script

    def __init__(self, body: str) -> None:
        if not isinstance(body, str):
            raise ConfigError(f"a body must be Lua in a str, not {type(body).__name__}")
        if not body.strip():
            raise ConfigError("a body must not be empty")
        if body.lstrip().startswith("#!"):
            raise ConfigError("a body must not have a '#!' line: the fence adds that line")
        self.body = body
        self.with_flags = fenced(body, flags=True)
        self.without_flags = fenced(body, flags=False)


COMMAND = FencedScript("return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))")


class Write:
    """One write and its writer, for `Fence.write_many`.

    Make it with one of the four class methods below, which send nothing. Each takes the writer's
    epoch at that moment, and raises

    * `ConfigError` if a key, a value or the epoch is not allowed,
    * `NotLeaderError` if the writer has never led.
    """

    __slots__ = (
        "arguments",
        "candidacy",
        "epoch",
        "is_command",
        "key",
        "keys",
        "layout",
        "script",
    )

    key: bytes
    epoch: int
    layout: KeyLayout | None
    candidacy: Candidacy | None
    script: FencedScript
    keys: tuple[bytes, ...]
    arguments: tuple[bytes, ...]
    is_command: bool

    def __init__(
        self,
        writer: Candidacy | Writer,
        script: FencedScript,
        keys: Iterable[str | bytes],
        arguments: Iterable[Value],
    ) -> None:
        """Use `set`, `hset`, `xadd` or `run` instead."""
        if isinstance(writer, Candidacy):
            self.layout = layout_of(writer)
            self.candidacy = writer
            self.epoch = writer.epoch
            if self.epoch == 0:
                raise NotLeaderError(f"this node has not led {writer.key!r}: there is no epoch yet")
        elif isinstance(writer, Writer):
            self.layout = None
            self.candidacy = None
            self.epoch = writer.epoch
        else:
            raise ConfigError(f"a writer must be a Term, an Election or a Writer, not {writer!r}")
        if not isinstance(script, FencedScript):
            raise ConfigError(f"a script must be a FencedScript, not {type(script).__name__}")
        self.key = encode_key(writer.key) if writer.key else b""
        self.script = script
        self.is_command = script is COMMAND
        self.keys = tuple(_redis_key(key) for key in _listed("keys", keys))
        self.arguments = tuple(_encoded(value) for value in _listed("arguments", arguments))
        if len(self.keys) > MAX_WRITES:
            raise ConfigError(f"a body may have at most {MAX_WRITES} keys, not {len(self.keys)}")

    @classmethod
    def set(
        cls,
        writer: Candidacy | Writer,
        name: str | bytes,
        value: Value,
        *,
        ttl: float | None = None,
    ) -> Write:
        """Set the string `name` to `value`, for `ttl` seconds if given. Reply: True."""
        if ttl is None:
            return cls(writer, COMMAND, [name], ["SET", value])
        return cls(writer, COMMAND, [name], ["SET", value, "PX", _ttl_ms(ttl)])

    @classmethod
    def hset(
        cls, writer: Candidacy | Writer, name: str | bytes, mapping: Mapping[str | bytes, Value]
    ) -> Write:
        """Set the fields of `mapping` in the hash `name`. Reply: True."""
        return cls(writer, COMMAND, [name], ["HSET", *_flat("mapping", mapping)])

    @classmethod
    def xadd(
        cls,
        writer: Candidacy | Writer,
        name: str | bytes,
        fields: Mapping[str | bytes, Value],
        *,
        id: str | bytes = "*",  # noqa: A002
        maxlen: int | None = None,
    ) -> Write:
        """Append an entry to the stream `name`. Reply: its id.

        Args:
            writer: the writer.
            name: the stream's key.
            fields: the entry's fields, at least one.
            id: the entry's id. By default Redis chooses it.
            maxlen: about how many entries the stream keeps. All by default.
        """
        trim: list[Value] = []
        if maxlen is not None:
            if type(maxlen) is not int or maxlen < 0:
                raise ConfigError(f"maxlen must be a whole number from 0 on, not {maxlen!r}")
            trim = ["MAXLEN", "~", maxlen]
        return cls(writer, COMMAND, [name], ["XADD", *trim, id, *_flat("fields", fields)])

    @classmethod
    def run(
        cls,
        writer: Candidacy | Writer,
        script: FencedScript,
        keys: Iterable[str | bytes] = (),
        arguments: Iterable[Value] = (),
    ) -> Write:
        """Run the body of `script` with these KEYS and ARGV. Reply: what the body returns."""
        return cls(writer, script, keys, arguments)

    def __repr__(self) -> str:
        what = self.arguments[0].decode() if self.is_command else "a script"
        return f"<Write of {what} for {decode_key(self.key)!r} under epoch {self.epoch}>"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one write of many.

    Attributes:
        reply: the reply to the write; None if there is an error.
        error: why the write was not made, or may not have been made. `StaleEpochError`: a newer
            epoch is known. `redis.ResponseError`: Redis or the body refused it.
            `redis.ConnectionError` or `redis.TimeoutError`: the outcome is unknown.
    """

    reply: Any = None
    error: Exception | None = None

    @property
    def is_written(self) -> bool:
        """Whether the write was made."""
        return self.error is None

    @property
    def is_stale(self) -> bool:
        """Whether the write was refused for its epoch. Nothing was written."""
        return isinstance(self.error, StaleEpochError)


@dataclass
class WriteBatch:
    """The writes that one script makes.

    Attributes:
        script: the body of all the writes.
        keys: the script's KEYS.
        arguments: the script's ARGV.
        writes: the writes, each with its place in the caller's order.
        size_bytes: the size of the writes.
    """

    script: FencedScript
    keys: list[bytes] = field(default_factory=list)
    arguments: list[bytes] = field(default_factory=list)
    writes: list[tuple[int, Write]] = field(default_factory=list)
    size_bytes: int = 0

    def takes(self, write: Write) -> bool:
        """Return whether there is room for `write`."""
        return (
            len(self.writes) < MAX_WRITES
            and len(self.keys) + len(write.keys) + 2 <= MAX_KEYS
            and self.size_bytes + _size_bytes(write) <= MAX_BYTES
        )

    @property
    def sent(self) -> tuple[Any, ...]:
        """The arguments of EVAL and EVALSHA that follow the script."""
        return len(self.keys), *self.keys, *self.arguments

    def add(self, place: int, write: Write, layout: KeyLayout) -> None:
        """Add a write."""
        self.writes.append((place, write))
        self.size_bytes += _size_bytes(write)
        self.keys += [layout.epoch_key(write.key), layout.fence_key(write.key), *write.keys]
        self.arguments += [
            b"%d" % write.epoch,
            b"%d" % len(write.keys),
            b"%d" % len(write.arguments),
            *write.arguments,
        ]

    def outcomes(self, reply: Sequence[Sequence[Any]]) -> Iterable[tuple[int, Outcome]]:
        """Return the place and the outcome of each write, from the script's reply."""
        for (place, write), (code, value) in zip(self.writes, reply, strict=True):
            if code == 1:
                is_plain = write.is_command and write.arguments[0] != b"XADD"
                yield place, Outcome(reply=True if is_plain else value)
            elif code == 0:
                stale = StaleEpochError(decode_key(write.key), write.epoch, value)
                yield place, Outcome(error=stale)
            else:
                text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
                yield place, Outcome(error=_refused(write, text))

    def halves(self, layout: KeyLayout) -> tuple[WriteBatch, WriteBatch]:
        """Return two batches that have half of the writes each."""
        middle = len(self.writes) // 2
        parts = WriteBatch(self.script), WriteBatch(self.script)
        for number, (place, write) in enumerate(self.writes):
            parts[number >= middle].add(place, write, layout)
        return parts

    def report_superseded(self, outcomes: Sequence[Outcome]) -> None:
        """Report the epochs for which writes were refused to the nodes of this process.

        Args:
            outcomes: the outcomes of all writes, in the caller's order.
        """
        for place, write in self.writes:
            error, candidacy = outcomes[place].error, write.candidacy
            if candidacy is not None and isinstance(error, StaleEpochError):
                # With the write's epoch, as the node may have won the election again since.
                learn_epoch(candidacy, term_epoch=write.epoch, newest_epoch=error.newest_epoch)

    def failed(self, error: Exception) -> Iterable[tuple[int, Outcome]]:
        """Return the place of each write, with `error` as its outcome."""
        for place, _ in self.writes:
            yield place, Outcome(error=error)


def packed(writes: Sequence[Write], layout: KeyLayout, *, spans_buckets: bool) -> list[WriteBatch]:
    """Return a small number of scripts that make these writes.

    The writes of one election are made in the order given. Elections have no order among them.

    Args:
        writes: the writes.
        layout: the key names of the elections.
        spans_buckets: whether one script may serve several buckets. In Redis Cluster it may not.
    """
    batches: list[WriteBatch] = []
    newest: dict[tuple[FencedScript, int], int] = {}
    latest_of_election: dict[bytes, int] = {}
    for place, write in enumerate(writes):
        kind = (write.script, 0 if spans_buckets else layout.bucket(write.key))
        number = newest.get(kind, -1)
        # A write may not be sent before an earlier write of its election.
        if number < latest_of_election.get(write.key, 0) or not batches[number].takes(write):
            number = newest[kind] = len(batches)
            batches.append(WriteBatch(write.script))
        batches[number].add(place, write, layout)
        latest_of_election[write.key] = number
    return batches


_BY_CODE: dict[str, type[redis.ResponseError]] = {
    "OOM": redis.exceptions.OutOfMemoryError,
    "READONLY": redis.exceptions.ReadOnlyError,
}
"""redis-py's classes for errors that servers before 7.0 return inside a script."""


def _refused(write: Write, text: str) -> redis.ResponseError:
    if refusal_in(text) is None:
        code, _, words = text.partition(" ")
        kind = _BY_CODE.get(code)
        return redis.ResponseError(text) if kind is None else kind(words)
    if write.is_command:
        # The fence's own script names the commands that it calls itself.
        text = naming(text, write.arguments[0].decode())
    return NoPermissionError(text)


def _size_bytes(write: Write) -> int:
    return sum(map(len, write.arguments)) + sum(map(len, write.keys))


def _listed(what: str, values: Iterable[Any]) -> Iterable[Any]:
    if isinstance(values, (str, bytes)):
        raise ConfigError(f"{what} must be a list, not one {type(values).__name__}: {values!r}")
    return values


def _redis_key(name: str | bytes) -> bytes:
    if not isinstance(name, (str, bytes)):
        raise ConfigError(f"a Redis key must be str or bytes, not {type(name).__name__}")
    if not name:
        raise ConfigError("a Redis key must not be empty")
    return _encoded(name)


def _encoded(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(f"a value must be str, bytes, int or float, not {value!r}")
    text = value if isinstance(value, str) else repr(value)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ConfigError(f"a value must be text that UTF-8 can hold: {error}") from error


def _flat(what: str, mapping: Mapping[str | bytes, Value]) -> list[Value]:
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{what} must be a mapping, not {type(mapping).__name__}")
    if not 1 <= len(mapping) <= MAX_FIELDS:
        raise ConfigError(f"{what} must have 1 to {MAX_FIELDS} fields, not {len(mapping)}")
    return [part for item in mapping.items() for part in item]


def _ttl_ms(ttl: float) -> int:
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise ConfigError(f"ttl must be a number of seconds, not {ttl!r}")
    if not 0.001 <= ttl <= 1e10:
        raise ConfigError(f"ttl must be from 0.001 to 1e10 seconds, not {ttl!r}")
    return round(ttl * 1000)
