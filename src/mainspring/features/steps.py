"""Sources and feature views as tasks of the engine: what they read, and the functions that carry them out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from mainspring.config.settings import Settings
from mainspring.declare.artifact import File
from mainspring.declare.data import FeatureView, Source
from mainspring.declare.declaration import Declaration, name_of, origin_of, spec_of
from mainspring.declare.origin import of_function
from mainspring.declare.step import StepOptions
from mainspring.engine import context
from mainspring.engine.task import Output, Task
from mainspring.errors import ConfigError, DeclarationError
from mainspring.features.decorated.derive import Upstream, derive_view, derived_ahead
from mainspring.features.logs.carry import left_behind
from mainspring.features.logs.log import CONTENT_MARK, MADE_MARK, SourceTable, TableVersion, source_of
from mainspring.features.logs.project import update_view
from mainspring.features.quality.known import known_in
from mainspring.features.quality.steps import gate_of, judge_of_view, references_of
from mainspring.features.sources.extract import (
    carried,
    extract_files,
    extract_messages,
    extract_new,
    extract_whole,
    take_whole,
    tidied,
)
from mainspring.features.sources.files import find_files, read_files
from mainspring.features.sources.place import Outside, outside_of
from mainspring.features.sources.staged import STAGED, Staging
from mainspring.features.view import View, checks_of, view_of
from mainspring.features.wal.commit import pushed_through
from mainspring.plan.closure import closure_of
from mainspring.plan.graph import Plan
from mainspring.ports.tables import HasTables, TableStore

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Derived",
    "TableVersion",
    "aggregate_rows",
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

_CLOSING_US = 60_000_000
"""What a read may take beyond its limit, to connect and to commit."""


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
        found[node.name] = msgspec.structs.replace(view, checks=checks_of(spec, (*view.keys, *view.columns)))
    return found


def tasks_for(plan: Plan, services: Services) -> tuple[Task, ...]:
    """A task for each source (``source/NAME``) and each feature view (``feature_view/NAME``) of an app.

    Each returns a `TableVersion`. A source's task is keyed by the content of its files and by the newest pushed row;
    that of a source outside is carried out in each run, and all that follows is kept by the content of its log.

    Raises:
        ConfigError: MS-3015, a source has no place; MS-3020, MS-3040, MS-3041, as `outside_of`.
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
        ConfigError: MS-3015, the source has no path.
        DataError: MS-2112, its path leads to no file.
    """
    setting = settings.setting(f"sources.{name}.path")
    if setting is None or setting.value is None:
        raise _placeless(name, settings)
    format = settings.text(f"sources.{name}.format")
    return find_files(str(setting.value), settings.project, source=name, format=format, origin=setting.origin)


def _source_task(source: SourceTable, services: Services, declared: str) -> Task:
    prefix = f"sources.{source.name}"
    outside = outside_of(source, services.settings)
    if outside is not None:
        return _extract_task(source, outside, services.settings, declared)
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


def _extract_task(source: SourceTable, outside: Outside, settings: Settings, declared: str) -> Task:
    params: dict[str, object] = {"source": source}
    function: Callable[..., TableVersion]
    if outside.reads == "messages":
        params["commit_rows"], function = outside.commit_rows, extract_messages
    else:
        params["truncate"] = settings.text(f"sources.{source.name}.truncate") == "us"
        function = extract_files
    if outside.reads == "files":
        params["format"] = settings.text(f"sources.{source.name}.format")
    elif outside.cursor is not None:
        params |= {"relation": outside.relation, "cursor": outside.cursor, "commit_rows": outside.commit_rows}
        function = extract_new
    elif outside.relation is not None:
        params["relation"], function = outside.relation, extract_whole
    # What is outside changes without a sign, so nothing is kept; and one that hangs is ended, whatever hangs.
    options = StepOptions(cache=False, timeout_us=outside.timeout_us + _CLOSING_US)
    return Task(
        f"source/{source.name}",
        function,
        params,
        references_of(source),
        options=options,
        title=f"source {source.name}",
        origin=declared,
    )


def _placeless(name: str, settings: Settings) -> ConfigError:
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
    given: dict[str, object] = {"view": view, "function": spec.function, "upstream": upstream}
    reaches = (spec.function,)
    return Task(name, derive_rows, given, inputs, reaches=reaches, title=title, origin=declared, holds=still_there)


def _task_name(declaration: Declaration[object]) -> str:
    kind = "source" if isinstance(declaration, Source) else "feature_view"
    return f"{kind}/{name_of(declaration)}"


class Derived(msgspec.Struct, frozen=True):
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
        DataError: as `read_files` and `Staging.prepare`; MS-2180, a check refuses the rows, and nothing is committed.
    """
    tables, paths = _tables(), [file.path for file in files]
    through = max(-1 if pushed is None else pushed[0], carried(tables, source))
    raw = read_files(paths, source.fields, source=source.name, format=format)
    with Staging(tables.beside(STAGED)) as staging:
        prepared = staging.prepare(source, raw, truncate=truncate, known=known_in(tables))
        return take_whole(tables, source, prepared, _content(paths), referenced, pushed=through)


def still_filed(services: Services, params: Mapping[str, object], kept: object) -> bool:
    """Whether a source's log is there at the version of a kept result, and no other files were read since.

    Nor was anything pushed while the source was declared otherwise.
    """
    version = msgspec.convert(kept, TableVersion)
    if not services.tables.has(version.table, version.version):
        return False
    if left_behind(services.tables, cast(SourceTable, params["source"])):
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
    tidied(view.log)
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
    tidied(view.log)
    return made.version


def _tables() -> TableStore:
    return cast(HasTables, context.current().services).tables


def _content(paths: Sequence[Path]) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open(path, "rb") as file:
            hashed.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return hashed.hexdigest()
