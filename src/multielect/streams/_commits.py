"""The writes of a consumer: claims of checkpoints, and commits with all that goes with them.

Rules of this file:
    * Each is one fenced script. A checkpoint moves together with what was staged for the same
      step, or neither does.
    * A commit names the checkpoint that it expects and the one it makes, so that one which is
      sent twice is made once.
    * No I/O: these make writes for a fence, and read what it answered.
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
"""Lua passes on some 8,000 arguments at once, and a field takes two."""

MAX_MESSAGE_BYTES = 4_096

_CALLED = lua_text("called")
_COMMIT = _CALLED + lua_text("stream_commit")

CLAIM = FencedScript(_CALLED + lua_text("stream_claim"))
LAG = Script.of(_CALLED + lua_text("stream_lag"))

# What says something of the server, and nothing of the batch.
_OF_THE_SERVER = (
    "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY",
    "UNBLOCKED", "UNKILLABLE",
)  # fmt: skip
# From these redis-py takes the first word away.
_CODES = {
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.ReadOnlyError: "READONLY",
}


@dataclass(frozen=True)
class Step:
    """One thing that is done together with a commit.

    Attributes:
        name: ``XADD``, ``HSET`` or ``SET``; or a script of the user's.
        keys: its keys.
        arguments: what follows the key in the command, or the script's ARGV.
    """

    name: bytes | FencedScript
    keys: tuple[bytes, ...]
    arguments: tuple[bytes, ...]

    @classmethod
    def of(cls, write: Write) -> Step:
        """Return what a write does, whoever makes it."""
        if write.is_command:
            return cls(write.arguments[0], write.keys, write.arguments[1:])
        return cls(write.script, write.keys, write.arguments)


class Answer(enum.Enum):
    """What became of a claim or a commit."""

    DONE = enum.auto()
    STALE = enum.auto()
    """Another was elected; nothing was done."""
    MOVED = enum.auto()
    """Somebody else set the checkpoint; nothing was done."""
    BLAMED = enum.auto()
    """What was staged could not be done."""
    UNKNOWN = enum.auto()
    """Nobody can tell, or the server takes no writes now."""


@lru_cache(maxsize=256)
def _commit_script(bodies: tuple[FencedScript, ...]) -> FencedScript:
    functions = ",\n".join(f"function(KEYS, ARGV) {body.body}\nend" for body in bodies)
    return FencedScript(f"local bodies = {{{functions}}}\n{_COMMIT}")


def claim(reading: Reading, checkpoint_key: bytes, start: str) -> Write:
    """Return the write that asks for a reading's checkpoint, or makes it."""
    return Write.run(_writer(reading), CLAIM, [checkpoint_key, reading.partition.stream], [start])


def commit(work: Work, checkpoint_key: bytes, steps: Sequence[Step]) -> Write:
    """Return the write that moves a checkpoint on past a batch."""
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
    """Return the step that sets the one entry of a batch aside, with what it failed of."""
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
    """Return what became of a claim, and the checkpoint."""
    if outcome.error is None:
        return Answer.DONE, _text(outcome.reply)
    return (Answer.STALE if outcome.is_stale else Answer.UNKNOWN), ""


def answer_to_commit(outcome: Outcome, *, has_steps: bool) -> Answer:
    """Return what became of a commit."""
    error = outcome.error
    if error is None:
        return Answer.MOVED if _text(outcome.reply[0]) == "MOVED" else Answer.DONE
    if outcome.is_stale:
        return Answer.STALE
    # An error of exactly this type is one that the script met with, not one about the script.
    if has_steps and type(error) is redis.ResponseError:
        return Answer.UNKNOWN if is_of_the_server(error) else Answer.BLAMED
    return Answer.UNKNOWN


def is_of_the_server(error: redis.ResponseError) -> bool:
    """Whether an error says something of the server, and nothing of what was asked of it."""
    refusal = refusal_in(error)
    if refusal is not None:
        return not refusal.is_of_keys
    return isinstance(error, tuple(_CODES)) or str(error).startswith(_OF_THE_SERVER)


def words_of(error: redis.ResponseError) -> str:
    """Return what the server said, its code first."""
    refusal = refusal_in(error)
    if refusal is not None:
        return f"NOPERM {refusal.words}"
    code = _CODES.get(type(error))
    return str(error) if code is None else f"{code} {error}"


def _writer(reading: Reading) -> Writer:
    # Not the term itself: what was begun under it may be committed after it ended, as long as
    # nobody else was elected.
    return Writer(key=reading.term.key, epoch=reading.term.epoch)


def message_of(cause: BaseException) -> str:
    """Return the text of what was raised, as it is set aside."""
    try:
        return str(cause)[:MAX_MESSAGE_BYTES]
    # It was a user's to write, and must not keep the entry from being set aside.
    except BaseException as error:  # noqa: BLE001
        return f"(no text: {type(error).__qualname__})"


def _keys_of(steps: Iterable[Step]) -> Iterable[bytes]:
    return (key for step in steps for key in step.keys)


def _raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "backslashreplace")


def _text(value: Any) -> str:  # noqa: ANN401
    return value.decode() if isinstance(value, bytes) else str(value)
