"""Sources and feature views as tasks of the engine: what they read, and the functions that carry them out."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from mainspring.config.settings import Settings
from mainspring.declare.artifact import File
from mainspring.declare.data import FeatureView, Source
from mainspring.declare.declaration import Declaration, name_of, origin_of, spec_of
from mainspring.declare.origin import of_function
from mainspring.engine import context
from mainspring.engine.task import Output, Task
from mainspring.errors import ConfigError, DeclarationError, ServiceError
from mainspring.features.derive import Upstream, derive_view, derived_ahead
from mainspring.features.history import HasTables
from mainspring.features.ingest import read_source
from mainspring.features.log import CONTENT_MARK, MADE_MARK, SourceTable, TableVersion, source_of
from mainspring.features.project import update_view
from mainspring.features.quality.known import known_in
from mainspring.features.quality.steps import (
    content_with_checks,
    gate_of,
    judge_of_view,
    only_distance,
    references_of,
    whole_of_files,
    without_distance,
)
from mainspring.features.quality.tablewise import judge_whole
from mainspring.features.sources.files import find_files
from mainspring.features.tidy import pinned_versions, tidy
from mainspring.features.view import View, checks_of, view_of
from mainspring.features.wal.commit import pushed_through
from mainspring.features.write import Changes, ingest_batch
from mainspring.plan.closure import closure_of
from mainspring.plan.graph import Plan
from mainspring.ports.catalog import Catalog
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Derived",
    "TableVersion",
    "aggregate_rows",
    "changes_in_words",
    "checked_views",
    "derive_ahead",
    "derive_pushed",
    "derive_rows",
    "derived_from",
    "files_of",
    "ingest_files",
    "sources_of",
    "still_filed",
    "still_there",
    "tasks_for",
    "views_of",
]


class Services(Protocol):
    """The part of `mainspring.choose.services.Services` that tasks are made with."""

    @property
    def project(self) -> Path:
        """The project's folder."""

    @property
    def settings(self) -> Settings:
        """The settings of the active profile."""

    @property
    def tables(self) -> TableStore:
        """The offline tables."""


class _HasStores(Protocol):
    @property
    def tables(self) -> TableStore: ...

    @property
    def catalog(self) -> Catalog: ...


def sources_of(plan: Plan) -> dict[str, SourceTable]:
    """The sources of an app by name."""
    return {node.name: source_of(cast(Source, node.declaration)) for node in plan.of_kind("source")}


def views_of(plan: Plan, ids: Mapping[str, int] | None = None) -> dict[str, View]:
    """The feature views of an app by name.

    Args:
        plan: the app's plan.
        ids: the catalog's numbers of the views, by name; needed online only.
    """
    views: dict[str, View] = {}
    for node in plan.of_kind("feature_view"):
        declaration = cast(FeatureView, node.declaration)
        spec = spec_of(declaration)
        code = "" if spec.function is None else closure_of(spec.function).digest
        above = [views[name_of(item)].log for item in spec.sources if isinstance(item, FeatureView)]
        number = (ids or {}).get(node.name, 0)
        views[node.name] = view_of(declaration, number, fields=node.fields, code=code, upstream=" ".join(above))
    return views


def checked_views(plan: Plan, views: Mapping[str, View]) -> dict[str, View]:
    """The views with all of their checks, for whoever brings rows in; what only reads them needs those that decide.

    Args:
        plan: the app's plan.
        views: the views by name, as `views_of` makes them.
    """
    found = {}
    for node in plan.of_kind("feature_view"):
        view = views[node.name]
        spec = spec_of(cast(FeatureView, node.declaration))
        found[node.name] = dataclasses.replace(view, checks=checks_of(spec, (*view.keys, *view.columns)))
    return found


def tasks_for(plan: Plan, services: Services) -> tuple[Task, ...]:
    """A task for each source (``source/NAME``) and each feature view (``feature_view/NAME``) of an app.

    Each returns a `TableVersion`. A source's task is keyed by the content of its files and by the newest pushed row.

    Raises:
        ConfigError: MS-3015, a source has no path; MS-3020, its url has no reader here.
        DataError: MS-2112, a source's path leads to no file.
        DeclarationError: MS-2106, a view is made from a view of aggregates.
    """
    sources, views = sources_of(plan), views_of(plan)
    checked = checked_views(plan, views)
    origins = {node.name: str(node.origin) for node in plan.of_kind("source")}
    tasks = [_source_task(source, services, origins[source.name]) for source in sources.values()]
    for node in plan.of_kind("feature_view"):
        tasks.append(_view_task(checked[node.name], cast(FeatureView, node.declaration), sources, views))
    return tuple(tasks)


