"""A project's features in this process: for notebooks, scripts and batch jobs, without a server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, cast

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.declare.data import FeatureView, Source, did_you_mean
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.frame import Frame
from mainspring.declare.on_demand import FeatureInput, FeatureService, OnDemand
from mainspring.errors import UsageError
from mainspring.features.decorated.choosing import chooses_any
from mainspring.features.duck import connection, query
from mainspring.features.logs.log import read_log, standing
from mainspring.features.offline.recall import recall
from mainspring.features.online.answered import Rows
from mainspring.features.online.materialise import Materialised, materialise
from mainspring.features.online.service import ServedFeatures, serve_features
from mainspring.features.selection import Selection, functions_of, selection_of
from mainspring.features.steps import sources_of
from mainspring.features.view import DELETED, EVENT, RETRACTS, SEQ, View
from mainspring.lazy import lazy
from mainspring.plan.graph import Plan
from mainspring.server.loop import online_views
from mainspring.server.planning import plan_of
from mainspring.server.state import WorkerState

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
else:
    duckdb, pa = lazy("duckdb"), lazy("pyarrow")

__all__ = ["FeatureStore", "feature_store"]

Asked = FeatureInput | str
_MOMENT = "at"


class FeatureStore:
    """The features of a built project; made by `feature_store`, and closed by ``with`` or `close`.

    Features are named by what the app's module holds (``flights.congestion``, ``flights.congestion.delay_1h``) or by
    text: ``"congestion"``, ``"congestion:delay_1h"``, ``"pressure"``, or the name of a feature service.

    Attributes:
        plan: the app's typed graph: ``store.plan.of_kind("feature_view")``.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self.plan: Plan = plan_of(load_app(services.settings))
        self._views: dict[str, View] = online_views(services, self.plan)
        self._served: dict[tuple[object, ...], ServedFeatures] = {}
        self._named_before: dict[str, ServedFeatures] = {}
        self._pushing: WorkerState | None = None

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def history(
        self,
        inputs: Asked | FeatureService | Sequence[Asked],
        spine: object,
        *,
        time: str = _MOMENT,
        as_known: bool = True,
        names: Literal["short", "full"] = "short",
        status: bool = False,
        versions: Mapping[str, int] | None = None,
    ) -> Frame:
        """Features as they were known at the moments of a spine, for training and analysis.

        Args:
            inputs: what is asked for, or a feature service.
            spine: a row a question, with entity keys, the moment, request fields, and whatever comes along: an Arrow
                table, a DataFrame of Polars or pandas, a LazyFrame, a mapping of columns; DuckDB SQL over the app's
                sources by name; ``(start, end)``, the pairs of entity and moment that the views observed in that time;
                or ``"latest"``, every entity of the views, now.
            time: the column with the moments.
            as_known: whether a row counts only from the moment it became known.
            names: ``short`` calls a column as the feature, ``full`` ``view__feature``.
            status: add ``view__status`` and ``view__event_time``.
            versions: pinned versions of the views' logs by name.

        Returns:
            The spine with the features: ``.arrow() .polars() .pandas() .numpy() .sql(query)``.

        Raises:
            DataError, StoreError, UserCodeError: as `mainspring.features.offline.recall.recall` raises.
            UsageError: MS-2602, nothing has that name; MS-2166, MS-2167, MS-2291, the spine cannot be made.
        """
        wanted = self._inputs(inputs)
        selection = selection_of(wanted, self._views)
        self._settle()
        asked = self._spine(spine, selection, time)
        return recall(
            self._services,
            selection,
            functions_of(wanted),
            asked,
            time=time,
            as_known=as_known,
            names=names,
            status=status,
            versions=versions,
            compute=self._services.compute,
        )

    def online(
        self,
        inputs: Asked | FeatureService | Sequence[Asked],
        entities: object,
        *,
        request: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> Rows:
        """Features as a server answers them.

        Args:
            inputs: what is asked for, or a feature service.
            entities: the entity keys: a mapping a entity, a mapping of columns, or a table.
            request: the fields of the request: a list as long as the entities' is a value each, else one for all.
            now: the moment, with a time zone; now when left out.

        Returns:
            ``.dicts() .columns() .arrow() .status(view) .event_time(view)``.

        Raises:
            DataError: MS-2310, MS-2120, MS-2302, the question does not fit.
            UserCodeError: MS-2161, an on-demand function failed.
            UsageError: MS-2602, nothing has that name; MS-2621, the moment has no time zone.
        """
        # The commonest question first: by a name that was asked for before, a mapping an entity.
        served = self._named_before.get(inputs) if type(inputs) is str else None
        if served is None:
            served = self._serving(inputs)
        moment = now_us() if now is None else _us(now)
        if not request and type(entities) is list:
            found = served.read_mappings(entities, moment)
            if found is not None:
                return found
        return served.read(_by_column(entities), request or {}, moment)

    def push(self, source: Source | str, rows: object, *, request_id: str | None = None) -> Mapping[str, object]:
        """Append rows to a source's log and bring its views up to them, offline and online.

        Args:
            source: the source, or its name.
            rows: a mapping a row, a mapping of columns, or a table.
            request_id: a push with the same id is done once within a day.

        Returns:
            ``accepted``, ``quarantined``, ``seq`` (first and last) and ``report`` (rows set aside by reason).

        Raises:
            DataError: MS-2303, no such source; MS-2304, a row does not fit.
        """
        if self._pushing is None:
            # A worker of its own number that answers for no endpoint, so that a server beside it is left alone.
            self._pushing = WorkerState(self._services, self.plan, os.getpid(), ("",))
            self._pushing.open()
        name = source if isinstance(source, str) else name_of(source)
        columns = _by_column(rows)
        listed = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return self._pushing.push(name, listed, None, request_id)

    def materialise(self, view: FeatureView | str, *, full: bool = False) -> Materialised:
        """Bring the online store up to a view's log.

        Args:
            view: the view, or its name.
            full: write all its rows anew.

        Returns:
            ``rows`` of the log that were read, ``entities`` that were written.

        Raises:
            UsageError: MS-2602, no view has that name; StoreError: MS-4131, it was never built.
        """
        name = view if isinstance(view, str) else name_of(view)
        if name not in self._views:
            raise _unknown("feature view", name, self._views)
        self._settle()
        tables, online = self._services.tables, self._services.online
        found = self._views[name]
        source = None if found.decorated else sources_of(self.plan)[found.sources[0]]
        return materialise(found, tables, online, now_us=now_us(), source=source, full=full)

    def close(self) -> None:
        """Bring what was pushed here into the tables, and let go of files and connections."""
        self._settle()
        if self._pushing is not None:
            self._pushing.close()
        else:
            self._services.close()

    def _settle(self) -> None:
        """Bring what was pushed here into the tables; until then it is in the write-ahead log, and online."""
        if self._pushing is not None and self._pushing.pushing is not None:
            self._pushing.pushing.commit_all()

    def _serving(self, inputs: Asked | FeatureService | Sequence[Asked]) -> ServedFeatures:
        wanted = self._inputs(inputs)
        key = tuple(item if isinstance(item, FeatureView | OnDemand) else (item.view, item.name) for item in wanted)
        served = self._served.get(key)
        if served is None:
            name = inputs if isinstance(inputs, str) else "asked for"
            served = serve_features(name, wanted, self._views, self._services.online)
            self._served[key] = served
        if isinstance(inputs, str):
            self._named_before[inputs] = served
        return served

    # -- names and spines ---------------------------------------------------------------------------------------

    def _inputs(self, inputs: Asked | FeatureService | Sequence[Asked]) -> tuple[FeatureInput, ...]:
        if isinstance(inputs, str):
            node = self.plan.node(f"/feature_service/{inputs}")
            if node is not None:
                return spec_of(cast(FeatureService, node.declaration)).inputs
            return (self._named(inputs),)
        if isinstance(inputs, FeatureService):
            return spec_of(inputs).inputs
        if isinstance(inputs, Sequence):
            return tuple(self._named(item) if isinstance(item, str) else item for item in inputs)
        return (inputs,)

    def _named(self, reference: str) -> FeatureInput:
        name, _, feature = reference.partition(":")
        known = {node.name: node for kind in ("feature_view", "on_demand") for node in self.plan.of_kind(kind)}
        if name not in known:
            raise _unknown("feature view, on-demand function or feature service", name, known)
        owner = cast("FeatureView | OnDemand", known[name].declaration)
        return owner[feature] if feature else owner

    def _spine(self, spine: object, selection: Selection, time: str) -> Frame:
        latest = isinstance(spine, str) and spine == "latest"
        if isinstance(spine, str) and not latest:
            return self._queried(spine)
        if not latest and not isinstance(spine, tuple):
            return spine if isinstance(spine, Frame) else Frame(spine)
        keys = list(selection.keys)
        views = {pick.view.name: pick.view for pick in selection.picks}
        if not views or any(set(view.key_names) != set(keys) for view in views.values()):
            raise UsageError(
                "a spine of observed entities needs views of one entity",
                code="MS-2166",
                why=f"the keys are {', '.join(keys) or 'none'}",
                fix="pass a table with the keys and moments",
            )
        columns = [*keys, EVENT, DELETED, SEQ, RETRACTS]
        parts = []
        for view in views.values():
            rows = standing(read_log(self._services.tables, view.log, None, columns))
            parts.append(rows.select([*keys, EVENT, DELETED]))
        with connection() as opened:
            opened.register("observed", pa.concat_tables(parts))
            named = ", ".join(f'"{key}"' for key in keys)
            if latest:
                moment = pa.scalar(now_us(), pa.timestamp("us", "UTC"))
                found = opened.sql(f"select distinct {named} from observed order by all").to_arrow_table()
                return Frame(found.append_column(time, pa.array([moment.as_py()] * len(found), moment.type)))
            start, end = (_us(moment) for moment in cast("tuple[datetime, datetime]", spine))
            query = f'select distinct {named}, {EVENT} as "{time}" from observed where not {DELETED} and '
            query += f"epoch_us({EVENT}) >= {start} and epoch_us({EVENT}) < {end} order by all"
            return Frame(opened.sql(query).to_arrow_table())

    def _queried(self, sql: str) -> Frame:
        with connection() as opened:
            if words := chooses_any(opened, sql):
                raise UsageError(
                    "the SQL of a spine takes some rows and does not say which",
                    code="MS-2291",
                    why=f"it has {words}: asked again, it may be about other rows",
                    fix="order by what tells the rows apart; to sample, compare hash(key) with a number",
                )
        tables = {}
        for name, source in sources_of(self.plan).items():
            if self._services.tables.version(source.log) is not None:
                rows = standing(read_log(self._services.tables, source.log))
                kept = rows.filter(pa.compute.invert(rows.column(DELETED)))
                tables[name] = kept.select([c for c in kept.column_names if not c.startswith("_")])
        try:
            return Frame(query(sql, tables))
        except duckdb.Error as error:
            raise UsageError(
                "the SQL of a spine does not run",
                code="MS-2167",
                why=str(error).partition("\n")[0],
                fix=f"it reads the app's sources: {', '.join(sources_of(self.plan))}",
            ) from error


def feature_store(folder: Path | str = ".", *, profile: str | None = None) -> FeatureStore:
    """The features of a project that was built (`mainspring apply`), in this process.

    Args:
        folder: the folder with mainspring.toml.
        profile: a profile of mainspring.toml; ``MAINSPRING_PROFILE`` or ``dev`` when left out.

    Raises:
        ConfigError: MS-3001 to MS-3009; DeclarationError: as the app's declarations raise.
    """
    return FeatureStore(Services.of_project(Path(folder).resolve(), profile=profile))


def _by_column(rows: object) -> dict[str, list[Any]]:
    if isinstance(rows, Mapping):
        return {str(name): list(values) for name, values in rows.items()}
    if isinstance(rows, Sequence):
        names = list(dict.fromkeys(name for row in rows for name in row))
        return {name: [row.get(name) for row in rows] for name in names}
    table = rows.arrow() if isinstance(rows, Frame) else Frame(rows).arrow()
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _us(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise UsageError(f"{moment} has no time zone", code="MS-2621", fix="datetime(2025, 1, 1, tzinfo=UTC)")
    return (moment - datetime.fromtimestamp(0, moment.tzinfo)) // timedelta(microseconds=1)


def _unknown(kind: str, name: str, known: Mapping[str, object]) -> UsageError:
    return UsageError(f"no {kind} is called {name!r}", code="MS-2602", fix=did_you_mean(name, known))
