"""Consume a Kafka topic whose partitions are each read by the node that leads them.

    python examples/kafka_consumer.py --kafka localhost:9092 --topic orders --redis redis://localhost

Start it on as many machines as you like. There is no consumer group: `multielect` says who reads
which partition, `aiokafka` reads it, and Redis keeps how far it got.

Rules of this file:
    * One election a partition. Only its leader reads it, in order, from the checkpoint on.
    * One `AIOKafkaConsumer` a node, with the partitions assigned that this node leads.
    * A checkpoint is written under the epoch of the term that read the records, so a node that
      lost its partition and does not know it yet cannot move it.
    * A partition is handed over only when the record in hand is done and the checkpoint is
      written: nothing is then handled twice. After a crash, what followed the last checkpoint is.
    * All partitions that are to be handed over are so side by side.
    * A handler that raises costs the term: the partition goes on with that record, here or on
      another node. A record that can never be handled is for the handler to set aside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import click
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from redis.asyncio import Redis

from multielect import ClosedError, DemotionReason, StaleEpochError, Term
from multielect.aio import ElectionGroup
from multielect.fencing import AsyncFence

RECORDS_A_COMMIT = 100
LOOK_FOR_PARTITIONS_S = 0.5
"""Looks at what the client knows; that asks Kafka every `metadata_max_age_ms`."""

ASSIGN_TOGETHER_S = 0.01
"""`assign` replaces all that was assigned, and what was fetched ahead is fetched again: so what
comes and goes within this time is assigned at once."""

log = logging.getLogger("kafka_consumer")


@dataclass
class Reading:
    """One partition being read, in one term."""

    term: Term
    partition: TopicPartition
    stopping: bool = False
    is_fetching: bool = False
    task: asyncio.Task[None] = field(init=False)

    def goes_on(self) -> bool:
        """Tell whether the next record may be begun."""
        return self.term.is_leader and not self.stopping


class PartitionConsumer:
    """Handles the records of the partitions that this node leads. Made and used in one loop."""

    def __init__(
        self,
        redis_url: str,
        kafka: AIOKafkaConsumer,
        topic: str,
        handle: Callable[[ConsumerRecord], Awaitable[None]],
        *,
        prefix: str,
        ttl: float = 10.0,
        drain_timeout: float = 10.0,
    ) -> None:
        self._kafka = kafka
        self._topic = topic
        self._handle = handle
        self._redis = Redis.from_url(redis_url)
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
        self._fence = AsyncFence(self._redis, self._group)
        self._readings: dict[str, Reading] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._assigning: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until `stop` is set, then hand everything over."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._redis.aclose)
            stack.push_async_callback(self._close)
            await self._kafka.start()
            self._assign()  # nothing yet; it makes the client ask for the topics that there are
            await stack.enter_async_context(self._group)
            while not stop.is_set():
                numbers = self._kafka.partitions_for_topic(self._topic) or ()
                self._group.add_many(f"{self._topic}-{number}" for number in sorted(numbers))
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stop.wait(), LOOK_FOR_PARTITIONS_S)
            await self._group.drain()

    # ---- what the group tells: for one partition in order, and never two at once

    def _begin(self, term: Term) -> None:
        topic, _, number = term.key.rpartition("-")
        reading = Reading(term, TopicPartition(topic, int(number)))
        self._readings[term.key] = reading
        reading.task = asyncio.create_task(self._read(reading))

    async def _drain(self, term: Term, _deadline: float) -> None:
        await self._stop(self._readings[term.key])
        term.finish_drain()

    async def _end(self, term: Term, reason: DemotionReason) -> None:
        log.info("%s: epoch %d ended, %s", term.key, term.epoch, reason.name)
        await self._stop(self._readings.pop(term.key))

    async def _stop(self, reading: Reading) -> None:
        reading.stopping = True
        if reading.is_fetching:
            reading.task.cancel()  # it waits for records, and has none in hand
        await asyncio.wait({reading.task})

    # ---- one partition

    async def _read(self, reading: Reading) -> None:
        term, partition = reading.term, reading.partition
        name = self._fence.data_key(term.key, "offset")
        try:
            # Read after the election: no older leader can move it any more.
            position = int(await self._redis.get(name) or 0)
            log.info("%s: epoch %d begins at offset %d", term.key, term.epoch, position)
            self._positions[partition] = position
            # Not before: the client may still hold what it fetched for an older term, from where
            # that one stood. Shielded, as others wait for the same.
            await asyncio.shield(self._assign_soon())
            while reading.goes_on():
                done = position
                try:
                    for record in await self._fetch(reading):
                        if not reading.goes_on():
                            break
                        await self._handle(record)
                        done = record.offset + 1
                finally:
                    # Also where the handler raised: what it did before is done.
                    if done != position:
                        await self._fence.set(term, name, done)
                        position = done
        except Exception as error:
            if isinstance(error, StaleEpochError):
                log.warning("%s: not committed: %s", term.key, error)
            else:
                log.exception("%s: failed, and given up for one TTL", term.key)
            # Nobody reads any more: without this the partition would stand still under a good
            # lease.
            with contextlib.suppress(ClosedError):
                term.resign()
        finally:
            self._positions.pop(partition, None)
            self._assign_soon()

    async def _fetch(self, reading: Reading) -> list[ConsumerRecord]:
        reading.is_fetching = True
        try:
            fetched = await self._kafka.getmany(
                reading.partition, timeout_ms=60_000, max_records=RECORDS_A_COMMIT
            )
        finally:
            reading.is_fetching = False
        records: list[ConsumerRecord] = fetched.get(reading.partition, [])
        if records:
            self._positions[reading.partition] = records[-1].offset + 1
        return records

    # ---- the one consumer

    def _assign_soon(self) -> asyncio.Task[None]:
        """Have all assigned that is read now; the task ends when each is where it is to be read."""
        if self._assigning is None:
            self._assigning = asyncio.create_task(self._assign_together())
        return self._assigning

    async def _assign_together(self) -> None:
        await asyncio.sleep(ASSIGN_TOGETHER_S)
        self._assigning = None
        self._assign()

    def _assign(self) -> None:
        self._kafka.assign(list(self._positions))
        for partition, position in self._positions.items():
            self._kafka.seek(partition, position)

    async def _close(self) -> None:
        if self._assigning is not None:
            self._assigning.cancel()
        await self._kafka.stop()


async def _consume(servers: str, topic: str, work: float, redis_url: str, **settings: Any) -> None:  # noqa: ANN401
    async def handle(record: ConsumerRecord) -> None:
        await asyncio.sleep(work)
        click.echo(f"{record.topic}-{record.partition} {record.offset} {record.value!r}")

    stop = asyncio.Event()
    for ending in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(ending, stop.set)
    # A checkpoint that Kafka has deleted since, or none: go on with the oldest record there is.
    kafka = AIOKafkaConsumer(bootstrap_servers=servers, group_id=None, auto_offset_reset="earliest")
    await PartitionConsumer(redis_url, kafka, topic, handle, **settings).run(stop)


@click.command(context_settings={"show_default": True})
@click.option("--kafka", "servers", default="localhost:9092", help="Brokers to begin with.")
@click.option("--topic", required=True, help="The topic to consume, all partitions of it.")
@click.option("--redis", "redis_url", default="redis://localhost:6379/0", help="Redis or Valkey.")
@click.option("--prefix", default="kafka-consumer", help="Nodes of one prefix share the work.")
@click.option("--ttl", default=10.0, help="Seconds until a dead node's partitions go on elsewhere.")
@click.option("--drain-timeout", default=10.0, help="Seconds for the record in hand at a handover.")
@click.option("--work", default=0.0, help="Seconds that each record is pretended to take.")
def main(**settings: Any) -> None:  # noqa: ANN401
    """Print the records of a Kafka topic, each partition read by one node at a time.

    Start it twice, and the two share the partitions. Stop one with Ctrl-C: it finishes the
    record in hand, commits, and the other goes on with the next. Kill one with kill -9: after
    the TTL the other goes on from the last checkpoint, and the records since then come twice.

    The checkpoints are in Redis. Another --prefix begins at the oldest record again.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    asyncio.run(_consume(**settings))


if __name__ == "__main__":
    main()