def files_of(name: str, settings: Settings) -> list[Path]:
    """The files that a source is read from; none of them is opened.

    Raises:
        ConfigError: MS-3015, the source has no path; MS-3020, its url has no reader here.
        DataError: MS-2112, its path leads to no file.
    """
    setting = settings.setting(f"sources.{name}.path")
    if setting is None or setting.value is None:
        raise _placeless(name, settings)
    format = settings.text(f"sources.{name}.format")
    return find_files(str(setting.value), settings.project, source=name, format=format, origin=setting.origin)


def _source_task(source: SourceTable, services: Services, declared: str) -> Task:
    prefix = f"sources.{source.name}"
    params = {
        "source": source,
        "files": [File(path) for path in files_of(source.name, services.settings)],
        "format": services.settings.text(f"{prefix}.format"),
        "truncate": services.settings.text(f"{prefix}.truncate") == "us",
        # A log that was lost and made anew numbers its pushes from the beginning again.
        "pushed": pushed_through(services.tables, source),
    }
    return Task(
        f"source/{source.name}",
        ingest_files,
        params,
        references_of(source),
        title=f"source {source.name}",
        origin=declared,
        holds=still_filed,
    )


def _placeless(name: str, settings: Settings) -> ConfigError:
    url = settings.setting(f"sources.{name}.url")
    if url is not None and url.value is not None:
        return ConfigError(
            f"source {name!r} is at a url, and nothing here reads it",
            code="MS-3020",
            why=f"{str(url.value).partition('://')[0]} is no file",
            origin=url.origin,
            fix=f'export it to a file: sources.{name}.path = "data/{name}.parquet"',
        )
    return ConfigError(
        f"source {name!r} has no place in profile {settings.profile!r}",
        code="MS-3015",
        why="neither a path nor a url is set for it",
        fix=f'add [sources.{name}] with path = "data/{name}.parquet" to mainspring.toml',
    )


def _view_task(
    view: View, declaration: FeatureView, sources: Mapping[str, SourceTable], views: Mapping[str, View]
) -> Task:
    spec = spec_of(declaration)
    name, title = f"feature_view/{view.name}", f"feature view {view.name}"
    declared = str(origin_of(declaration))
    inputs = {f"at{index}": Output(_task_name(item)) for index, item in enumerate(spec.sources)}
    if spec.function is None:
        (source,) = (sources[item] for item in view.sources)
        params = {"view": view, "source": source.unchecked}
        return Task(
            name, aggregate_rows, params, {"at": inputs["at0"]}, title=title, origin=declared, holds=still_there
        )
    upstream = [
        sources[name_of(item)].unchecked if isinstance(item, Source) else views[name_of(item)] for item in spec.sources
    ]
    for item in upstream:
        if isinstance(item, View) and not item.decorated:
            raise DeclarationError(
                f"feature view {view.name!r} is made from view {item.name!r}, which has no rows",
                code="MS-2106",
                why="declared aggregates are computed when they are asked for",
                origin=str(of_function(spec.function)),
                fix="use the source itself, or compute the aggregate in the function",
            )
    params = {"view": view, "function": spec.function, "upstream": upstream}
    reaches = (spec.function,)
    return Task(name, derive_rows, params, inputs, reaches=reaches, title=title, origin=declared, holds=still_there)


def _task_name(declaration: Declaration[object]) -> str:
    kind = "source" if isinstance(declaration, Source) else "feature_view"
    return f"{kind}/{name_of(declaration)}"


@dataclass(frozen=True, slots=True)
class Derived:
    """A decorated view that follows pushes to its source: one source, and ``rows="each"``.

    Attributes:
        view: the view.
        function: as `derive_view` takes it.
        source: the source.
    """

    view: View
    function: Callable[..., object]
    source: SourceTable


def derived_from(plan: Plan, views: Mapping[str, View], sources: Mapping[str, SourceTable]) -> dict[str, list[Derived]]:
    """The decorated views that a push brings up to date, by the name of their source."""
    found: dict[str, list[Derived]] = {name: [] for name in sources}
    for node in plan.of_kind("feature_view"):
        spec, view = spec_of(cast(FeatureView, node.declaration)), views[node.name]
        if spec.function is not None and view.rows == "each" and len(spec.sources) == 1:
            (above,) = spec.sources
            if isinstance(above, Source):
                found[name_of(above)].append(Derived(view, spec.function, sources[name_of(above)]))
    return found


def derive_pushed(tables: TableStore, derived: Derived, at: TableVersion) -> TableVersion | None:
    """Bring a decorated view's log up to a version of its source's; None when it was never made."""
    if tables.version(derived.view.log) is None:
        return None
    upstream = Upstream(derived.source.name, derived.source, at)
    return derive_view(tables, derived.view, derived.function, [upstream]).version


def derive_ahead(tables: TableStore, derived: Derived, rows: pa.Table) -> pa.Table | None:
    """What a decorated view makes of rows of its source that are in no table yet; None when it cannot say."""
    return derived_ahead(tables, derived.view, derived.function, derived.source, rows)


