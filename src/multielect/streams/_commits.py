"""The writes of a consumer: claims of checkpoints, and commits with their staged writes.

Rules of this file:
    * Each is one fenced script. A checkpoint moves together with the staged writes, or not at all.
    * A commit names the checkpoint that it expects and the one that it sets. So a commit that is
      sent twice is made once.
    * No I/O: this file makes writes for a fence, and reads their outcomes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import redis

from .._protocol.refusals import refusal_in
from .._protocol.scripts import Script, lua_text
from ..fencing._writes import FencedScript, Outcome, Value, Write, Writer
from ._reading import Reading, Work

MAX_FIELDS_SET_ASIDE = 3_000
"""Lua's `unpack` takes some 8,000 arguments at once, and a field needs two."""

MAX_MESSAGE_BYTES = 4_096

_CALLED = lua_text("called")
_COMMIT = _CALLED + lua_text("stream_commit")

CLAIM = FencedScript(_CALLED + lua_text("stream_claim"))
LAG = Script.of(_CALLED + lua_text("stream_lag"))

# Errors about the server, not about the batch.
_OF_THE_SERVER = (
    "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY",
    "UNBLOCKED", "UNKILLABLE",
)  # fmt: skip
# Errors from whose text redis-py removes the code.
_CODES = {
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
}


@dataclass(frozen=True)
class Step:
    """One write that is made together with a commit.

    Attributes:
        name: ``XADD``, ``HSET`` or ``SET``; or a script of the user's.
        keys: its keys.
        arguments: the command's arguments after the key, or the script's ARGV.
    """

    name: bytes | FencedScript
    keys: tuple[bytes, ...]
    arguments: tuple[bytes, ...]

    @classmethod
    def of(cls, write: Write) -> Step:
        """Return the step that makes a write."""
        if write.is_command:
            return cls(write.arguments[0], write.keys, write.arguments[1:])
        return cls(write.script, write.keys, write.arguments)


class Answer(enum.Enum):
    """The outcome of a claim or a commit."""

    DONE = enum.auto()
    STALE = enum.auto()
    """Another node was elected; nothing was written."""
    MOVED = enum.auto()
    """Another program set the checkpoint; nothing was written."""
    BLAMED = enum.auto()
    """A staged write could not be made."""
    UNKNOWN = enum.auto()
    """The outcome is unknown, or the server takes no writes now."""


@lru_cache(maxsize=256)
def _commit_script(bodies: tuple[FencedScript, ...]) -> FencedScript:
    functions = ",\n".join(f"function(KEYS, ARGV) {body.body}\nend" for body in bodies)
    return FencedScript(f"local bodies = {{{functions}}}\n{_COMMIT}")


def claim(reading: Reading, checkpoint_key: bytes, start: str) -> Write:
    """Return the write that asks for a reading's checkpoint, or creates it."""
    return Write.run(_writer(reading), CLAIM, [checkpoint_key, reading.partition.stream], [start])


def commit(work: Work, checkpoint_key: bytes, steps: Sequence[Step]) -> Write:
    """Return the write that moves a checkpoint past a batch."""
    places = {key: place for place, key in enumerate(dict.fromkeys(_keys_of(steps)), start=2)}
    own = dict.fromkeys(step.name for step in steps if isinstance(step.name, FencedScript))
    numbers = {script: number for number, script in enumerate(own, start=1)}
    arguments: list[Value] = [
        work.expected,
        work.through,
        len(work.entries),
        work.reading.term.epoch,
    ]
    for step in steps:
        name = step.name if isinstance(step.name, bytes) else numbers[step.name]
        arguments += [name, len(step.keys), *(places[key] for key in step.keys)]
        arguments += [len(step.arguments), *step.arguments]
    return Write.run(
        _writer(work.reading), _commit_script(tuple(numbers)), [checkpoint_key, *places], arguments
    )


def dead_letter(work: Work, into: bytes) -> Step:
    """Return the step that appends the one entry of a batch, and its error, to stream `into`."""
    (entry,) = work.entries
    cause = work.cause
    assert cause is not None
    about: dict[str, str | bytes] = {
        "partition": work.reading.partition.key,
        "stream": work.reading.partition.stream,
        "id": entry.id,
        "epoch": str(work.reading.term.epoch),
        "attempts": str(work.attempt),
        "error": f"{type(cause).__module__}.{type(cause).__qualname__}",
        "message": message_of(cause) if work.message is None else work.message,
    }
    kept = entry.flat[: 2 * MAX_FIELDS_SET_ASIDE]
    if len(kept) < len(entry.flat):
        about["left_out"] = str(len(entry.flat) // 2 - MAX_FIELDS_SET_ASIDE)
    arguments = [b"*"]
    for field, value in about.items():
        arguments += [_raw(field), _raw(value)]
    arguments += [part if at % 2 else b"field:" + part for at, part in enumerate(kept)]
    return Step(b"XADD", (into,), tuple(arguments))


def answer_to_claim(outcome: Outcome) -> tuple[Answer, str]:
    """Return the outcome of a claim, and the checkpoint."""
    if outcome.error is None:
        return Answer.DONE, _text(outcome.reply)
    return (Answer.STALE if outcome.is_stale else Answer.UNKNOWN), ""


def answer_to_commit(outcome: Outcome, *, has_steps: bool) -> Answer:
    """Return the outcome of a commit."""
    error = outcome.error
    if error is None:
        return Answer.MOVED if _text(outcome.reply[0]) == "MOVED" else Answer.DONE
    if outcome.is_stale:
        return Answer.STALE
    # An error of exactly this type came from a command in the script, not from the script call.
    if has_steps and type(error) is redis.ResponseError:
        return Answer.UNKNOWN if is_of_the_server(error) else Answer.BLAMED
    return Answer.UNKNOWN


def is_of_the_server(error: redis.ResponseError) -> bool:
    """Return whether an error is about the server, and not about the request."""
    refusal = refusal_in(error)
    if refusal is not None:
        return not refusal.is_of_keys
    return isinstance(error, tuple(_CODES)) or str(error).startswith(_OF_THE_SERVER)


def server_text(error: redis.ResponseError) -> str:
    """Return the server's own text of an error, its code first."""
    refusal = refusal_in(error)
    if refusal is not None:
        return f"NOPERM {refusal.text}"
    code = _CODES.get(type(error))
    return str(error) if code is None else f"{code} {error}"


def _writer(reading: Reading) -> Writer:
    # Not the term itself: a batch may be committed after its term ended, as long as no other node
    # was elected.
    return Writer(key=reading.term.key, epoch=reading.term.epoch)


def message_of(cause: BaseException) -> str:
    """Return an exception's text for the dead-letter stream."""
    try:
        return str(cause)[:MAX_MESSAGE_BYTES]
    # A user's `__str__` must not keep the entry out of the dead-letter stream.
    except BaseException as error:  # noqa: BLE001
        return f"(no text: {type(error).__qualname__})"


def _keys_of(steps: Iterable[Step]) -> Iterable[bytes]:
    return (key for step in steps for key in step.keys)


def _raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "backslashreplace")


def _text(value: Any) -> str:  # noqa: ANN401
    return value.decode() if isinstance(value, bytes) else str(value)
