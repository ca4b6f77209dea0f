"""The steps of a scoring: the table as Parquet, cut into parts, each part scored, and what came of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from mainspring.catalog.ids import new_id, now_us
from mainspring.choose.services import Services
from mainspring.declare.artifact import File
from mainspring.declare.frame import Frame
from mainspring.engine.context import current
from mainspring.engine.values import read_folder
from mainspring.engine.wire import StoredResult
from mainspring.errors import DataError
from mainspring.features.cast import Reading
from mainspring.features.duck import connection, quoted, scan
from mainspring.features.logs.log import SourceTable, TableVersion, source_schema
from mainspring.features.offline.recall import recall
from mainspring.features.view import DELETED, EVENT, RETRACTS, SEQ
from mainspring.lazy import lazy
from mainspring.plan.encoding import digest, encode
from mainspring.ports.catalog import Edge, Entity, Event
from mainspring.ports.objects import Objects
from mainspring.server.rollouts.unpacking import unpacked
from mainspring.server.scoring.fitting import Fitted, fitted
from mainspring.server.scoring.shape import (
    ASIDE,
    PREDICTION,
    REASON,
    ROW,
    SCORE,
    SCORED,
    Part,
    Scores,
    Scoring,
)
from mainspring.server.scoring.tables import (
    BATCH,
    batches_of,
    format_of,
    parts_of,
    reads_part,
    row_groups,
    schema_of,
    to_parquet,
)
from mainspring.serving.models import LiveModel, load_live

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray
else:
    np, pa, pq = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.parquet")

__all__ = [
    "aside_schema",
    "file_of",
    "parts",
    "rows_of_file",
    "rows_of_source",
    "scored_part",
    "scores",
    "scores_schema",
]

_AT = "_at"
_LOOKED_UP = 262_144
"""Rows whose features are looked up together: each look-up reads the log of a view."""
_CHUNK = 8_192
"""Rows that a model scores at once."""


def rows_of_file(table: File) -> File:
    """A table as Parquet, kept by its content: whoever goes on with it later reads what it was begun with."""
    if format_of(table.path) == "parquet":
        return table
    to = current().work_dir / "rows.parquet"
    to_parquet(batches_of(table.path), schema_of(table.path), to)
    return File(to)


def rows_of_source(source: SourceTable, at: TableVersion) -> File:
    """The rows that stand in a source's log, by the time that they tell of; of the versions of one the last."""
    services = _services()
    to = current().work_dir / "rows.parquet"
    names = [field.name for field in source.fields]
    gone = f"{SEQ} in (select {RETRACTS} from log where {RETRACTS} is not null)"
    last = f"qualify row_number() over (partition by {quoted(source.id)} order by {SEQ} desc) = 1" if source.id else ""
    columns = ", ".join(map(quoted, names))
    with connection(services.tables.limits) as opened:
        log = scan(opened, services.tables.files(source.log, at.version), source_schema(source), "empty_log")
        statement = (
            f"with log as (from {log}), standing as (select * from log where {RETRACTS} is null and not {gone} {last}) "
            f"select {columns} from standing where not {DELETED} order by {EVENT}, {SEQ}"
        )
        schema = pa.schema([source_schema(source).field(name) for name in names])
        batches = opened.sql(statement).to_arrow_reader(BATCH)
        to_parquet((batch.cast(schema) for batch in batches), schema, to)
    return File(to)


def parts(table: StoredResult, rows: int) -> list[Part]:
    """Where a table is cut."""
    return parts_of(row_groups(_services().objects.path(table.digest)), rows)


def scored_part(
    scoring: Scoring,
    functions: dict[str, Callable[..., object]],
    table: StoredResult,
    part: Part,
    **tables: TableVersion,
) -> File:
    """The rows of a part with their scores, and those that do not fit: a folder of `SCORED` and `ASIDE`."""
    services = _services()
    model = _model(services, scoring)
    path = services.objects.path(table.digest)
    folder = current().work_dir / "part"
    folder.mkdir()
    schema = schema_of(path, "parquet")
    rows = _LOOKED_UP if scoring.joined else _CHUNK
    at = part.start
    with (
        pq.ParquetWriter(folder / SCORED, scores_schema(scoring, schema)) as good,
        pq.ParquetWriter(folder / ASIDE, aside_schema(schema)) as aside,
    ):
        for batch in _gathered(reads_part(path, part, rows), rows):
            found, scored = _scored(services, scoring, functions, model, batch, tables)
            if found.bad and not scoring.set_aside:
                raise _unfit(found.bad, at)
            if len(scored):
                good.write_table(_with_scores(scoring, batch.take(found.rows), scored, good.schema))
            if found.bad:
                aside.write_table(_set_aside(batch, found.bad, at, aside.schema))
            at += len(batch)
            current().progress(at - part.start, part.stop - part.start)
    return File(folder)


def scores(scoring: Scoring, table: StoredResult, parts: list[StoredResult]) -> Scores:
    """What came of all parts, on record with the version that has scored."""
    services, context = _services(), current()
    held, aside = 0, 0
    for part in parts:
        held += _rows(services.objects, part, SCORED)
        aside += _rows(services.objects, part, ASIDE)
    found = Scores(
        scoring.model,
        scoring.version,
        scoring.entity,
        held + aside,
        held,
        aside,
        scoring.joined,
        tuple(part.digest for part in parts),
    )
    at = now_us()
    content = digest(encode([table.digest, msgspec.json.encode(found)]))
    spec = {**msgspec.to_builtins(found), "table": table.digest}
    entity = Entity(new_id(), "scores", scoring.model, 0, content, spec, at)
    edges = [
        Edge(entity.id, "built_from", table.digest),
        Edge(entity.id, "used", scoring.entity),
        Edge(context.run_id, "produced", entity.id),
    ]
    data: dict[str, object] = {"run": context.run_id, "version": scoring.version, "rows": found.rows, "id": entity.id}
    services.catalog.add_entity(entity, edges, Event(at, "scoring", "model.scored", f"/model/{scoring.model}", data))
    return found


