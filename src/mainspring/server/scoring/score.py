"""Scoring a table: from what is asked for to a graph of the engine, and from its parts to one file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec.structs import replace

from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.declare.app import App
from mainspring.declare.artifact import File
from mainspring.declare.data import did_you_mean
from mainspring.declare.declaration import spec_of
from mainspring.declare.frame import Frame
from mainspring.declare.model import ModelDeclaration, ModelSpec
from mainspring.declare.record import ColumnType, Kind
from mainspring.declare.step import StepOptions
from mainspring.engine.driver import load, run_graph
from mainspring.engine.runs.progress import Progress, Watch, silent
from mainspring.engine.task import Output, Task, TaskGraph, on_tables
from mainspring.engine.values import read_manifest
from mainspring.errors import RefusedError, UsageError
from mainspring.features.cast import Reading
from mainspring.features.definitions import Reads, reads_of
from mainspring.features.logs.log import SourceTable, source_of, source_schema
from mainspring.features.selection import functions_of
from mainspring.features.steps import sources_of, tasks_for, views_of
from mainspring.features.view import View
from mainspring.lazy import lazy
from mainspring.plan.graph import Node, Plan
from mainspring.ports.catalog import Entity
from mainspring.server.features.migrating import own_of, task_of_followed
from mainspring.server.loop import named_node, workers_of
from mainspring.server.planning import plan_of
from mainspring.server.scoring.fitting import checked_columns
from mainspring.server.scoring.parts import (
    aside_schema,
    file_of,
    parts,
    rows_of_file,
    rows_of_source,
    scored_part,
    scores,
    scores_schema,
)
from mainspring.server.scoring.shape import (
    ASIDE,
    PREDICTION,
    REASON,
    ROW,
    SCORE,
    SCORED,
    Carried,
    Part,
    Scores,
    Scoring,
)
from mainspring.server.scoring.standing import Standing, Telling
from mainspring.server.scoring.tables import batches_of, format_of, is_text, schema_of, to_parquet, writing
from mainspring.training.versions import CHAMPION, KIND, ModelVersion, version_of

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["ROWS", "Asked", "Scored", "score", "score_table"]

ROWS = 262_144
"""Rows of a part, where nobody says otherwise."""
_COPIED = 65_536
_TABLE = "table"
_MOMENT = ColumnType(Kind.TIMESTAMP)


class Asked(msgspec.Struct, frozen=True):
    """What is to be scored, and how.

    Attributes:
        model: the model's name.
        table: a file (Parquet, CSV, Arrow), or the name of a declared source.
        output: the file that gets the scores.
        version: the number of a version, or an alias; the champion when empty.
        time: the column with each row's moment, where features are looked up.
        moment: RFC 3339 with a zone: one moment for all rows instead.
        keep: the columns that the output begins with; all when None.
        set_aside: the file that gets the rows that do not fit; without it the first of them ends the scoring.
        rows: how many rows a part has; what a kill costs is at most the parts that were under way.
    """

    model: str
    table: str
    output: Path
    version: str = ""
    time: str = ""
    moment: str = ""
    keep: tuple[str, ...] | None = None
    set_aside: Path | None = None
    rows: int = ROWS


class Scored(msgspec.Struct, frozen=True):
    """A table that was scored.

    Attributes:
        scores: what came of it.
        run: the run that did it.
        parts: how many parts there are.
        kept: how many of them had been scored before.
        output: the file with the scores.
        set_aside: the file with the rows that do not fit; empty when none was asked for.
    """

    scores: Scores
    run: str
    parts: int
    kept: int
    output: str
    set_aside: str = ""


class _Table(msgspec.Struct, frozen=True):
    """The table: its name, its columns, what makes it, and what is known of its times."""

    name: str
    schema: pa.Schema
    tasks: tuple[Task, ...]
    text: bool
    source: SourceTable | None


def score_table(
    services: Services,
    app: App,
    plan: Plan,
    asked: Asked,
    *,
    watch: Watch = silent,
    told: Callable[[Standing], None] = lambda standing: None,
) -> Scored:
    """Score a table with a version of a model, part by part, and write the scores to a file.

    What is scored is kept: after a kill the same call goes on, and done again it only writes the file. Rows keep their
    order. The output appears whole or not at all.

    Args:
        services: the project's ports.
        app: the loaded app.
        plan: its graph.
        asked: what is to be scored.
        watch: told what happens.
        told: told how far it is, about once a second and with each part.

    Raises:
        UsageError: MS-5120, MS-5122, MS-5123, a file cannot be written; MS-5126, what is asked for makes no sense.
        DataError: MS-5121, the table cannot be read; MS-5124, its columns are not the model's; MS-5125, a row does not
            fit, and nothing was said of setting it aside.
        RefusedError: MS-5040, MS-5127, there is no such version; MS-5128, it reads what is computed no more.
        KeyboardInterrupt: it was stopped; what is scored is kept, and no file was touched.
    """
    for file in (asked.output, *([asked.set_aside] if asked.set_aside else [])):
        format_of(file)
    if asked.rows < 1:
        raise UsageError(f"a part has {asked.rows} rows", code="MS-5126", fix="ask for at least 1")
    node = named_node(plan, asked.model if "/" in asked.model else f"model/{asked.model}")
    if not isinstance(node.declaration, ModelDeclaration):
        raise UsageError(f"{asked.model!r} is no model", code="MS-5126", fix="mainspring show model")
    views, sources = views_of(plan), sources_of(plan)
    version = _version(services, node.name, asked.version)
    built = {task.name: task for task in tasks_for(plan, services)}
    reads, followed = _reads(services, node, version, views, sources)
    table = _table(services, plan, asked, built, sources)
    spec = spec_of(node.declaration)
    scoring = _scoring(spec, version, reads, table, asked)
    checked_columns(scoring.carried, table.schema, Reading(text=scoring.text, zone=scoring.zone), of=table.name)
    tasks = on_tables(_tasks(scoring, spec, table, built, followed, sources, asked.rows))
    graph = TaskGraph(f"scores/{node.name}", tuple(tasks))
    telling = Telling(f"scored/{node.name}", lambda run: _parts(services, run, f"parts/{node.name}"), told)

    def watching(event: Progress) -> None:
        watch(event)
        telling(event)

    report = run_graph(graph, services, watch=watching, workers=workers_of(services), reason="score").check()
    found = msgspec.convert(load(services, report.step(f"scores/{node.name}")), Scores)
    result = report.step(f"scored/{node.name}").result
    assert result is not None
    held = read_manifest(result, services.objects)
    _write(asked.output, scores_schema(scoring, table.schema), (file_of(services.objects, one, SCORED) for one in held))
    if asked.set_aside is not None:
        rest = (file_of(services.objects, one, ASIDE) for one in held)
        _write(asked.set_aside, aside_schema(table.schema), rest)
    whole = report.step(f"scored/{node.name}")
    kept = len(held) if whole.status == "hit" else _hits(services, report.run_id, whole.name)
    return Scored(found, report.run_id, len(held), kept, str(asked.output), str(asked.set_aside or ""))


def _parts(services: Services, run: str, step: str) -> list[Part]:
    """The parts of the table that a run scores."""
    row = next(row for row in services.catalog.steps(run) if row.name == step and row.outputs)
    return msgspec.convert(load(services, row.outputs[0].digest), list[Part])


def _hits(services: Services, run: str, step: str) -> int:
    """How many items of a map had been kept before."""
    return sum(1 for row in services.catalog.steps(run) if row.name == step and row.status == "hit")


def _version(services: Services, model: str, wanted: str) -> Entity:
    if wanted.isascii() and wanted.isdigit():
        return version_of(services.catalog, model, int(wanted))
    alias = services.catalog.alias(KIND, model, wanted or CHAMPION)
    found = None if alias is None else services.catalog.entity_by_id(alias.entity_id)
    if found is None:
        raise RefusedError(
            f"model {model!r} has no {wanted or CHAMPION}",
            code="MS-5127",
            why="no version of it bears that alias",
            fix=f"mainspring run model/{model}, or name a version: mainspring show model/{model}",
        )
    return found


def _reads(
    services: Services, node: Node, version: Entity, views: Mapping[str, View], sources: Mapping[str, SourceTable]
) -> tuple[Reads, tuple[View, ...]]:
    """What the version reads, and which of its views are none of the app's."""
    own = own_of(services, node, version, views, sources)
    if own is None:
        return reads_of(spec_of(cast(ModelDeclaration, node.declaration)).inputs, views), ()
    if own.lost:
        raise RefusedError(
            f"version {version.version} of model {node.name!r} reads what is computed no more",
            code="MS-5128",
            why="; ".join(f"{one.url}: {one.why}" for one in own.lost),
            fix="score a table that has all of its columns, or train a version on what the app declares now",
        )
    return own.reads, own.followed


