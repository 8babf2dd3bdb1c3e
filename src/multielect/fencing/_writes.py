"""Fenced writes as data: who writes, what, in which scripts, and what became of it.

Rules of this file:
    * No I/O: `fencing` sends what is packed here and hands back the answers.
    * A write is checked, turned into bytes and given its epoch when it is made. One that came
      about can be sent.
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
"""What one script is given; a single write may have more bytes, and then travels alone."""

MAX_FIELDS = 3_500
"""Lua passes on some 8,000 arguments at once, and a field takes two."""

Value = str | bytes | int | float
"""What Redis can hold; text becomes UTF-8."""


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Says who writes where there is no `Term` at hand, as in another process.

    Attributes:
        epoch: the epoch under which the work was begun.
        key: the election's key in its group; empty for an `Elector`.

    Raises:
        ConfigError: for a key that is not allowed, or an epoch that none can be.
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

    The body is a constant of your program, made once: data goes through KEYS and ARGV, which
    are the body's own, so that no data is ever taken for code and Redis keeps one script, not
    one for each value. What it returns is the write's reply.

    A body is not rolled back. If it fails half way, the write is reported as failed, and what
    the body had done until then stays, under an epoch that had the right to do it: put all
    that can fail (a key of another type, above all) before the first command that writes.

    Args:
        body: Lua, as one would pass to EVAL, without a ``#!`` line.

    Raises:
        ConfigError: for a body that is no text, empty, or names flags of its own.
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
            raise ConfigError("a body must have no '#!' line: the fence writes the first line")
        self.body = body
        self.with_flags = fenced(body, flags=True)
        self.without_flags = fenced(body, flags=False)


COMMAND = FencedScript("return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))")


class Write:
    """One write and who makes it, to be carried out by `Fence.write_many`.

    A write is made by one of the four methods below, which touch nothing yet. Each takes the
    writer's epoch at that moment, and raises

    * `ConfigError` for a key, value or epoch that Redis cannot take,
    * `NotLeaderError` for a writer that has never led.
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
        """Use `set`, `hset`, `xadd` and `run`."""
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
        """Set the string `name` to `value`, to end after `ttl` seconds if given. Reply: True."""
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
            writer: who writes.
            name: the stream's key.
            fields: what the entry holds, at least one field.
            id: the entry's id; Redis chooses by default.
            maxlen: about how many entries the stream keeps; all by default.
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
        """Run the body of `script` with these KEYS and ARGV. Reply: what it returns."""
        return cls(writer, script, keys, arguments)

    def __repr__(self) -> str:
        what = self.arguments[0].decode() if self.is_command else "a script"
        return f"<Write of {what} for {decode_key(self.key)!r} under epoch {self.epoch}>"


@dataclass(frozen=True)
class Outcome:
    """What became of one write of many.

    Attributes:
        reply: what it answered; None unless it was made.
        error: why it was not made, or may not have been: `StaleEpochError` if a newer epoch is
            known; `redis.ResponseError` if Redis or the body refused; `redis.ConnectionError`
            or `redis.TimeoutError` where nobody can tell.
    """

    reply: Any = None
    error: Exception | None = None

    @property
    def is_written(self) -> bool:
        """Whether the write was made."""
        return self.error is None

    @property
    def is_stale(self) -> bool:
        """Whether it was refused for its epoch, and nothing done."""
        return isinstance(self.error, StaleEpochError)


@dataclass
class WriteBatch:
    """What one script serves.

    Attributes:
        script: the body of all its writes.
        keys: its KEYS.
        arguments: its ARGV.
        writes: its writes, each with its place in the order that was given.
    """

    script: FencedScript
    keys: list[bytes] = field(default_factory=list)
    arguments: list[bytes] = field(default_factory=list)
    writes: list[tuple[int, Write]] = field(default_factory=list)
    size_bytes: int = 0

    def takes(self, write: Write) -> bool:
        """Tell whether there is room for one more."""
        return (
            len(self.writes) < MAX_WRITES
            and len(self.keys) + len(write.keys) + 2 <= MAX_KEYS
            and self.size_bytes + _size_bytes(write) <= MAX_BYTES
        )

    @property
    def sent(self) -> tuple[Any, ...]:
        """What follows the script in EVAL and EVALSHA."""
        return len(self.keys), *self.keys, *self.arguments

    def add(self, place: int, write: Write, layout: KeyLayout) -> None:
        """Take one more."""
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
        """Read the script's reply: each write's place and outcome."""
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
        """Return the same as two scripts."""
        middle = len(self.writes) // 2
        parts = WriteBatch(self.script), WriteBatch(self.script)
        for number, (place, write) in enumerate(self.writes):
            parts[number >= middle].add(place, write, layout)
        return parts

    def report_superseded(self, outcomes: Sequence[Outcome]) -> None:
        """Have the nodes of this process know by which epochs their writes were refused.

        Args:
            outcomes: those of all writes, in the order that was given.
        """
        for place, write in self.writes:
            error, candidacy = outcomes[place].error, write.candidacy
            if candidacy is not None and isinstance(error, StaleEpochError):
                # Of the write's epoch: the election may have been won again since.
                learn_epoch(candidacy, term_epoch=write.epoch, newest_epoch=error.newest_epoch)

    def failed(self, error: Exception) -> Iterable[tuple[int, Outcome]]:
        """Give all its writes the same end."""
        for place, _ in self.writes:
            yield place, Outcome(error=error)


def packed(writes: Sequence[Write], layout: KeyLayout, *, spans_buckets: bool) -> list[WriteBatch]:
    """Return the fewest scripts, about, that make these writes.

    Writes of one election are made in the order given; among elections there is no order.

    Args:
        writes: what to do.
        layout: where the elections are.
        spans_buckets: whether one script may serve several buckets, as in Redis Cluster it
            may not.
    """
    batches: list[WriteBatch] = []
    newest: dict[tuple[FencedScript, int], int] = {}
    latest_of_election: dict[bytes, int] = {}
    for place, write in enumerate(writes):
        kind = (write.script, 0 if spans_buckets else layout.bucket(write.key))
        number = newest.get(kind, -1)
        # A batch is joined only where it is sent no earlier than what the election wrote before.
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
"""What servers before 7.0 say within a script, and redis-py has a class for."""


def _refused(write: Write, text: str) -> redis.ResponseError:
    if refusal_in(text) is None:
        code, _, words = text.partition(" ")
        kind = _BY_CODE.get(code)
        return redis.ResponseError(text) if kind is None else kind(words)
    if write.is_command:
        # Whatever the fence itself calls it has named.
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
