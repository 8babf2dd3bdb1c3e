"""That the page says what the tests of the recipes run."""

from __future__ import annotations

import re

import pytest
import redis
from tests.recipes import FENCING, as_psycopg, recipes

from multielect.fencing import Fence, FencedScript, Writer

from .elections import PREFIX, elect


def test_every_statement_of_the_page_is_named_and_found() -> None:
    assert set(recipes()) == {
        "checkpoint-table",
        "checkpoint-write",
        "checkpoint-claim",
        "fence-table",
        "fence-claim",
        "fence-guard",
    }
    assert FENCING.read_text("utf-8").count("```sql") == len(recipes())


def test_every_statement_that_writes_compares_the_epoch() -> None:
    for name, statement in recipes().items():
        if not name.endswith("-table"):
            assert "epoch <= " in statement
            assert ":epoch" in statement


def test_parameters_are_spelled_as_psycopg_wants_them() -> None:
    assert as_psycopg("WHERE epoch <= :epoch;") == "WHERE epoch <= %(epoch)s;"


def test_the_body_on_the_page_does_what_it_says(redis_client: redis.Redis) -> None:
    (body,) = re.findall(r'FencedScript\("""(.*?)"""\)', FENCING.read_text("utf-8"), re.DOTALL)
    book, fence = FencedScript(body), Fence(redis_client, PREFIX)
    writer = Writer(key="p", epoch=elect(redis_client))
    keys = [fence.data_key("p", "account"), fence.data_key("p", "journal")]
    fence.run(writer, book, keys, [250])
    fence.run(writer, book, keys, [-50])
    assert redis_client.hget(keys[0].decode(), "balance") == b"200"
    assert redis_client.xlen(keys[1]) == 2
    redis_client.hset(keys[0].decode(), "closed", "1")
    with pytest.raises(redis.ResponseError, match="CLOSED"):
        fence.run(writer, book, keys, [1])