def _table(
    services: Services, plan: Plan, asked: Asked, built: Mapping[str, Task], sources: Mapping[str, SourceTable]
) -> _Table:
    path = Path(asked.table)
    if path.is_file():
        task = Task(_TABLE, rows_of_file, {"table": File(path.resolve())}, title=f"table {path.name}")
        return _Table(path.name, schema_of(path), (task,), is_text(path), None)
    name = asked.table.removeprefix("source/")
    source = sources.get(name)
    if source is None:
        raise UsageError(
            f"{asked.table!r} is no file and no source",
            code="MS-5126",
            why=f"the app declares the sources {', '.join(sources) or '(none)'}",
            fix=did_you_mean(name, list(sources)) if sources else "name a file",
        )
    at = f"source/{name}"
    task = Task(_TABLE, rows_of_source, {"source": source}, {"at": Output(at)}, title=f"rows of {name}")
    whole = source_schema(source)
    schema = pa.schema([whole.field(field.name) for field in source.fields])
    return _Table(name, schema, (*_above(built, at), task), False, source)


def _above(tasks: Mapping[str, Task], name: str) -> list[Task]:
    """A task and all that it is made from."""
    found: dict[str, Task] = {}
    for output in tasks[name].inputs.values():
        found |= {task.name: task for task in _above(tasks, output.task)}
    return [*found.values(), tasks[name]]


