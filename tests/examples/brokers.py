"""A Kafka that comes without Java: the mock cluster within librdkafka, on a real TCP port.

It keeps topics in memory and answers Metadata, ListOffsets, Produce and Fetch as a broker does.
It has no retention, no transactions and no security, so those are not tested here.
"""

from __future__ import annotations

from confluent_kafka import Producer

PARTITIONS = 4
"""What the mock gives a topic."""


class MockKafka:
    """A cluster of one broker, and a producer for it. It ends with the object."""

    def __init__(self) -> None:
        self._producer = Producer(
            {"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 0}
        )
        (broker,) = self._producer.list_topics(timeout=10).brokers.values()
        self.address = f"{broker.host}:{broker.port}"

    def append(self, topic: str, count: int) -> None:
        """Append so many records to each partition of a topic; its first makes it."""
        for number in range(count):
            for partition in range(PARTITIONS):
                self._producer.produce(topic, value=str(number).encode(), partition=partition)
            self._producer.poll(0)
        assert self._producer.flush(10) == 0
