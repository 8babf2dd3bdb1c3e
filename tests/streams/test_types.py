"""What a type checker says of users' handlers: a bare `Batch` is enough, and means what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import multielect

PROGRAM = """
from typing_extensions import assert_type

from multielect.fencing import AsyncFence, Fence
from multielect.streams import AsyncBatch, AsyncStreamConsumer, Batch, StreamConsumer

def handle(batch: Batch) -> None:
    assert_type(batch.fence, Fence)
    assert_type(batch.fence.set(batch.writer, "name", 1), bool)

def handle_named(batch: Batch[Fence]) -> None:
    handle(batch)

async def handle_in_a_loop(batch: AsyncBatch) -> None:
    assert_type(batch.fence, AsyncFence)
    assert_type(await batch.fence.set(batch.writer, "name", 1), bool)

async def handle_named_in_a_loop(batch: Batch[AsyncFence]) -> None:
    await handle_in_a_loop(batch)

for each in (handle, handle_named):
    StreamConsumer("redis://", prefix="p", partitions=["s"], handler=each)
for one in (handle_in_a_loop, handle_named_in_a_loop):
    AsyncStreamConsumer("redis://", prefix="p", partitions=["s"], handler=one)
"""

WRONG = """
from multielect.streams import AsyncStreamConsumer, Batch

async def handle(batch: Batch) -> None: ...

AsyncStreamConsumer("redis://", prefix="p", partitions=["s"], handler=handle)
"""


def said_of(program: str, folder: Path) -> tuple[str, int]:
    """Return what mypy says, strict, of a program outside of this repository."""
    path = folder / "program.py"
    path.write_text(program)
    # As for a user: this package is installed, and brings its types.
    assert multielect.__file__ is not None
    (folder / "mypy.ini").write_text(
        f"[mypy]\nmypy_path = {Path(multielect.__file__).parent.parent}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.10", str(path)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr, done.returncode


def test_a_bare_batch_is_that_of_a_consumer_of_threads(tmp_path: Path) -> None:
    said, code = said_of(PROGRAM, tmp_path)
    assert code == 0, said


def test_a_batch_of_the_other_kind_is_an_error_that_names_both(tmp_path: Path) -> None:
    said, code = said_of(WRONG, tmp_path)
    assert code == 1
    assert "Batch[Fence]" in said
    assert "Batch[AsyncFence]" in said
