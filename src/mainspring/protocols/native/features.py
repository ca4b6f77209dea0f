"""Feature services over HTTP, in JSON or Arrow.

``POST /feature-services/{name}/read``: ``{"entities": {"origin": ["JFK"]}, "request": {}, "now"?}`` to ``{"names",
"rows": [[..]], "status": {view: "P"}, "event_us": {view: [..]}}``: of each entity and view a letter (Present, Missing,
Expired) and the event time of the row that answers. With ``Accept: application/vnd.apache.arrow.stream`` it is a table
of the features, ``view__status`` and ``view__event_time``.
``GET /feature-services`` and ``/feature-services/{name}``: which there are, and what they take and answer.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import orjson

from mainspring.declare.record import ColumnType, Kind
from mainspring.lazy import lazy
from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.protocols.native.rest import NativeLimits, moment_us

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["FeatureAnswer", "FeatureReader", "add_feature_routes"]

ARROW = b"application/vnd.apache.arrow.stream"
_LETTERS = {"PRESENT": "P", "MISSING": "M", "EXPIRED": "E"}


class FeatureAnswer(Protocol):
    """What was read."""

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in order."""

    @property
    def rows(self) -> Sequence[Sequence[Any]]:
        """By entity, the values as online rows hold them."""

    @property
    def statuses(self) -> Mapping[str, Sequence[str]]:
        """By view, PRESENT, MISSING or EXPIRED of each entity."""

    @property
    def events(self) -> Mapping[str, Sequence[int | None]]:
        """By view, when the row that answers happened, UTC microseconds."""

    def arrow(self) -> pa.Table:
        """A table of the features."""


class FeatureReader(Protocol):
    """A feature service."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def names(self) -> tuple[str, ...]:
        """The features, in order."""

    @property
    def types(self) -> tuple[ColumnType, ...]:
        """Their types."""

    @property
    def views(self) -> tuple[str, ...]:
        """The view or on-demand function of each."""

    @property
    def keys(self) -> Mapping[str, ColumnType]:
        """The entity keys of a question."""

    @property
    def request(self) -> Mapping[str, ColumnType]:
        """The fields of the request."""

    @property
    def blocks(self) -> bool:
        """Whether an answer may hold up an event loop."""

    def read(self, entities: Mapping[str, Sequence[Any]], request: Mapping[str, Any], now_us: int) -> FeatureAnswer:
        """The features of entities at a moment."""


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entities: dict[str, list[Any]]
    request: dict[str, Any] = {}
    now: int | str | None = None


_decode = msgspec.json.Decoder(_Asked).decode


def add_feature_routes(
    router: Router,
    services: Callable[[], Mapping[str, FeatureReader]],
    limits: NativeLimits,
    now: Callable[[], int],
    run_blocking: Callable[..., Any],
    *,
    waits: bool = False,
) -> None:
    """Serve feature services on a router.

    Args:
        router: where the routes go.
        services: the feature services by name.
        limits: what the settings allow.
        now: the clock, UTC microseconds.
        run_blocking: awaits a function run in a thread.
        waits: whether the online store is another machine, so that an event loop should not wait for it.
    """
    routes = _Routes(services, limits, now, run_blocking, waits)
    router.add("POST", "/feature-services/*/read", routes.read)
    router.add("GET", "/feature-services/*", routes.described)
    router.add("GET", "/feature-services", routes.listed)


class _Routes:
    def __init__(
        self,
        services: Callable[[], Mapping[str, FeatureReader]],
        limits: NativeLimits,
        now: Callable[[], int],
        run_blocking: Callable[..., Any],
        waits: bool,
    ) -> None:
        self._services = services
        self._limits = limits
        self._now = now
        self._run = run_blocking
        self._waits = waits

    async def listed(self, request: Request) -> Response:
        return json_response({"feature_services": list(self._services())})

    async def described(self, request: Request) -> Response:
        service = self._service(request)
        return json_response(
            {
                "name": service.name,
                "entities": {name: str(kind) for name, kind in service.keys.items()},
                "request": {name: str(kind) for name, kind in service.request.items()},
                "features": [
                    {"name": name, "type": str(kind), "from": view}
                    for name, kind, view in zip(service.names, service.types, service.views, strict=True)
                ],
            }
        )

    async def read(self, request: Request) -> Response:
        service = self._service(request)
        try:
            asked = _decode(request.body)
        except msgspec.DecodeError as error:
            shape = '{"entities": {"KEY": [..]}, "request": {..}, "now"?}'
            raise Fault(400, f"a question is {shape}: {error}") from None
        rows = max((len(column) for column in asked.entities.values()), default=0)
        if rows > self._limits.rows:
            raise Fault(413, f"{rows} entities; at most {self._limits.rows} are served at once")
        moment = self._moment(asked.now)
        if self._waits or service.blocks:
            found: FeatureAnswer = await self._run(service.read, asked.entities, asked.request, moment)
        else:
            found = service.read(asked.entities, asked.request, moment)
        if ARROW in request.headers.get(b"accept", b""):
            return Response(200, _arrow(found), ARROW)
        return Response(200, _json(service, found))

    def _moment(self, asked: int | str | None) -> int:
        if asked is None:
            return self._now()
        if not self._limits.replay:
            raise Fault(400, '"now" is allowed only where serving.replay is true')
        return moment_us(asked)

    def _service(self, request: Request) -> FeatureReader:
        (name,) = request.parameters
        services = self._services()
        if name not in services:
            raise Fault(404, f"no feature service is called {name!r}; there are: {', '.join(services) or 'none'}")
        return services[name]


def _json(service: FeatureReader, found: FeatureAnswer) -> bytes:
    written = [(place, _WRITTEN[kind.kind]) for place, kind in enumerate(service.types) if kind.kind in _WRITTEN]
    rows = found.rows
    if written:
        copies = [list(row) for row in rows]
        for place, write in written:
            for row in copies:
                row[place] = None if row[place] is None else write(row[place])
        rows = copies
    return orjson.dumps(
        {
            "names": found.names,
            "rows": rows,
            "status": {view: _letters(statuses) for view, statuses in found.statuses.items()},
            "event_us": found.events,
        }
    )


def _letters(statuses: Sequence[str]) -> str:
    if statuses.count("PRESENT") == len(statuses):
        return "P" * len(statuses)
    return "".join([_LETTERS[status] for status in statuses])


_WRITTEN: Mapping[Kind, Callable[[Any], str]] = {
    Kind.DATE: lambda value: date.fromordinal(value).isoformat(),
    Kind.BYTES: lambda value: base64.b64encode(value).decode(),
}
"""How values that JSON has no type for are written; moments are microseconds since 1970, decimals text."""


def _arrow(found: FeatureAnswer) -> bytes:
    table = found.arrow()
    for view, statuses in found.statuses.items():
        table = table.append_column(f"{view}__status", pa.array(statuses, pa.string()))
        events = pa.array(found.events[view], pa.int64()).cast(pa.timestamp("us", "UTC"))
        table = table.append_column(f"{view}__event_time", events)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
