"""Messages of a Kafka topic by partition and offset; no group is joined, and no offset is kept in Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from mainspring.adapters.kafka.problems import silent, turned
from mainspring.errors import ConfigError
from mainspring.ports.source import SourceSettings

__all__ = ["KafkaTopic", "open_source"]

_MESSAGES = 10_000
_POLL_SECONDS = 0.5
_SCHEMA = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("at", pa.timestamp("us", "UTC")),
        ("key", pa.binary()),
        ("value", pa.binary()),
    ]
)


class KafkaTopic:
    """One topic.

    Args:
        settings: ``kafka://host:port,host:port/topic``, and librdkafka's options with ``_`` for their points.

    Raises:
        ConfigError: MS-3042, the URL names no topic, or an option is none.
    """

    def __init__(self, settings: SourceSettings) -> None:
        brokers, _, topic = settings.url.partition("://")[2].partition("/")
        self._topic = unquote(topic.strip("/"))
        self.place = f"{brokers.rpartition('@')[2]}/{self._topic}"
        if not brokers or not self._topic or "@" in brokers:
            raise ConfigError(
                f"{self.place} names no topic",
                code="MS-3042",
                why="it is kafka://host:port/topic, without credentials",
                origin="sources.NAME.url",
                fix="correct it; credentials belong into sources.NAME.options",
            )
        self._connect, self._patience = settings.connect_timeout, min(settings.timeout, 60.0)
        self._config: dict[str, Any] = {
            "bootstrap.servers": brokers,
            "group.id": "mainspring",  # the driver wants one; it is never joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "socket.connection.setup.timeout.ms": max(1000, round(settings.connect_timeout * 1000)),
            "log_level": 2,
            **{name.replace("_", "."): value for name, value in settings.options.items()},
        }
        self._opened: Consumer | None = None

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._topic

    def ends(self) -> Mapping[int, tuple[int, int]]:
        """Of each partition the first offset that is still there, and the one after the last."""
        with self._turning():
            consumer = self._consumer()
            described = consumer.list_topics(self._topic, timeout=self._connect).topics[self._topic]
            if described.error is not None:
                raise turned(described.error, self.place)
            return {
                number: consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=self._connect)
                for number in sorted(described.partitions)
            }

    def messages(self, begin: Mapping[int, int], end: Mapping[int, int]) -> Iterator[pa.RecordBatch]:
        """The messages of each partition from one offset up to another."""
        left = {number: offset for number, offset in end.items() if begin[number] < offset}
        if not left:
            return
        with self._turning():
            consumer = self._consumer()
            consumer.assign([TopicPartition(self._topic, number, begin[number]) for number in left])
            heard = time.monotonic()
            try:
                while left:
                    found = consumer.consume(_MESSAGES, timeout=_POLL_SECONDS)
                    if found:
                        heard = time.monotonic()
                    elif time.monotonic() - heard > self._patience:
                        raise silent(self.place, self._patience)
                    rows = [message for message in found if self._wanted(message, left)]
                    if rows:
                        yield _batch(rows)
            finally:
                consumer.unassign()

    def answers(self) -> Mapping[str, object]:
        """How many partitions and messages there are."""
        ends = self.ends()
        return {"partitions": len(ends), "messages": sum(high - low for low, high in ends.values())}

    def close(self) -> None:
        """Leave the brokers."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _wanted(self, message: Any, left: dict[int, int]) -> bool:
        """Whether a message lies before its partition's end; a partition that is at its end is left no more."""
        error, number = message.error(), message.partition()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise turned(error, self.place)
        if number not in left:
            return False
        wanted = error is None and message.offset() < left[number]
        if error is not None or message.offset() >= left[number] - 1:
            del left[number]
        return wanted

    def _consumer(self) -> Consumer:
        if self._opened is None:
            self._opened = Consumer(self._config)
        return self._opened

    @contextmanager
    def _turning(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise turned(error, self.place) from error


def _batch(messages: list[Any]) -> pa.RecordBatch:
    at = [message.timestamp()[1] * 1000 for message in messages]
    return pa.RecordBatch.from_arrays(
        [
            pa.array([message.partition() for message in messages], pa.int32()),
            pa.array([message.offset() for message in messages], pa.int64()),
            pa.array(at, pa.int64()).cast(pa.timestamp("us", "UTC")),
            pa.array([message.key() for message in messages], pa.binary()),
            pa.array([message.value() for message in messages], pa.binary()),
        ],
        schema=_SCHEMA,
    )


def open_source(settings: SourceSettings, state: Path) -> KafkaTopic:
    """A topic that a source is in; nothing is connected yet."""
    return KafkaTopic(settings)
