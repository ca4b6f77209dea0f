"""Sources outside as steps of the engine: what each reads, appends and tells; none of them is kept from run to run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from mainspring.engine import context
from mainspring.errors import ServiceError
from mainspring.features.logs.carry import carry_pushed, told
from mainspring.features.logs.ingest import Prepared
from mainspring.features.logs.log import PUSH_MARK, SourceTable, TableVersion, newest
from mainspring.features.logs.tidy import pinned_versions, tidy
from mainspring.features.logs.write import Changes, holds_content, ingest_batch
from mainspring.features.quality.gate import Gate
from mainspring.features.quality.known import known_in
from mainspring.features.quality.steps import (
    content_with_checks,
    gate_of,
    only_distance,
    whole_of_files,
    whole_with,
    without_distance,
)
from mainspring.features.quality.tablewise import judge_whole
from mainspring.features.sources.files import RawFile, gathered, read_files
from mainspring.features.sources.increment import Told, extract_increment, raw_of, wanted
from mainspring.features.sources.messages import extract_topic
from mainspring.features.sources.place import Cursor
from mainspring.features.sources.remote import content_of, fetched, files_there
from mainspring.features.sources.staged import STAGED, Staging, content_of_rows
from mainspring.lazy import lazy
from mainspring.ports.catalog import Catalog
from mainspring.ports.source import Bucket, Messages, Relation, Relations
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = [
    "carried",
    "changes_in_words",
    "extract_files",
    "extract_messages",
    "extract_new",
    "extract_whole",
    "take_whole",
    "tell_aside",
    "tidied",
]


class _Services(Protocol):
    @property
    def tables(self) -> TableStore:
        """The offline tables."""

    @property
    def catalog(self) -> Catalog:
        """What training sets have pinned."""

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
    source: SourceTable, relation: Relation, cursor: Cursor, truncate: bool, commit_rows: int, **referenced: object
) -> TableVersion:
    """Append what a database has new, by a cursor.

    Raises:
        DataError: MS-2180, a check refuses a part of it; parts before it are in the log.
    """
    services, step = _services(), context.current()
    tables = services.tables
    carried(tables, source)
    gate, judge = _gated(tables, source)
    version, found = extract_increment(
        tables,
        source,
        cast(Relations, services.source(source.name)),
        relation,
        cursor,
        now_us=_now_us,
        commit_rows=commit_rows,
        truncate=truncate,
        moved=lambda rows: step.progress(rows, 0),
        judge=judge,
    )
    gate.passed()
    step.note(f"{found.added:,} rows added" if found.added else "nothing new")
    tell_aside(source, found)
    tidied(source.log)
    return version


def _gated(tables: TableStore, source: SourceTable) -> tuple[Gate, Callable[[Prepared, pa.Table], None]]:
    """What hears the findings of a source's checks, and what makes them, of each part of an increment."""
    gate = gate_of(f"/source/{source.name}", source.origin)

    def judge(prepared: Prepared, new: pa.Table) -> None:
        whole = whole_with(tables, source, new)
        gate.take([*prepared.results, *judge_whole(source.checks, whole, _now_us())])

    return gate, judge


def extract_whole(source: SourceTable, relation: Relation, truncate: bool, **referenced: object) -> TableVersion:
    """Bring a source's log up to all rows of a table or query; rows that are not there any more are taken away.

    Raises:
        DataError: MS-2180, a check refuses the rows, and nothing is committed.
    """
    services, step = _services(), context.current()
    reader = cast(Relations, services.source(source.name))
    names, schema = wanted(source, reader, relation)

    def parts() -> Iterator[RawFile]:
        read = 0
        for part in gathered(reader.rows(relation, schema, None), schema):
            yield msgspec.structs.replace(raw_of(part, str(relation), names), start=read)
            step.progress(read := read + len(part), 0)

    tables = services.tables
    carried(tables, source)
    with Staging(tables.beside(STAGED)) as staging:
        prepared = staging.prepare(source, parts(), truncate=truncate, known=known_in(tables))
        take_whole(tables, source, prepared, content_of_rows(prepared), referenced)
    return _newest(tables, source)