def _scoring(spec: ModelSpec, entity: Entity, reads: Reads, table: _Table, asked: Asked) -> Scoring:
    version = msgspec.convert(entity.spec, ModelVersion)
    names = table.schema.names
    spine = source_of(spec.spine)
    joined = any(column.place is not None and column.name not in names for column in reads.columns)
    selection = reads.selection
    time, moment = "", None
    if joined:
        own = [Carried(column.name, column.type) for column in reads.columns if column.place is None]
        asks = [Carried(field.name, field.type) for field in selection.request]
        carried = [*(Carried(name, kind) for name, kind in selection.keys.items()), *own, *asks]
        time, moment = _moments(asked, table, spine)
        carried += [Carried(time, _MOMENT)] if moment is None else []
    else:
        carried = [
            Carried(one.name, one.type if one.place is None else replace(one.type, nullable=True))
            for one in reads.columns
        ]
    return Scoring(
        model=entity.name,
        version=entity.version,
        entity=entity.id,
        artifact=version.artifact,
        vouched=version.card.digest,
        binary=version.task == "binary",
        reads=reads,
        carried=tuple({column.name: column for column in carried}.values()),
        joined=joined,
        time=time,
        moment_us=moment,
        zone=(table.source or spine).zone,
        text=table.text,
        keep=_kept(asked, table, version.task == "binary"),
        set_aside=asked.set_aside is not None,
    )


