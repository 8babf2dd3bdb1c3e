"""What a fence refuses before anything is sent, and how it names keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.crc import key_slot

from multielect import ConfigError, ElectionGroup
from multielect._protocol.keys import group_layout
from multielect.fencing import AsyncFence, Fence, FencedScript, Write, Writer

from .elections import PREFIX, elect

NOBODY = "redis://localhost:1"
WRITER = Writer(key="p", epoch=7)
SCRIPT = FencedScript("return 1")


def unused() -> Fence:
    return Fence(redis.Redis.from_url(NOBODY), PREFIX)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Writer(key="p", epoch=0), "from 1 to"),
        (lambda: Writer(key="p", epoch=-1), "from 1 to"),
        (lambda: Writer(key="p", epoch=2**53), "9007199254740991"),
        (lambda: Writer(key="p", epoch=1.0), "whole number"),  # type: ignore[arg-type]
        (lambda: Writer(key="p", epoch=True), "whole number"),
        (lambda: Writer(key="p", epoch="7"), "whole number"),  # type: ignore[arg-type]
        (lambda: Writer(key="k" * 513, epoch=7), "512"),
        (lambda: Writer(key=7, epoch=7), "str or bytes"),  # type: ignore[arg-type]
        (lambda: FencedScript(""), "empty"),
        (lambda: FencedScript(" \n"), "empty"),
        (lambda: FencedScript(b"return 1"), "str"),  # type: ignore[arg-type]
        (lambda: FencedScript("#!lua flags=allow-stale\nreturn 1"), "'#!'"),
        (lambda: Write.set("p", "name", 1), "a Term, an Election or a Writer"),  # type: ignore[arg-type]
        (lambda: Write.set(WRITER, "", 1), "empty"),
        (lambda: Write.set(WRITER, 7, 1), "Redis key"),  # type: ignore[arg-type]
        (lambda: Write.set(WRITER, "name", None), "value"),  # type: ignore[arg-type]
        (lambda: Write.set(WRITER, "name", True), "value"),
        (lambda: Write.set(WRITER, "name", "\ud800"), "UTF-8"),
        (lambda: Write.set(WRITER, "name", 1, ttl=0), "0.001"),
        (lambda: Write.set(WRITER, "name", 1, ttl=-1), "0.001"),
        (lambda: Write.set(WRITER, "name", 1, ttl=float("nan")), "0.001"),
        (lambda: Write.set(WRITER, "name", 1, ttl="1"), "number"),  # type: ignore[arg-type]
        (lambda: Write.hset(WRITER, "name", {}), "fields"),
        (lambda: Write.hset(WRITER, "name", [("a", 1)]), "mapping"),  # type: ignore[arg-type]
        (lambda: Write.hset(WRITER, "name", {"a": [1]}), "value"),  # type: ignore[dict-item]
        (lambda: Write.hset(WRITER, "name", dict.fromkeys(map(str, range(3501)), 1)), "3500"),
        (lambda: Write.xadd(WRITER, "name", {}), "fields"),
        (lambda: Write.xadd(WRITER, "name", {"a": 1}, maxlen=-1), "maxlen"),
        (lambda: Write.run(WRITER, "return 1"), "FencedScript"),  # type: ignore[arg-type]
        (lambda: Write.run(WRITER, SCRIPT, "name"), "list"),
        (lambda: Write.run(WRITER, SCRIPT, ["name"], "value"), "list"),
        (lambda: Write.run(WRITER, SCRIPT, ["name"] * 251), "250"),
        (lambda: unused().write_many([("p", 7)]), "Write.set"),  # type: ignore[list-item]
        (lambda: unused().set(Writer(epoch=7), "name", 1), "1 to 512 bytes"),
        (lambda: unused().data_key("p", "a:b"), "':'"),
        (lambda: unused().data_key("p", "epoch"), "epoch"),
        (lambda: unused().data_key("p", "leader"), "leader"),
        (lambda: unused().data_key("p", "fence"), "fence"),
        (lambda: unused().data_key("p", ""), "name"),
        (lambda: unused().data_key("p", b"name"), "str"),  # type: ignore[arg-type]
        (lambda: unused().data_key("", "name"), "1 to 512 bytes"),
        (lambda: Fence(redis.Redis(), "or{ders}"), "braces"),
        (lambda: Fence(redis.Redis(), PREFIX, buckets=0), "buckets"),
        (lambda: Fence(redis.Redis(), 7), "prefix"),  # type: ignore[arg-type]
        (
            lambda: Fence(redis.Redis(), ElectionGroup(NOBODY, prefix=PREFIX), buckets=256),
            "with a prefix only",
        ),
        (lambda: Fence(NOBODY, PREFIX), "redis.Redis"),  # type: ignore[arg-type]
        (lambda: Fence(redis.Redis().pipeline(), PREFIX), "write_many"),
        (lambda: Fence(redis.asyncio.Redis(), PREFIX), "redis.Redis"),  # type: ignore[arg-type]
        (lambda: AsyncFence(redis.Redis(), PREFIX), "redis.asyncio.Redis"),  # type: ignore[arg-type]
        (lambda: AsyncFence(redis.asyncio.Redis().pipeline(), PREFIX), "write_many"),
    ],
)
def test_bad_input_is_refused_where_it_enters(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_writer_of_another_group_is_refused(redis_client: redis.Redis) -> None:
    other = ElectionGroup(NOBODY, prefix="invoices")
    group = ElectionGroup(NOBODY, prefix=PREFIX, buckets=16)
    for writer in (other.add("p"), group.add("p")):
        # As if they had led: what matters is whose epochs these are.
        write = Write.run(WRITER, SCRIPT)
        write.layout = writer._node.layout
        with pytest.raises(ConfigError, match="their epochs are not comparable"):
            Fence(redis_client, PREFIX).write_many([write])


def test_another_number_of_buckets_is_refused(redis_client: redis.Redis) -> None:
    layout = group_layout(PREFIX, 16)
    epoch = elect(redis_client, layout=layout)
    redis_client.set(layout.buckets_key, 16)
    fence = Fence(redis_client, PREFIX)
    with pytest.raises(ConfigError, match="16 buckets, not 256"):
        fence.set(Writer(key="p", epoch=epoch), "register", 1)
    assert Fence(redis_client, PREFIX, buckets=16).set(Writer(key="p", epoch=epoch), "register", 2)


def test_a_fence_made_before_the_group_notices_its_buckets_later(
    redis_client: redis.Redis,
) -> None:
    fence = Fence(redis_client, PREFIX)
    assert fence.set(WRITER, "register", 1)
    redis_client.set(f"{PREFIX}:buckets", 16)
    with pytest.raises(ConfigError, match="16 buckets"):
        fence.set(WRITER, "register", 2)


def test_data_keys_share_the_slot_of_their_election() -> None:
    fence, layout = unused(), group_layout(PREFIX)
    for key in ("p", "a{b}c", "ä", "with:colon", b"\xff"):
        raw = key if isinstance(key, bytes) else key.encode()
        slot = key_slot(layout.epoch_key(raw))
        assert key_slot(fence.data_key(key, "offset")) == slot
        assert key_slot(f"audit:{fence.tag(key)}:log".encode()) == slot
        assert fence.data_key(key, "offset") == layout.epoch_key(raw)[: -len("epoch")] + b"offset"
    assert key_slot(layout.fence_key(b"p")) == key_slot(layout.epoch_key(b"p"))


def test_a_write_says_what_it_is() -> None:
    assert repr(Write.set(WRITER, "name", 1)) == "<Write of SET for 'p' under epoch 7>"
    assert repr(Write.run(WRITER, SCRIPT)) == "<Write of a script for 'p' under epoch 7>"
