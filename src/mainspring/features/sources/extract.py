"""Sources outside as steps of the engine: what each reads, appends and tells; none of them is kept from run to run."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from mainspring.engine import context
from mainspring.features.ingest import Prepared, prepare, read_source, some_fit
from mainspring.features.log import SourceTable, TableVersion, content_digest, newest
from mainspring.features.sources.increment import Told, extract_increment, raw_of, wanted
from mainspring.features.sources.messages import extract_topic
from mainspring.features.sources.place import Cursor
from mainspring.features.sources.remote import content_of, fetched, files_there
from mainspring.features.write import Changes, holds_content, ingest_batch
from mainspring.lazy import lazy
from mainspring.ports.source import Bucket, Messages, Relation, Relations
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["changes_in_words", "extract_files", "extract_messages", "extract_new", "extract_whole", "tell_aside"]


class _Services(Protocol):
    @property
    def tables(self) -> TableStore:
        """The offline tables."""

    @property
    def state(self) -> Path:
        """The folder that may be written to."""

    def source(self, name: str) -> object:
        """What reads a source."""


def _services() -> _Services:
    return cast(_Services, context.current().services)


def _now_us() -> int:
    return time.time_ns() // 1000


def extract_new(
    source: SourceTable, relation: Relation, cursor: Cursor, truncate: bool, commit_rows: int
) -> TableVersion:
    """Append what a database has new, by a cursor."""
    services, step = _services(), context.current()
    version, told = extract_increment(
        services.tables,
        source,
        cast(Relations, services.source(source.name)),
        relation,
        cursor,
        now_us=_now_us,
        commit_rows=commit_rows,
        truncate=truncate,
        moved=lambda rows: step.progress(rows, 0),
    )
    step.note(f"{told.added:,} rows added" if told.added else "nothing new")
    tell_aside(source, told)
    return version


def extract_whole(source: SourceTable, relation: Relation, truncate: bool) -> TableVersion:
    """Bring a source's log up to all rows of a table or query; rows that are not there any more are taken away."""
    services, step = _services(), context.current()
    reader = cast(Relations, services.source(source.name))
    names, schema = wanted(source, reader, relation)
    batches, read = [], 0
    for batch in reader.rows(relation, schema, None):
        batches.append(batch)
        step.progress(read := read + len(batch), 0)
    raw = raw_of(pa.Table.from_batches(batches), str(relation), names)
    prepared = some_fit(source, prepare(source, [raw], truncate=truncate))
    content = content_digest(prepared.rows) + content_digest(prepared.set_aside)
    _ingest(services.tables, source, prepared, content)
    tell_aside(source, Told(read, 0, len(prepared.set_aside), prepared.report))
    return _newest(services.tables, source)


def extract_files(source: SourceTable, format: str | None, truncate: bool) -> TableVersion:
    """Bring a source's log up to the files of a bucket; unchanged ones are neither fetched nor read."""
    services, step = _services(), context.current()
    bucket = cast(Bucket, services.source(source.name))
    files = files_there(bucket, source.name, format)
    content = content_of(files)
    if holds_content(services.tables, source, content):
        step.note("nothing new")
        return _newest(services.tables, source)
    folder = services.state / "sources" / source.name
    paths = fetched(bucket, files, folder, step.progress)
    prepared = read_source(source, paths, format=format, truncate=truncate)
    _ingest(services.tables, source, prepared, content)
    tell_aside(source, Told(len(prepared.rows) + len(prepared.set_aside), 0, 0, prepared.report))
    return _newest(services.tables, source)


def extract_messages(source: SourceTable, commit_rows: int) -> TableVersion:
    """Append what a topic has new."""
    services, step = _services(), context.current()
    topic = cast(Messages, services.source(source.name))
    version, told, lost = extract_topic(
        services.tables, source, topic, now_us=_now_us, moved=step.progress, part=commit_rows
    )
    step.note(f"{told.added:,} rows added" if told.added else "nothing new")
    if lost:
        step.note(f"{lost:,} offsets of {topic.topic} were deleted there before they were read")
    tell_aside(source, told)
    return version


def _ingest(tables: TableStore, source: SourceTable, prepared: Prepared, content: str) -> None:
    """All rows that a source has now, and a note of what came of them."""
    heard: list[Changes] = []
    ingest_batch(tables, source, prepared, content=content, now_us=_now_us(), tell=heard.append)
    context.current().note(", ".join(filter(None, map(changes_in_words, heard))) or "nothing new")


def _newest(tables: TableStore, source: SourceTable) -> TableVersion:
    version = newest(tables, source.log)
    assert version is not None  # the first read makes the log, whatever it brings
    return version


def changes_in_words(changes: Changes) -> str:
    """What came to a log, as people read it; empty when nothing."""
    parts = {"added": changes.added, "corrected": changes.corrected, "removed": changes.removed}
    return ", ".join(f"{count:,} rows {what}" for what, count in parts.items() if count)


def tell_aside(source: SourceTable, told: Told) -> None:
    """Say how many rows were set aside, and why."""
    reasons: Mapping[str, int] = told.reasons
    for reason, count in reasons.items():
        sys.stderr.write(f"{source.name}: set aside {count} rows: {reason}\n")
    if reasons:
        aside = f"{sum(reasons.values()):,} of {told.read:,} rows set aside"
        context.current().note(f"{aside} ({', '.join(reasons)}): mainspring show source/{source.name}")
