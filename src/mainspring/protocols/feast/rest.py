"""Feast's feature server, so that its HTTP clients work unchanged.

``POST /get-online-features``, ``/push``, ``/write-to-online-store``, ``/materialize``, ``/materialize-incremental``,
``GET /health``, in the shapes of Feast 0.67: one result a column, a client's fault is 404 or 422, and an error's body
is a JSON string that holds JSON.
"""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, Protocol

import msgspec
import orjson

from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError, DeclarationError, UsageError
from mainspring.protocols.http import Request, Response, Router, json_response

__all__ = ["FeastColumn", "FeastRows", "FeastStore", "add_feast_routes"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUSES = {"PRESENT": "PRESENT", "MISSING": "NOT_FOUND", "EXPIRED": "OUTSIDE_MAX_AGE"}
_MOST_CELLS = 4_000_000


class FeastColumn(Protocol):
    """A feature that was asked for."""

    @property
    def view(self) -> str:
        """The name of its view."""

    @property
    def feature(self) -> str:
        """Its name there."""

    @property
    def type(self) -> ColumnType:
        """Its type."""


class FeastRows(msgspec.Struct, frozen=True):
    """What was read.

    Attributes:
        columns: the features in the order they were asked for.
        versions: the version of each view's definition.
        values: by column, a value an entity.
        statuses: by column: PRESENT, MISSING or EXPIRED.
        events: by column: when the row that answers happened, UTC microseconds, or None.
    """

    columns: Sequence[FeastColumn]
    versions: Mapping[str, str]
    values: Sequence[Sequence[object]]
    statuses: Sequence[Sequence[str]]
    events: Sequence[Sequence[int | None]]


class FeastStore(Protocol):
    """The feature store behind the wire; its methods may wait, and are called in threads."""

    def keys(self, features: Sequence[str]) -> Mapping[str, ColumnType]:
        """The entity keys that these features are read by, with their types.

        Raises:
            UsageError: MS-2104, MS-2101, there is no such view or feature.
        """

    def service(self, name: str) -> Sequence[str] | None:
        """The features of a feature service; None when there is none of that name."""

    def read(
        self, features: Sequence[str], entities: Sequence[Mapping[str, object]], service: str | None = None
    ) -> FeastRows:
        """The features of entities, now.

        Args:
            features: their references.
            entities: the keys of each, and what else a request carries.
            service: the feature service that was asked for; None where features were, by their names.
        """

    def sources(self) -> Sequence[str]:
        """The names of the sources that rows are pushed to."""

    def push(self, source: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows to a source's log, then online.

        Raises:
            DataError: a row does not fit.
        """

    def views(self) -> Sequence[str]:
        """The names of the views that are kept online."""

    def materialise(self, views: Sequence[str]) -> None:
        """Bring the online store up to the views' logs."""


class _Read(msgspec.Struct, frozen=True):
    entities: dict[str, list[Any]]
    features: list[str] | None = None
    feature_service: str | None = None
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False


class _Push(msgspec.Struct, frozen=True):
    push_source_name: str
    df: dict[str, list[Any]]
    to: Literal["online", "offline", "online_and_offline"] = "online"
    allow_registry_cache: bool = True
    transform_on_write: bool = True


class _Write(msgspec.Struct, frozen=True):
    feature_view_name: str
    df: dict[str, list[Any]]


class _Materialize(msgspec.Struct, frozen=True):
    end_ts: str | None = None
    start_ts: str | None = None
    feature_views: list[str] | None = None
    disable_event_timestamp: bool = False
    full_feature_names: bool = False
    version: str | None = None


class _FeastError(Exception):
    """A fault in Feast's own shape."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


def add_feast_routes(router: Router, store: FeastStore, run_blocking: Callable[..., Awaitable[Any]]) -> None:
    """Serve Feast's wire on a router.

    Args:
        router: where the routes go.
        store: the feature store.
        run_blocking: awaits a function run in a thread.
    """
    routes = _Routes(store, run_blocking)
    router.add("POST", "/get-online-features", routes.get_online_features)
    router.add("POST", "/push", routes.push)
    router.add("POST", "/write-to-online-store", routes.write_to_online_store)
    router.add("POST", "/materialize", routes.materialize)
    router.add("POST", "/materialize-incremental", routes.materialize)
    router.add("GET", "/health", routes.health)


class _Routes:
    def __init__(self, store: FeastStore, run_blocking: Callable[..., Awaitable[Any]]) -> None:
        self._store = store
        self._run = run_blocking
        self._running: frozenset[str] = frozenset()
        self._later: asyncio.Future[None] | None = None  # somebody must hold what runs

    async def health(self, request: Request) -> Response:
        return Response(200)

    async def get_online_features(self, request: Request) -> Response:
        try:
            asked = _body(request, _Read)
            features = self._features(asked)
            keys = self._keys(features)
            entities = _entities(asked.entities, keys)
            found: FeastRows = await self._run(self._store.read, features, entities, asked.feature_service)
        except _FeastError as error:
            return _refused(error)
        except DataError as error:
            return _refused(_FeastError(422, "FeastError", error.what))
        return json_response(_answer(asked, found, len(entities)))

    def _features(self, asked: _Read) -> Sequence[str]:
        if asked.feature_service is not None:
            found = self._store.service(asked.feature_service)
            if found is None:
                raise _FeastError(
                    404,
                    "FeatureServiceNotFoundException",
                    f"Feature service {asked.feature_service} does not exist",
                )
            return found
        if not asked.features:
            raise _FeastError(422, "FeastError", "name features, or a feature_service")
        bad = next((name for name in asked.features if ":" not in name), None)
        if bad is not None:
            raise _FeastError(422, "FeastError", f"{bad!r} is no reference to a feature: VIEW:FEATURE")
        return asked.features

    def _keys(self, features: Sequence[str]) -> Mapping[str, ColumnType]:
        try:
            return self._store.keys(features)
        except (UsageError, DeclarationError) as error:
            raise _FeastError(404, "FeatureViewNotFoundException", f"{error.what}; {error.fix}") from error

    async def push(self, request: Request) -> Response:
        try:
            asked = _body(request, _Push)
            if asked.push_source_name not in self._store.sources():
                known = ", ".join(self._store.sources())
                raise _FeastError(
                    422,
                    "PushSourceNotFoundException",
                    f"Unable to find push source '{asked.push_source_name}'; there are: {known}",
                )
            await self._run(self._store.push, asked.push_source_name, _rows(asked.df))
        except _FeastError as error:
            return _refused(error)
        except DataError as error:
            return _refused(_FeastError(422, "FeastError", f"{error.what}; {error.fix}"))
        return Response(200)

    async def write_to_online_store(self, request: Request) -> Response:
        """A view has one way in, its source's log, so that the online store can be written anew from it."""
        try:
            asked = _body(request, _Write)
            if asked.feature_view_name not in self._store.views():
                raise _FeastError(
                    404, "FeatureViewNotFoundException", f"Feature view {asked.feature_view_name} does not exist"
                )
            raise _FeastError(
                422, "FeastError", "features are made of their source's rows: POST /push with the source's name"
            )
        except _FeastError as error:
            return _refused(error)

    async def materialize(self, request: Request) -> Response:
        """Brings views up to their logs; the watermark decides what is missing, so the interval only has to be one."""
        try:
            asked = _body(request, _Materialize)
            for moment in (asked.start_ts, asked.end_ts):
                if moment is not None:
                    _moment(moment)
            views = asked.feature_views or list(self._store.views())
            unknown = sorted(set(views) - set(self._store.views()))
            if unknown:
                raise _FeastError(404, "FeatureViewNotFoundException", f"Feature view {unknown[0]} does not exist")
        except _FeastError as error:
            return _refused(error)
        if self._running & set(views) and b"force=true" not in request.query:
            busy = {"error": "a materialization of these views is running", "feature_views": sorted(views)}
            return json_response(busy, 409)
        work = self._materialised(views)
        if b"async=true" in request.query:
            self._later = asyncio.ensure_future(work)
            return json_response({"status": "accepted", "feature_views": views}, 202)
        await work
        return json_response(None)

    async def _materialised(self, views: Sequence[str]) -> None:
        self._running |= set(views)
        try:
            await self._run(self._store.materialise, views)
        finally:
            self._running -= set(views)


def _body(request: Request, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(request.body, type=kind)
    except msgspec.ValidationError as error:
        raise _FeastError(422, "", str(error)) from None
    except msgspec.DecodeError as error:
        raise _FeastError(422, "", f"the body is no JSON: {error}") from None


def _refused(error: _FeastError) -> Response:
    if not error.kind:  # the body itself is wrong: the shape of FastAPI
        detail = [{"loc": ["body"], "msg": str(error), "type": "value_error"}]
        return json_response({"detail": detail}, error.status)
    told = orjson.dumps({"module": "feast.errors", "class": error.kind, "message": str(error)}).decode()
    return json_response(told, error.status)


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise _FeastError(422, "FeastError", f"the columns of df have {sorted(lengths) or 'no'} rows")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _entities(columns: Mapping[str, Sequence[Any]], keys: Mapping[str, ColumnType]) -> list[dict[str, Any]]:
    missing = sorted(set(keys) - set(columns))
    if missing:
        raise _FeastError(422, "FeastError", f"the entities lack the key {', '.join(missing)}")
    rows = _rows(columns)
    if len(rows) * max(len(keys), 1) > _MOST_CELLS:
        raise _FeastError(422, "FeastError", f"{len(rows)} entities in one request are too many")
    return [{name: _key(name, row[name], kind) for name, kind in keys.items()} for row in rows]


def _key(name: str, value: object, kind: ColumnType) -> object:
    """A key as it is packed; a text of digits is an integer here, as Feast's clients send it so."""
    if value is None:
        return None
    try:
        if kind.kind is Kind.INTEGER and isinstance(value, str):
            return int(value)
        if kind.kind is Kind.TIMESTAMP and isinstance(value, str):
            return (_moment(value) - _EPOCH) // timedelta(microseconds=1)
        if kind.kind is Kind.DATE and isinstance(value, str):
            return date.fromisoformat(value)
        if kind.kind is Kind.BYTES and isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError:
        raise _FeastError(422, "FeastError", f"key {name}: {value!r} is no {kind}") from None
    return value


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _FeastError(422, "", f"{text!r} is no moment") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _answer(asked: _Read, found: FeastRows, rows: int) -> dict[str, object]:
    names = [
        f"{column.view}__{column.feature}" if asked.full_feature_names else column.feature for column in found.columns
    ]
    metadata: dict[str, object] = {"feature_names": [*asked.entities, *names]}
    if asked.include_feature_view_version_metadata:
        versions = [{"name": name, "version": version} for name, version in found.versions.items()]
        metadata["feature_view_metadata"] = versions
    entities: list[dict[str, object]] = [
        {"values": values, "statuses": ["PRESENT"] * rows, "event_timestamps": [_told(0)] * rows}
        for values in asked.entities.values()
    ]
    features: list[dict[str, object]] = [
        {
            "values": [_value(value, column.type) for value in values],
            "statuses": [_STATUSES[status] for status in statuses],
            "event_timestamps": [_told(event or 0) for event in events],
        }
        for column, values, statuses, events in zip(
            found.columns, found.values, found.statuses, found.events, strict=True
        )
    ]
    return {"metadata": metadata, "results": [*entities, *features]}


def _value(value: object, kind: ColumnType) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if kind.kind is Kind.TIMESTAMP and isinstance(value, int):
        return _told(value)
    if kind.kind is Kind.LIST and isinstance(value, list):
        return [_value(one, kind.element) for one in value]
    return value


def _told(us: int) -> str:
    """RFC 3339 in UTC, with no, three or six digits of a second, as protobuf's JSON writes it."""
    moment = _EPOCH + timedelta(microseconds=us)
    whole = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if moment.microsecond == 0:
        return f"{whole}Z"
    return (
        f"{whole}.{moment.microsecond // 1000:03d}Z"
        if moment.microsecond % 1000 == 0
        else (f"{whole}.{moment.microsecond:06d}Z")
    )