# -- what the engine calls --------------------------------------------------------------------------------------------


def ingest_files(
    source: SourceTable,
    files: list[File],
    format: str | None,
    truncate: bool,
    pushed: tuple[int, int] | None,
    **referenced: object,
) -> TableVersion:
    """Bring a source's log up to its files; pushed rows are in it already.

    Raises:
        DataError: as `read_source`; MS-2180, a check refuses the rows, and nothing is committed.
    """
    step, tables, now = context.current(), _tables(), time.time_ns() // 1000
    paths = [file.path for file in files]
    prepared = read_source(source, paths, format=format, truncate=truncate, known=known_in(tables))
    gate = gate_of(f"/source/{source.name}", source.origin)
    whole = whole_of_files(tables, source, prepared.rows)
    gate.take([*prepared.results, *judge_whole(without_distance(source.checks), whole, now)])
    done = ingest_batch(
        tables,
        source,
        prepared,
        content=content_with_checks(_content(paths), source.checks, referenced),
        now_us=now,
        pushed=-1 if pushed is None else pushed[0],
        tell=lambda changes: step.note(changes_in_words(changes)),
        judge=lambda new: gate.take(
            judge_whole(only_distance(source.checks), dataclasses.replace(whole, new=new), now)
        ),
    )
    gate.passed()
    for reason, count in prepared.report.items():
        sys.stderr.write(f"{source.name}: set aside {count} rows: {reason}\n")
    if prepared.report:
        aside = f"{len(prepared.set_aside):,} of {len(prepared.set_aside) + len(prepared.rows):,} rows set aside"
        step.note(f"{aside} ({', '.join(prepared.report)}): mainspring show source/{source.name}")
    _tidy(source.log)
    return done


def changes_in_words(changes: Changes) -> str:
    """What files brought to a log, as people read it; empty when nothing."""
    parts = {"added": changes.added, "corrected": changes.corrected, "removed": changes.removed}
    return ", ".join(f"{count:,} rows {what}" for what, count in parts.items() if count)


def still_filed(services: Services, params: Mapping[str, object], kept: object) -> bool:
    """Whether a source's log is there at the version of a kept result, and no other files were read since."""
    version = msgspec.convert(kept, TableVersion)
    if not services.tables.has(version.table, version.version):
        return False
    return (services.tables.mark(version.table, CONTENT_MARK) or 0) == version.files


def still_there(services: Services, params: Mapping[str, object], kept: object) -> bool:
    """Whether a view's log is there at the version of a kept result, and still speaks of the same log of its source."""
    version = msgspec.convert(kept, TableVersion)
    if not services.tables.has(version.table, version.version):
        return False
    above = params["source"] if "source" in params else cast("Sequence[SourceTable | View]", params["upstream"])[0]
    source = cast("SourceTable | View", above).log
    made = services.tables.mark(version.table, MADE_MARK)
    return not made or made == services.tables.mark(source, MADE_MARK)


def aggregate_rows(view: View, source: SourceTable, at: TableVersion) -> TableVersion:
    """Bring the log of a view of declared aggregates up to a version of its source's.

    Raises:
        DataError: MS-2180, a check refuses the rows, and nothing is committed.
    """
    tables = _tables()
    gate = gate_of(f"/feature_view/{view.name}", f"feature view {view.name!r}")
    done = update_view(tables, view, source, at, judge=judge_of_view(tables, view, gate))
    gate.passed()
    _tidy(view.log)
    return done.version


def derive_rows(
    view: View, function: Callable[..., object], upstream: Sequence[SourceTable | View], **at: object
) -> TableVersion:
    """Bring a decorated view's log up to versions of what it is made from."""
    versions = [msgspec.convert(at[f"at{index}"], TableVersion) for index in range(len(upstream))]
    items = [Upstream(item.name, item, version) for item, version in zip(upstream, versions, strict=True)]
    step = context.current()
    tables, gate = _tables(), gate_of(f"/feature_view/{view.name}", str(of_function(function)))
    made = derive_view(
        tables,
        view,
        function,
        items,
        anew=step.forced,
        outside=lambda: bool(step.undeclared()),
        judge=judge_of_view(tables, view, gate),
    )
    gate.passed()
    _tidy(view.log)
    return made.version


def _tables() -> TableStore:
    return cast(HasTables, context.current().services).tables


def _tidy(table: str) -> None:
    """Keep a log quick to read; that it cannot be done now harms nothing."""
    services = cast(_HasStores, context.current().services)
    try:
        tidy(services.tables, table, lambda: pinned_versions(services.catalog), now_us=time.time_ns() // 1000)
    except ServiceError as error:
        sys.stderr.write(f"{table} was not put in order: {error.what}\n")


def _content(paths: Sequence[Path]) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open(path, "rb") as file:
            hashed.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return hashed.hexdigest()
