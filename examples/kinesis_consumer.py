"""Consume a Kinesis stream whose shards are each read by the node that leads them.

    python examples/kinesis_consumer.py --stream orders --redis redis://localhost

Start it on as many machines as you like. `multielect` says who reads which shard, `boto3` reads
it, and Redis keeps how far it got.

Rules of this file:
    * One election a shard, one thread for each that is led. It reads from the checkpoint on.
    * A checkpoint is written under the epoch of the term that read the records, so a node that
      lost its shard and does not know it yet cannot move it.
    * A shard that was split or merged is read to its end before anyone stands for its children:
      so records of one partition key stay in order.
    * A shard is handed over only when the record in hand is done and the checkpoint is written:
      nothing is then handled twice. After a crash, what followed the last checkpoint is.
    * All shards that are to be handed over are so side by side: no callback waits for a handler.
    * A handler that raises costs the term: the shard goes on with that record, here or on another
      node. A record that can never be handled is for the handler to set aside.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import click
import redis
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from multielect import ClosedError, DemotionReason, ElectionGroup, StaleEpochError, Term
from multielect.fencing import Fence

SHARD_END = "SHARD_END"
"""The checkpoint of a shard that is closed and was read to its end."""

READ_EVERY_S = 0.25
"""A shard takes five GetRecords a second, from all its readers together (Kinesis API reference,
GetRecords). Four leave one for the node that takes over within that second."""

AFTER_REFUSAL_S = 1.0
"""What the same page says to wait when the shard's throughput was exceeded."""

RECORDS_A_READ = 1000

log = logging.getLogger("kinesis_consumer")


@dataclass
class Reading:
    """One shard being read, in one term."""

    term: Term
    stopping: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread = field(init=False)

    def goes_on(self) -> bool:
        """Tell whether the next record may be begun."""
        return self.term.is_leader and not self.stopping.is_set()


class ShardConsumer:
    """Handles the records of the shards that this node leads; each shard on a thread."""

    def __init__(
        self,
        redis_url: str,
        kinesis: Any,  # noqa: ANN401  a client of boto3, which has no types
        stream: str,
        handle: Callable[[str, dict[str, Any]], None],
        *,
        prefix: str,
        ttl: float = 10.0,
        drain_timeout: float = 10.0,
        look_every: float = 5.0,
    ) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._handle = handle
        self._look_every_s = look_every
        self._redis = redis.Redis.from_url(redis_url, decode_responses=True)
        self._group = ElectionGroup(
            redis_url,
            prefix=prefix,
            ttl=ttl,
            balance=True,
            drain_timeout=drain_timeout,
            on_elected=self._begin,
            on_draining=self._drain,
            on_demoted=self._end,
        )
        self._fence = Fence(self._redis, self._group)
        self._readings: dict[str, Reading] = {}
        self._look_again = threading.Event()
        self._stopped = False

    def run(self) -> None:
        """Consume until `stop` is called or Ctrl-C pressed, then hand everything over."""
        with self._redis, self._group:
            try:
                while not self._stopped:
                    self._look()
                    self._look_again.wait(self._look_every_s)
                    self._look_again.clear()
            finally:
                self._group.drain()

    def stop(self) -> None:
        """Have `run` come to its end; from any thread."""
        self._stopped = True
        self._look_again.set()

    # ---- which shards there are to be read

    def _look(self) -> None:
        """Stand for what may be read now, and for nothing that is at its end or gone."""
        try:
            shards = {shard["ShardId"]: shard for shard in self._list_shards()}
            positions = self._redis.mget([self._position_key(shard) for shard in shards])
        except (BotoCoreError, ClientError, redis.RedisError) as error:
            log.warning("looking for shards failed, and is tried again: %s", error)
            return
        ended = {
            shard
            for shard, position in zip(shards, positions, strict=True)
            if position == SHARD_END
        }
        for shard, facts in shards.items():
            # A parent that is listed no more has outlived its records.
            parents = {facts.get("ParentShardId"), facts.get("AdjacentParentShardId")}
            if shard not in ended and parents & shards.keys() <= ended:
                self._group.add(shard)
        for shard in list(self._group):
            if shard in ended or shard not in shards:
                self._group.remove(shard)

    def _list_shards(self) -> Iterator[dict[str, Any]]:
        # Not by boto3's paginator: it names the stream in each call, and Kinesis refuses that from
        # the second page on (botocore issue 2009).
        page = self._kinesis.list_shards(StreamName=self._stream)
        yield from page["Shards"]
        while token := page.get("NextToken"):
            page = self._kinesis.list_shards(NextToken=token)
            yield from page["Shards"]

    # ---- what the group tells: for one shard in order, and never two at once

    def _begin(self, term: Term) -> None:
        reading, before = Reading(term), self._readings.get(term.key)
        reading.thread = threading.Thread(
            target=self._run, args=(reading, before), name=f"read {term.key}", daemon=True
        )
        self._readings[term.key] = reading
        reading.thread.start()

    def _drain(self, term: Term, _deadline: float) -> None:
        reading = self._readings[term.key]
        reading.stopping.set()
        if reading.over.is_set():
            term.finish_drain()
        # Else its thread says so: to wait for it here would hold up the callbacks of other shards.

    def _end(self, term: Term, reason: DemotionReason) -> None:
        log.info("%s: epoch %d ended, %s", term.key, term.epoch, reason.name)
        self._readings[term.key].stopping.set()

    # ---- one shard

    def _run(self, reading: Reading, before: Reading | None) -> None:
        if before is not None:
            before.thread.join()
        term = reading.term
        try:
            self._read(reading)
        except Exception as error:
            if isinstance(error, StaleEpochError):
                log.warning("%s: not committed: %s", term.key, error)
            else:
                log.exception("%s: failed, and given up for one TTL", term.key)
            # Nobody reads any more: without this the shard would stand still under a good lease.
            with contextlib.suppress(ClosedError):
                term.resign()
        finally:
            reading.over.set()
            if reading.stopping.is_set():
                with contextlib.suppress(ClosedError):
                    term.finish_drain()

    def _read(self, reading: Reading) -> None:
        term, refusals = reading.term, self._kinesis.exceptions
        name = self._position_key(term.key)
        # Read after the election: no older leader can move it any more.
        position: Any = self._redis.get(name)
        log.info("%s: epoch %d begins after %s", term.key, term.epoch, position)
        iterator = None if position == SHARD_END else self._iterator(term.key, position)
        while iterator is not None and reading.goes_on():
            due = time.monotonic() + READ_EVERY_S
            records, reached = [], position
            try:
                answer = self._kinesis.get_records(ShardIterator=iterator, Limit=RECORDS_A_READ)
                records, iterator = answer["Records"], answer.get("NextShardIterator")
            except refusals.ExpiredIteratorException:  # five minutes old, after a slow batch
                iterator = self._iterator(term.key, position)
            except refusals.ProvisionedThroughputExceededException:
                due += AFTER_REFUSAL_S
            try:
                for record in records:
                    if not reading.goes_on():
                        break
                    self._handle(term.key, record)
                    reached = record["SequenceNumber"]
                else:
                    reached = SHARD_END if iterator is None else reached
            finally:
                # Also where the handler raised: what it did before is done.
                if reached != position:
                    self._fence.set(term, name, reached)
                    position = reached
            if iterator is not None:
                reading.stopping.wait(max(0.0, due - time.monotonic()))
        if position == SHARD_END:
            self._look_again.set()  # its children may be read now

    def _iterator(self, shard: str, position: str | None) -> str:
        start = {"ShardIteratorType": "TRIM_HORIZON"}
        if position is not None:
            start = {
                "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
                "StartingSequenceNumber": position,
            }
        answer = self._kinesis.get_shard_iterator(StreamName=self._stream, ShardId=shard, **start)
        iterator: str = answer["ShardIterator"]
        return iterator

    def _position_key(self, shard: str) -> bytes:
        return self._fence.data_key(shard, "position")


