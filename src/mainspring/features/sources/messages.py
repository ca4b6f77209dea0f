"""A topic's messages into a source's log; how far each partition was read is in the commit that holds its rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from mainspring.errors import DataError, ServiceError
from mainspring.features.logs.ingest import Prepared
from mainspring.features.logs.log import SourceTable, TableVersion, newest
from mainspring.features.logs.write import append_increment, has_batches
from mainspring.features.quality.known import known_in
from mainspring.features.sources.decode import prepare_messages
from mainspring.features.sources.increment import Told
from mainspring.lazy import lazy
from mainspring.ports.source import Messages
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["extract_topic"]


def extract_topic(
    tables: TableStore,
    source: SourceTable,
    topic: Messages,
    *,
    now_us: Callable[[], int],
    commit_rows: int,
    moved: Callable[[int, int], None] = lambda done, total: None,
    judge: Callable[[Prepared, pa.Table], None] = lambda prepared, new: None,
) -> tuple[TableVersion, Told, int]:
    """Read a topic from where the log is to where it ends now; each message once, whatever is killed.

    Args:
        tables: the table store.
        source: the source.
        topic: its messages.
        now_us: the clock, in microseconds since 1970: when rows arrive.
        commit_rows: messages of one commit.
        moved: is told how many messages were read, of how many.
        judge: is shown each part as it was prepared, and its rows, before they are appended; what it raises, refuses
            them.

    Returns:
        The log's version, what was read, and how many messages Kafka had deleted before they could be.

    Raises:
        DataError: MS-2154, the topic ends before what was read of it.
        ServiceError: MS-4223, another run reads it at once; or as the topic raises. What was committed stays.
    """
    writer = f"kafka/{topic.topic}"
    ends = topic.ends()
    marks = {number: tables.mark(source.log, f"{writer}/{number}") for number in ends}
    begin = {number: _begin(source, topic, number, marks[number], ends[number]) for number in ends}
    lost = sum(begin[number] - (mark or begin[number]) for number, mark in marks.items())
    told, total = Told(), sum(high - begin[number] for number, (_, high) in ends.items())
    spans = _spans(tables, source, writer, begin, {number: high for number, (_, high) in ends.items()})
    for end, history, own in spans:
        for batch in _parts(topic.messages(begin, end), commit_rows):
            prepared = prepare_messages(source, batch.column("value").to_pylist(), known_in(tables))
            after = {**begin, **_after(batch)}
            done = append_increment(
                tables,
                source,
                prepared,
                writer=writer,
                now_us=now_us(),
                history=history,
                compared=False,
                marks=functools.partial(_marks, tables, source, writer, dict(begin), after, own),
                judge=functools.partial(judge, prepared),
            )
            begin, own = after, {}
            told = told.and_then(len(batch), done, prepared.report)
            moved(told.read, total)
        begin = {number: max(offset, end[number]) for number, offset in begin.items()} if history else begin
    if newest(tables, source.log) is None:
        append_increment(
            tables, source, prepare_messages(source, []), writer=writer, now_us=now_us(), history=True, compared=False
        )
    version = newest(tables, source.log)
    assert version is not None  # it was made at the latest by the line above
    return version, told, lost


def _begin(source: SourceTable, topic: Messages, number: int, mark: int | None, there: tuple[int, int]) -> int:
    low, high = there
    if mark is not None and mark > high:
        raise DataError(
            f"topic {topic.topic!r} of source {source.name!r} ends before what was read of it",
            code="MS-2154",
            why=f"partition {number} ends at offset {high}, and {mark} was read: it was made anew",
            origin=f"sources.{source.name}.url",
            fix="give the new topic a name of its own; the log goes on with that from its beginning",
        )
    return max(low, mark or 0)


def _spans(
    tables: TableStore, source: SourceTable, writer: str, begin: Mapping[int, int], high: Mapping[int, int]
) -> Iterator[tuple[Mapping[int, int], bool, Mapping[str, int]]]:
    """Up to where to read, whether that is history, and the marks that the first commit of it sets.

    What was there when a new log first read is history, in which no arrival is known; where that ends is marked.
    """
    known = {number: tables.mark(source.log, f"history/{writer}/{number}") for number in begin}
    if not has_batches(tables, source, writer):
        own = {f"history/{writer}/{number}": offset for number, offset in high.items() if offset > 0}
        yield high, True, own
        return
    past = {number: min(known[number] or 0, high[number]) for number in begin}
    if any(begin[number] < offset for number, offset in past.items()):
        yield {number: max(begin[number], offset) for number, offset in past.items()}, True, {}
    yield high, False, {}


def _marks(
    tables: TableStore,
    source: SourceTable,
    writer: str,
    begin: Mapping[int, int],
    after: Mapping[int, int],
    own: Mapping[str, int],
) -> dict[str, int]:
    """How far each partition was read, if no one else has read on meanwhile."""
    moved = {number: offset for number, offset in after.items() if offset > begin[number]}
    for number in moved:
        if (tables.mark(source.log, f"{writer}/{number}") or 0) > begin[number]:
            raise ServiceError(
                f"another run reads source {source.name!r} at once",
                code="MS-4223",
                why=f"partition {number} was read further meanwhile; what this one read is dropped",
                origin=f"sources.{source.name}.url",
                fix="nothing is lost; run it again",
            )
    return {**own, **{f"{writer}/{number}": offset for number, offset in moved.items()}}


def _after(batch: pa.Table) -> dict[int, int]:
    """The offset after the last one of each partition."""
    greatest = batch.group_by("partition").aggregate([("offset", "max")]).to_pylist()
    return {row["partition"]: row["offset_max"] + 1 for row in greatest}


def _parts(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= rows:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)