def _moments(asked: Asked, table: _Table, spine: SourceTable) -> tuple[str, int | None]:
    """The column with the moments, or the one that holds for all rows."""
    if asked.time and asked.moment:
        raise UsageError(
            "a column of moments and one moment for all rows are asked for",
            code="MS-5126",
            fix="give --time or --moment",
        )
    if asked.moment:
        try:
            moment = datetime.fromisoformat(asked.moment)
        except ValueError:
            moment = datetime(1970, 1, 1)
        if moment.tzinfo is None:
            raise UsageError(
                f"{asked.moment!r} is no moment", code="MS-5126", fix="write 2025-06-01T00:00:00Z, with its zone"
            )
        return "", (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    usual = (table.source or spine).time
    return asked.time or (usual if usual in table.schema.names else "at"), None


def _kept(asked: Asked, table: _Table, binary: bool) -> tuple[str, ...]:
    names = table.schema.names
    keep = tuple(names) if asked.keep is None else asked.keep
    if (strange := [name for name in keep if names.count(name) != 1]) or len(set(keep)) < len(keep):
        wrong = strange[0] if strange else next(name for name in keep if keep.count(name) > 1)
        raise UsageError(
            f"column {wrong!r} of {table.name!r} cannot be kept",
            code="MS-5126",
            why="the table has no such column" if wrong not in names else "it is there, or asked for, more than once",
            fix=did_you_mean(wrong, names) if wrong not in names else "name each column once",
        )
    if taken := [name for name in (SCORE, *((PREDICTION,) if binary else ())) if name in keep]:
        raise UsageError(
            f"the output would have two columns {taken[0]!r}",
            code="MS-5126",
            why="one of the table, and one that is added",
            fix="name the columns to keep, without it: --keep id --keep at",
        )
    if asked.set_aside is not None and (marks := {ROW, REASON} & set(names)):
        raise UsageError(
            f"the table has a column {min(marks)!r} of its own",
            code="MS-5126",
            why="the file of rows that are set aside adds one of that name",
            fix="rename it",
        )
    return keep


def _tasks(
    scoring: Scoring,
    spec: ModelSpec,
    table: _Table,
    built: Mapping[str, Task],
    followed: Sequence[View],
    sources: Mapping[str, SourceTable],
    rows: int,
) -> tuple[Task, ...]:
    found = {task.name: task for task in table.tasks}
    functions: dict[str, Callable[..., object]] = {}
    logs: dict[str, Output] = {}
    if scoring.joined:
        functions = functions_of(spec.inputs)
        others = {view.name: view for view in followed}
        for pick in scoring.reads.selection.picks:
            name = f"feature_view/{pick.view.name}"
            if other := others.get(pick.view.name):
                source = other.sources[0]
                found |= {task.name: task for task in _above(built, f"source/{source}")}
                name = f"{name}@{other.version[:8]}"
                found[name] = task_of_followed(name.partition("/")[2], other, sources[source], "")
            else:
                found |= {task.name: task for task in _above(built, name)}
            logs[pick.view.name] = Output(name)
    whole = {"table": Output(_TABLE)}
    title = f"{table.name} by {scoring.model} version {scoring.version}"
    own = (
        # Never kept: it reads a footer, and its result is on record in every run, for who tells how far that is.
        Task(
            f"parts/{scoring.model}",
            parts,
            {"rows": rows},
            whole,
            title=f"parts of {table.name}",
            options=StepOptions(cache=False),
        ),
        Task(
            f"scored/{scoring.model}",
            scored_part,
            {"scoring": scoring, "functions": functions},
            {**whole, "part": Output(f"parts/{scoring.model}"), **logs},
            reaches=tuple(functions.values()),
            over="part",
            title=title,
        ),
        Task(
            f"scores/{scoring.model}",
            scores,
            {"scoring": scoring},
            {**whole, "parts": Output(f"scored/{scoring.model}")},
            title=f"scores of {title}",
        ),
    )
    return (*found.values(), *own)


def _write(path: Path, schema: pa.Schema, files: Iterable[Path]) -> None:
    with writing(path, schema) as out:
        for file in files:
            for batch in batches_of(file, _COPIED, "parquet"):
                out.write_batch(batch)


def score(
    model: str,
    table: object,
    output: Path | str,
    *,
    folder: Path | str = ".",
    profile: str | None = None,
    version: int | str = "",
    time: str = "",
    moment: str = "",
    keep: Sequence[str] | None = None,
    set_aside: Path | str | None = None,
    rows: int = ROWS,
) -> Scored:
    """Score a table with a model of a project that was built (`mainspring apply`), as ``mainspring score`` does.

    Args:
        model: the model's name.
        table: the path of a file (Parquet, CSV, Arrow), the name of a declared source, or a table: of Arrow, a
            DataFrame of Polars or pandas, a mapping of columns.
        output: the file that gets the scores; its name says its format.
        folder: the folder with mainspring.toml.
        profile: a profile of mainspring.toml; ``MAINSPRING_PROFILE`` or ``dev`` when left out.
        version: the number of a version, or an alias; the champion when empty.
        time: the column with each row's moment, where features are looked up.
        moment: RFC 3339 with a zone: one moment for all rows instead.
        keep: the columns that the output begins with; all when None.
        set_aside: the file that gets the rows that do not fit; without it the first of them ends the scoring.
        rows: how many rows a part has, which is scored and kept as one.

    Raises:
        MainspringError: as `score_table` raises.
    """
    services = Services.of_project(Path(folder).resolve(), profile=profile)
    aside = None if set_aside is None else Path(set_aside)
    try:
        app = load_app(services.settings)
        with tempfile.TemporaryDirectory() as place:
            named = str(table) if isinstance(table, str | Path) else str(_in_a_file(table, Path(place)))
            kept = None if keep is None else tuple(keep)
            asked = Asked(model, named, Path(output), str(version), time, moment, kept, aside, rows)
            return score_table(services, app, plan_of(app), asked)
    finally:
        services.close()


def _in_a_file(table: object, folder: Path) -> Path:
    """Rows of this process where steps find them; what is scored is kept by content, not by this place."""
    found = (table if isinstance(table, Frame) else Frame(table)).arrow()
    to = folder / "rows.parquet"
    to_parquet(iter(found.to_batches(_COPIED)), found.schema, to)
    return to