def extract_files(source: SourceTable, format: str | None, truncate: bool, **referenced: object) -> TableVersion:
    """Bring a source's log up to the files of a bucket; unchanged ones are neither fetched nor read.

    Raises:
        DataError: MS-2180, a check refuses the rows, and nothing is committed.
    """
    services, step = _services(), context.current()
    tables, bucket = services.tables, cast(Bucket, services.source(source.name))
    carried(tables, source)
    files = files_there(bucket, source.name, format)
    content = content_of(files)
    if holds_content(tables, source, content_with_checks(content, source.checks, referenced)):
        step.note("nothing new")
        return _newest(tables, source)
    folder = services.state / "sources" / source.name
    paths = fetched(bucket, files, folder, step.progress)
    raw = read_files(paths, source.fields, source=source.name, format=format)
    with Staging(tables.beside(STAGED)) as staging:
        prepared = staging.prepare(source, raw, truncate=truncate, known=known_in(tables))
        take_whole(tables, source, prepared, content, referenced)
    return _newest(tables, source)


def extract_messages(source: SourceTable, commit_rows: int, **referenced: object) -> TableVersion:
    """Append what a topic has new.

    Raises:
        DataError: MS-2180, a check refuses a part of it; parts before it are in the log.
    """
    services, step = _services(), context.current()
    topic = cast(Messages, services.source(source.name))
    carried(services.tables, source)
    gate, judge = _gated(services.tables, source)
    version, found, lost = extract_topic(
        services.tables, source, topic, now_us=_now_us, commit_rows=commit_rows, moved=step.progress, judge=judge
    )
    gate.passed()
    step.note(f"{found.added:,} rows added" if found.added else "nothing new")
    if lost:
        step.note(f"{lost:,} offsets of {topic.topic} were deleted there before they were read")
    tell_aside(source, found)
    tidied(source.log)
    return version


def take_whole(
    tables: TableStore,
    source: SourceTable,
    prepared: Prepared,
    content: str,
    referenced: Mapping[str, object],
    *,
    pushed: int = -1,
) -> TableVersion:
    """Bring a source's log up to all rows that it has now, judged before, with a note of what came of them.

    Args:
        tables: the table store.
        source: the source.
        prepared: its rows.
        content: digest of where they come from.
        referenced: the versions of the sources that its checks reference.
        pushed: the `PUSH_MARK` that the version must reach.

    Raises:
        DataError: MS-2180, a check refuses the rows, and nothing is committed.
    """
    heard: list[Changes] = []
    now, gate = _now_us(), gate_of(f"/source/{source.name}", source.origin)
    whole = whole_of_files(tables, source, prepared.rows)
    gate.take([*prepared.results, *judge_whole(without_distance(source.checks), whole, now)])

    distance = only_distance(source.checks)

    def judge(new: pa.Table) -> None:
        gate.take(judge_whole(distance, msgspec.structs.replace(whole, new=new), now))

    done = ingest_batch(
        tables,
        source,
        prepared,
        content=content_with_checks(content, source.checks, referenced),
        now_us=now,
        pushed=pushed,
        tell=heard.append,
        judge=judge if distance else None,
    )
    gate.passed()
    context.current().note(", ".join(filter(None, map(changes_in_words, heard))) or "nothing new")
    tell_aside(source, Told(len(prepared.rows) + len(prepared.set_aside), 0, 0, prepared.report))
    tidied(source.log)
    return done


def carried(tables: TableStore, source: SourceTable) -> int:
    """Bring what was pushed under the record before, and say so; the greatest `_seq` of it, or -1."""
    found = carry_pushed(tables, source, _now_us())
    for text in told(found):
        context.current().note(text)
    return (tables.mark(source.log, PUSH_MARK) or -1) if found else -1


def tidied(table: str) -> None:
    """Keep a log quick to read; that it cannot be done now harms nothing."""
    services = _services()
    try:
        tidy(services.tables, table, lambda: pinned_versions(services.catalog), now_us=_now_us())
    except ServiceError as error:
        sys.stderr.write(f"{table} was not put in order: {error.what}\n")


def _newest(tables: TableStore, source: SourceTable) -> TableVersion:
    version = newest(tables, source.log)
    assert version is not None  # the first read makes the log, whatever it brings
    return version


def changes_in_words(changes: Changes) -> str:
    """What came to a log, as people read it; empty when nothing."""
    parts = {"added": changes.added, "corrected": changes.corrected, "removed": changes.removed}
    return ", ".join(f"{count:,} rows {what}" for what, count in parts.items() if count)


def tell_aside(source: SourceTable, read: Told) -> None:
    """Say how many rows were set aside, and why."""
    reasons: Mapping[str, int] = read.reasons
    for reason, count in reasons.items():
        sys.stderr.write(f"{source.name}: set aside {count} rows: {reason}\n")
    if reasons:
        aside = f"{sum(reasons.values()):,} of {read.read:,} rows set aside"
        context.current().note(f"{aside} ({', '.join(reasons)}): mainspring show source/{source.name}")
