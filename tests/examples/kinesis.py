"""Kinesis as moto serves it over HTTP, put right where it differs from AWS in what is tested here.

moto 5.2 lets a closed shard take records still, moves the records of a split shard, never ends the
iterator of a closed shard, and takes the name of the stream with a NextToken. In Kinesis, as the
API reference has it (SplitShard, MergeShards, GetRecords, ListShards): from the reshard on records
go to the children, what the parent held stays in the parent, at the end of a closed shard
NextShardIterator is null, and the name is refused with a token. `corrected` and `paged` make it so.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import boto3
from botocore.config import Config
from moto.core.exceptions import JsonRESTError
from moto.kinesis import models
from moto.kinesis.utils import decompose_shard_iterator
from moto.server import ThreadedMotoServer

STREAM = "orders"
HASHES = 2**128


class Kinesis:
    """One stream on a server of its own, with what tests ask and do to it.

    Attributes:
        url: the server's endpoint.
        reads: when GetRecords was called, for each shard, in seconds of the monotonic clock.
        refusals: with what error code the next GetRecords of a shard are refused.
        page_size: how many shards ListShards gives at once.
        listing_fails: whether ListShards fails.
    """

    def __init__(self, url: str, shards: int) -> None:
        self.url = url
        self.client = boto3.client(
            "kinesis",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(max_pool_connections=100),
        )
        self.client.create_stream(StreamName=STREAM, ShardCount=shards)
        self.reads: dict[str, list[float]] = defaultdict(list)
        self.refusals: dict[str, list[str]] = defaultdict(list)
        self.page_size = 1000
        self.listing_fails = False

    def shards(self) -> dict[str, dict[str, Any]]:
        described = self.client.describe_stream(StreamName=STREAM)["StreamDescription"]
        return {shard["ShardId"]: shard for shard in described["Shards"]}

    def open_shards(self) -> list[str]:
        return [
            name
            for name, shard in self.shards().items()
            if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
        ]

    def append(self, count: int) -> None:
        """Append so many records to each open shard."""
        for name in self.open_shards():
            start = self.shards()[name]["HashKeyRange"]["StartingHashKey"]
            records = [
                {"Data": b"%d" % number, "PartitionKey": "any", "ExplicitHashKey": start}
                for number in range(count)
            ]
            self.client.put_records(StreamName=STREAM, Records=records)

    def split(self, shard: str) -> None:
        hashes = self.shards()[shard]["HashKeyRange"]
        middle = (int(hashes["StartingHashKey"]) + int(hashes["EndingHashKey"])) // 2
        self.client.split_shard(
            StreamName=STREAM, ShardToSplit=shard, NewStartingHashKey=str(middle)
        )

    def merge(self, one: str, other: str) -> None:
        self.client.merge_shards(StreamName=STREAM, ShardToMerge=one, AdjacentShardToMerge=other)


@contextmanager
def corrected(kinesis: Kinesis) -> Iterator[None]:
    """Make moto do as the API reference says; note its reads, and refuse what is to be refused."""
    split, merge = models.Stream.split_shard, models.Stream.merge_shards
    get_records = models.KinesisBackend.get_records
    reads, refusals = kinesis.reads, kinesis.refusals

    def stay(stream: models.Stream, names: tuple[str, ...], reshard: Any, *arguments: str) -> None:
        kept = {name: stream.shards[name].records for name in names}
        for name in names:
            stream.shards[name].records = OrderedDict()
        reshard(stream, *arguments)
        for name in names:
            stream.shards[name].records = kept[name]

    def splits(stream: models.Stream, shard: str, start: str) -> None:
        stay(stream, (shard,), split, shard, start)

    def merges(stream: models.Stream, one: str, other: str) -> None:
        stay(stream, (one, other), merge, one, other)

    def shard_of(stream: models.Stream, key: str, explicit: str) -> models.Shard:
        hashed = int(explicit)
        (found,) = (
            shard
            for shard in stream.shards.values()
            if shard.is_open and shard.starting_hash <= hashed <= shard.ending_hash
        )
        return found

    def gets(backend: Any, arn: str | None, iterator: str, limit: int | None) -> Any:
        stream_name, shard_id, _ = decompose_shard_iterator(iterator)
        reads[shard_id].append(time.monotonic())
        if refusals[shard_id]:
            raise JsonRESTError(refusals[shard_id].pop(0), "as the test asked")
        following, records, behind = get_records(backend, arn, iterator, limit)
        shard = backend.describe_stream(None, stream_name).get_shard(shard_id)
        last = int(decompose_shard_iterator(following)[2])
        at_end = not shard.is_open and last >= shard.get_max_sequence_number()
        return None if at_end else following, records, behind

    with (
        mock.patch.object(models.Stream, "split_shard", splits),
        mock.patch.object(models.Stream, "merge_shards", merges),
        mock.patch.object(models.Stream, "get_shard_for_key", shard_of),
        mock.patch.object(models.KinesisBackend, "get_records", gets),
    ):
        yield


@contextmanager
def paged(kinesis: Kinesis) -> Iterator[None]:
    """Have ListShards give its shards in pages, and refuse what the API reference says."""
    list_shards = models.KinesisBackend.list_shards

    def lists(
        backend: Any,
        stream_arn: str | None,
        stream_name: str | None,
        limit: int,
        next_token: str | None,
    ) -> Any:
        if kinesis.listing_fails:
            raise JsonRESTError("ResourceInUseException", "as the test asked")
        if next_token and (stream_arn or stream_name):
            raise JsonRESTError(
                "InvalidArgumentException", "NextToken and StreamName cannot be given together"
            )
        begin = int(next_token or 0)
        end = begin + min(limit, kinesis.page_size)
        shards, _ = list_shards(backend, stream_arn, STREAM)
        return shards[begin:end], str(end) if end < len(shards) else None

    with mock.patch.object(models.KinesisBackend, "list_shards", lists):
        yield


@contextmanager
def serving(shards: int) -> Iterator[Kinesis]:
    """Serve a new stream of so many shards."""
    models.kinesis_backends.reset()
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        kinesis = Kinesis(f"http://{host}:{port}", shards)
        with corrected(kinesis), paged(kinesis):
            yield kinesis
    finally:
        server.stop()