@click.command(context_settings={"show_default": True})
@click.option("--stream", required=True, help="The stream to consume, all shards of it.")
@click.option("--redis", "redis_url", default="redis://localhost:6379/0", help="Redis or Valkey.")
@click.option("--prefix", default="kinesis-consumer", help="Nodes of one prefix share the work.")
@click.option("--ttl", default=10.0, help="Seconds until a dead node's shards go on elsewhere.")
@click.option("--drain-timeout", default=10.0, help="Seconds for the record in hand at a handover.")
@click.option("--endpoint-url", help="Another endpoint than that of AWS, as of a test server.")
@click.option("--work", default=0.0, help="Seconds that each record is pretended to take.")
def main(stream: str, endpoint_url: str | None, work: float, **settings: Any) -> None:  # noqa: ANN401
    """Print the records of a Kinesis stream, each shard read by one node at a time.

    Start it twice, and the two share the shards. Stop one with Ctrl-C: it finishes the record
    in hand, commits, and the other goes on with the next. Kill one with kill -9: after the TTL
    the other goes on from the last checkpoint, and the records since then come twice.

    The checkpoints are in Redis. Another --prefix begins at the oldest record again. Region and
    credentials come from where boto3 looks for them: AWS_PROFILE, AWS_DEFAULT_REGION, ...
    """

    def handle(shard: str, record: dict[str, Any]) -> None:
        time.sleep(work)
        click.echo(f"{shard} {record['SequenceNumber']} {record['Data']!r}")

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("botocore").setLevel(logging.WARNING)
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    # A call takes no longer than a drain may, its second try included, and each shard has a
    # connection of its own.
    config = Config(
        connect_timeout=2,
        read_timeout=4,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=250,
    )
    kinesis = boto3.client("kinesis", endpoint_url=endpoint_url, config=config)
    consumer = ShardConsumer(kinesis=kinesis, stream=stream, handle=handle, **settings)
    with contextlib.suppress(KeyboardInterrupt):
        consumer.run()


if __name__ == "__main__":
    main()
