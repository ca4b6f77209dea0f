"""Kafka for tests: the brokers that librdkafka has inside, which speak the real protocol over real sockets.

What they do not have: retention, compaction, authentication, TLS, and what is kept over their end.
"""

import contextlib

from confluent_kafka import Producer


class Broker:
    """One broker; topics appear when they are written to, with four partitions."""

    def __init__(self):
        # Transactions are left out: the brokers inside do not hide what was not committed.
        self._producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "127.0.0.1:1", "log_level": 2})
        (broker,) = self._producer.list_topics(timeout=30).brokers.values()
        self.place = f"{broker.host}:{broker.port}"

    def make(self, topic):
        self._producer.list_topics(topic, timeout=30)

    def send(self, topic, partition, values, key=None):
        for value in values:
            self._producer.produce(topic, value, key=key, partition=partition)
            self._producer.poll(0)
        assert self._producer.flush(60) == 0


@contextlib.contextmanager
def running():
    yield Broker()