def file_of(objects: Objects, part: StoredResult, name: str) -> Path:
    """A file of a part, where it lies."""
    entry = next(entry for entry in read_folder(part, objects) if entry.path == name)
    return objects.path(entry.digest)


def scores_schema(scoring: Scoring, table: pa.Schema) -> pa.Schema:
    """The columns of rows with scores: those that are kept, then the score, and what it says where that is more."""
    found = [table.field(name) for name in scoring.keep] + [pa.field(SCORE, pa.float64(), nullable=False)]
    return pa.schema(found + ([pa.field(PREDICTION, pa.bool_(), nullable=False)] if scoring.binary else []))


def aside_schema(table: pa.Schema) -> pa.Schema:
    """The columns of rows that are set aside: their place, what is wrong, and the row as it came."""
    own = [field for field in table if field.name not in (ROW, REASON)]
    return pa.schema([pa.field(ROW, pa.int64(), nullable=False), pa.field(REASON, pa.string(), nullable=False), *own])


def _services() -> Services:
    return cast(Services, current().services)


def _rows(objects: Objects, part: StoredResult, name: str) -> int:
    return int(pq.read_metadata(file_of(objects, part, name)).num_rows)


def _model(services: Services, scoring: Scoring) -> LiveModel:
    folder = unpacked(services, scoring.artifact)
    return load_live(
        scoring.version, scoring.entity, folder, lambda path: services.predictor(path, vouched=scoring.vouched)
    )


def _gathered(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Batches of about so many rows: a file's own may be as small as its row groups."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if held and count + len(batch) > rows:
            yield pa.Table.from_batches(held)
            held, count = [], 0
        held.append(batch)
        count += len(batch)
    if held:
        yield pa.Table.from_batches(held)


def _scored(
    services: Services,
    scoring: Scoring,
    functions: Mapping[str, Callable[..., object]],
    model: LiveModel,
    batch: pa.Table,
    tables: Mapping[str, TableVersion],
) -> tuple[Fitted, NDArray[np.float64]]:
    found = fitted(batch, scoring.carried, Reading(text=scoring.text, zone=scoring.zone))
    if not len(found.rows):
        return found, np.zeros(0)
    columns = _looked_up(services, scoring, functions, found, tables) if scoring.joined else found.columns
    frame = Frame(pa.table({column.name: columns[column.name] for column in scoring.reads.columns}))
    matrix = frame.numpy().reshape(len(found.rows), -1).astype(np.float64, copy=False)
    try:
        return found, _in_chunks(model, matrix)
    except DataError as error:
        if error.code != "MS-2306":
            raise
        whole = np.isfinite(matrix).all(axis=1)
        for place in found.rows[~whole]:
            found.bad[int(place)] = f"{error.what}, and a column or a feature is"
        left = Fitted({}, found.rows[whole], found.bad)
        return left, _in_chunks(model, matrix[whole])


def _in_chunks(model: LiveModel, matrix: NDArray[Any]) -> NDArray[np.float64]:
    chunks = [model.scores(matrix[start : start + _CHUNK]) for start in range(0, len(matrix), _CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros(0)


def _looked_up(
    services: Services,
    scoring: Scoring,
    functions: Mapping[str, Callable[..., object]],
    found: Fitted,
    tables: Mapping[str, TableVersion],
) -> dict[str, pa.ChunkedArray]:
    """The model's columns: those of the table, and features as they were known at each row's moment."""
    selection = scoring.reads.selection
    asked = {name: found.columns[name] for name in (*selection.keys, *(field.name for field in selection.request))}
    moment = pa.timestamp("us", "UTC")
    if scoring.moment_us is None:
        asked[_AT] = found.columns[scoring.time]
    else:
        asked[_AT] = pa.repeat(pa.scalar(scoring.moment_us, pa.int64()), len(found.rows)).cast(moment)
    answered = recall(
        services, selection, functions, Frame(pa.table(asked)), time=_AT, names="full", versions=dict(tables)
    ).arrow()
    columns = {}
    for column in scoring.reads.columns:
        if column.place is None:
            columns[column.name] = found.columns[column.name]
        else:
            output = selection.outputs[column.place]
            columns[column.name] = answered.column(f"{output.view}__{output.name}")
    return columns


def _with_scores(scoring: Scoring, rows: pa.Table, scored: NDArray[np.float64], schema: pa.Schema) -> pa.Table:
    columns = [rows.column(name) for name in scoring.keep] + [pa.array(scored)]
    return pa.table([*columns, pa.array(scored >= 0.5)] if scoring.binary else columns, schema=schema)


def _set_aside(batch: pa.Table, bad: Mapping[int, str], at: int, schema: pa.Schema) -> pa.Table:
    places = sorted(bad)
    rows = batch.take(pa.array(places, pa.int64()))
    told = [pa.array([at + place for place in places], pa.int64()), pa.array([bad[place] for place in places])]
    return pa.table([*told, *(rows.column(name) for name in schema.names[2:])], schema=schema)


def _unfit(bad: Mapping[int, str], at: int) -> DataError:
    first = sorted(bad)[:3]
    return DataError(
        f"row {at + first[0]} cannot be scored",
        code="MS-5125",
        why="; ".join(f"row {at + place}: {bad[place]}" for place in first),
        fix="mend it, or have such rows set aside: --set-aside aside.parquet",
    )
