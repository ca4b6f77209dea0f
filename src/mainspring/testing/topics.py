"""The contract of logs of messages that sources are in: derive from `TopicContract` and give it your broker to fill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mainspring.errors import DataError, MainspringError
from mainspring.lazy import lazy
from mainspring.ports.source import Messages

if TYPE_CHECKING:
    import pyarrow as pa
    import pytest
else:
    pa, pytest = lazy("pyarrow"), lazy("pytest")

__all__ = ["Sending", "TopicContract"]

Sending = Callable[[int, Sequence[bytes | None]], None]
"""Sends values to a partition, in their order."""


def _values(topic: Messages, begin: dict[int, int], end: dict[int, int]) -> dict[int, list[tuple[int, bytes | None]]]:
    found: dict[int, list[tuple[int, bytes | None]]] = {}
    for batch in topic.messages(begin, end):
        for row in batch.to_pylist():
            found.setdefault(row["partition"], []).append((row["offset"], row["value"]))
    return found


class TopicContract:
    """What every log of messages does.

    A subclass defines the fixtures ``topic``, an opened topic of at least two partitions that is at first empty,
    ``sending``, ``missing``, a topic that is not there, and ``unreachable``, one of a server that does not answer.
    """

    def test_it_is_the_port(self, topic: Messages) -> None:
        """It has every method, and says something of itself."""
        assert isinstance(topic, Messages)
        assert topic.answers()
        assert topic.topic
        ends = topic.ends()
        assert len(ends) >= 2
        assert set(ends.values()) == {(0, 0)}
        assert list(topic.messages(dict.fromkeys(ends, 0), dict.fromkeys(ends, 0))) == []

    def test_messages_of_each_partition_in_their_order(self, topic: Messages, sending: Sending) -> None:
        """From an offset up to another; any bytes, none, and none at all."""
        sending(0, [b"a", None, b"", b"\x00\xff"])
        sending(1, [b"%d" % number for number in range(5)])
        assert {number: end for number, end in topic.ends().items() if number < 2} == {0: (0, 4), 1: (0, 5)}
        found = _values(topic, {0: 0, 1: 2}, {0: 4, 1: 4})
        assert [value for _, value in found[0]] == [b"a", None, b"", b"\x00\xff"]
        assert found[1] == [(2, b"2"), (3, b"3")]
        assert _values(topic, {0: 3, 1: 5}, {0: 4, 1: 5}) == {0: [(3, b"\x00\xff")]}

    def test_what_comes_meanwhile_is_beyond_the_end(self, topic: Messages, sending: Sending) -> None:
        """A read ends where it was told to; the next begins there."""
        sending(0, [b"a", b"b"])
        end = topic.ends()[0][1]
        sending(0, [b"c"])
        assert _values(topic, {0: 0}, {0: end}) == {0: [(0, b"a"), (1, b"b")]}
        assert _values(topic, {0: end}, {0: topic.ends()[0][1]}) == {0: [(2, b"c")]}

    def test_many_messages(self, topic: Messages, sending: Sending) -> None:
        """All of them once, in batches; a read that stops early is in nobody's way."""
        sending(0, [b"%06d" % number for number in range(30_000)])
        reading = topic.messages({0: 0}, {0: 30_000})
        next(reading)
        del reading
        found = _values(topic, {0: 0}, {0: 30_000})[0]
        assert found == [(number, b"%06d" % number) for number in range(30_000)]

    def test_what_a_batch_looks_like(self, topic: Messages, sending: Sending) -> None:
        """Its columns, with the moment of each message."""
        sending(1, [b"a"])
        (batch,) = topic.messages({1: 0}, {1: 1})
        assert batch.schema == pa.schema(
            [
                ("partition", pa.int32()),
                ("offset", pa.int64()),
                ("at", pa.timestamp("us", "UTC")),
                ("key", pa.binary()),
                ("value", pa.binary()),
            ]
        )
        assert batch.column("at").null_count == 0

    def test_what_is_not_there(self, missing: Messages, unreachable: Messages) -> None:
        """A topic, and a server."""
        with pytest.raises(DataError) as caught:
            missing.ends()
        assert (caught.value.code, bool(caught.value.fix)) == ("MS-2150", True), caught.value.lines()
        with pytest.raises(MainspringError) as refused:
            unreachable.ends()
        assert (refused.value.code, bool(refused.value.fix)) == ("MS-4220", True), refused.value.lines()
        assert "secret-word" not in str(refused.value.as_dict())
