"""Mainspring's own routes, in JSON.

``POST /endpoint/{name}``: ``{"origin": "JFK", "distance": 1089, "now"?}`` or ``{"rows": [{..}], "now"?}``
``POST /endpoint/{name}/batch``: the latter alone, for typed clients, to which one path answers one shape
``POST /endpoint/{name}/versions/{number}``, ``POST /endpoint/{name}/labels/{label}``: the same of one version
``POST /labels``: ``{"labels": [{"id", "value", "at", "name"?}]}``, or a CSV or Parquet file of these columns
``POST /sources/{name}/push``: ``{"rows": [{..}], "now"?}`` with ``Idempotency-Key``, or the rows as an Arrow stream
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

import orjson

from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.serving.endpoint import ANY, Answer, Asked, EndpointService
from mainspring.serving.rollout.split import KEY_HEADERS

__all__ = ["LabelReader", "LabelSink", "NativeLimits", "PushSink", "add_native_routes", "moment_us"]


_FILES: Mapping[bytes, Literal["csv", "parquet"]] = {
    b"text/csv": "csv",
    b"application/vnd.apache.parquet": "parquet",
    b"application/parquet": "parquet",
}
"""The content types of files with labels."""
_ARROW = frozenset({b"application/vnd.apache.arrow.stream", b"application/vnd.apache.arrow.file"})
"""The content types of rows as Arrow IPC."""


class PushSink(Protocol):
    """Takes rows of a source."""

    def __call__(
        self, source: str, rows: Sequence[Mapping[str, Any]] | bytes, now: int | str | None, request_id: str | None
    ) -> Mapping[str, object]:
        """Make them durable, upsert them online, and say ``accepted``, ``quarantined`` and ``seq``; bytes are Arrow."""


class LabelReader(Protocol):
    """Reads labels out of a file."""

    def __call__(self, kind: Literal["csv", "parquet"], data: bytes) -> list[tuple[str, str, float, int]]:
        """The labels as (id, name, value, at)."""


class LabelSink(Protocol):
    """Takes labels of predictions."""

    def __call__(self, labels: Sequence[tuple[str, str, float, int]]) -> Mapping[str, int]:
        """Record (id, name, value, at); says how many were ``accepted`` and how many were ``duplicate``.

        An id that is in no log yet is accepted: it is joined when its prediction is there by the time that its block's
        labels are due.
        """


class NativeLimits(Protocol):
    """What the settings allow."""

    @property
    def rows(self) -> int:
        """Most rows in one request."""

    @property
    def replay(self) -> bool:
        """Whether a request may set its own moment."""


def add_native_routes(
    router: Router,
    endpoints: Callable[[], Mapping[str, EndpointService]],
    push: PushSink,
    labels: LabelSink,
    limits: NativeLimits,
    now: Callable[[], int],
    run_blocking: Callable[..., Any],
    read_labels: LabelReader | None = None,
) -> None:
    """Serve Mainspring's own routes on a router.

    Args:
        router: where the routes go.
        endpoints: the endpoints that are ready, by name.
        push: takes pushed rows.
        labels: takes labels.
        limits: what the settings allow.
        now: the clock, UTC microseconds.
        run_blocking: awaits a function run in a thread, for what touches disks.
        read_labels: reads labels out of a file; without it they come as JSON alone.
    """
    routes = _Routes(endpoints, push, labels, limits, now, run_blocking, read_labels)
    router.add("POST", "/endpoint/*", routes.endpoint, asks=True)
    router.add("POST", "/endpoint/*/versions/*", routes.endpoint_version, asks=True)
    router.add("POST", "/endpoint/*/labels/*", routes.endpoint_label, asks=True)
    router.add("POST", "/endpoint/*/batch", routes.batch, asks=True)
    router.add("GET", "/endpoint/*", routes.described)
    router.add("GET", "/endpoint", routes.names)
    router.add("POST", "/labels", routes.labels)
    router.add("POST", "/sources/*/push", routes.push)


def moment_us(value: object) -> int:
    """A moment in a request: RFC 3339 with a zone, or whole microseconds since 1970; after 1970 and before 2262.

    Raises:
        Fault: 400.
    """
    found = value if type(value) is int else _read_moment(value)
    if not 0 < found < _LAST:
        raise Fault(400, f"{value!r} is no moment between 1970 and 2262")
    return found


def _read_moment(value: object) -> int:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise Fault(400, f"{value!r} is no moment; write 2013-07-01T12:00:00Z") from None
    if found.tzinfo is None:
        raise Fault(400, f"{value!r} has no time zone; write 2013-07-01T12:00:00Z")
    return (found - _EPOCH) // timedelta(microseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (1 << 63) // 1000
"""Where nanoseconds leave 64 bits, in microseconds: in the year 2262."""


class _Routes:
    def __init__(
        self,
        endpoints: Callable[[], Mapping[str, EndpointService]],
        push: PushSink,
        labels: LabelSink,
        limits: NativeLimits,
        now: Callable[[], int],
        run_blocking: Callable[..., Any],
        read_labels: LabelReader | None,
    ) -> None:
        self._endpoints = endpoints
        self._push = push
        self._labels = labels
        self._limits = limits
        self._now = now
        self._run = run_blocking
        self._read_labels = read_labels

    async def names(self, request: Request) -> Response:
        return json_response({"endpoints": list(self._endpoints())})

    async def described(self, request: Request) -> Response:
        service = self._service(request)
        return json_response(
            {
                "name": service.name,
                "model": service.model,
                "keys": {name: str(kind) for name, kind in service.keys.items()},
                "columns": [
                    {"name": c.name, "type": str(c.type), "from": "request" if c.feature is None else "features"}
                    for c in service.columns
                ],
                "logged": list(service.beside),
            }
        )

    async def endpoint(self, request: Request) -> Response:
        return await self._asked(request, _by_key(request))

    async def endpoint_version(self, request: Request) -> Response:
        return await self._asked(request, Asked(version=request.parameters[1]))

    async def endpoint_label(self, request: Request) -> Response:
        return await self._asked(request, Asked(label=request.parameters[1]))

    async def _asked(self, request: Request, asked: Asked) -> Response:
        service = self._service(request)
        body = _object(request.body, 'one question is {"COLUMN": value, ..}, many are {"rows": [{..}, ..]}')
        if "rows" in body:
            return await self._many(service, body, request.query, asked)
        now = self._moment(body)
        (answer,) = await self._answered(service, (body,), (now,), asked)
        return Response(200, orjson.dumps(_plain(service, answer, request.query)))

    async def batch(self, request: Request) -> Response:
        service = self._service(request)
        body = _object(request.body, 'a batch is {"rows": [{..}, ..], "now"?}')
        return await self._many(service, body, request.query, _by_key(request))

    async def _many(self, service: EndpointService, body: dict[str, Any], query: bytes, asked: Asked) -> Response:
        now, rows = self._moment(body), body.pop("rows", None)
        if body or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Fault(400, 'a batch is {"rows": [{..}, ..], "now"?}')
        if not rows:
            raise Fault(400, "rows is empty: a batch has a row or more")
        if len(rows) > self._limits.rows:
            raise Fault(413, f"{len(rows)} rows; at most {self._limits.rows} are served at once")
        moments = [self._moment(row, now) for row in rows]
        answers = await self._answered(service, rows, moments, asked)
        return Response(200, orjson.dumps({"predictions": [_plain(service, a, query) for a in answers]}))

    async def _answered(
        self, service: EndpointService, rows: Sequence[Mapping[str, Any]], moments: Sequence[int], asked: Asked
    ) -> list[Answer]:
        """The answers; what waits for another machine holds up nobody else's request."""
        if service.waits:
            looked = await self._run(service.looked_up, rows, moments, asked)
        else:
            looked = service.looked_up(rows, moments, asked)
        return await service.concluded_soon(rows, moments, looked)

    def _service(self, request: Request) -> EndpointService:
        name = request.parameters[0]
        endpoints = self._endpoints()
        if name not in endpoints:
            raise Fault(404, f"no endpoint is called {name!r}; there are: {', '.join(endpoints) or 'none'}")
        return endpoints[name]

    def _moment(self, body: dict[str, Any], default: int | None = None) -> int:
        asked = body.pop("now", None)
        if asked is None:
            return self._now() if default is None else default
        if not self._limits.replay:
            raise Fault(400, '"now" is allowed only where serving.replay is true')
        return moment_us(asked)

    async def labels(self, request: Request) -> Response:
        kind = _FILES.get(request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower())
        if kind is not None and self._read_labels is not None:
            rows = await self._run(self._read_labels, kind, request.body)
            return json_response(await self._run(self._labels, rows), 202)
        shape = 'labels come as {"labels": [{"id", "value", "at", "name"?}]}'
        items = _object(request.body, shape).get("labels")
        if not isinstance(items, list):
            raise Fault(400, shape)
        found = [_label(item) for item in items]
        return json_response(await self._run(self._labels, found), 202)

    async def push(self, request: Request) -> Response:
        (source,) = request.parameters
        given = request.headers.get(b"idempotency-key")
        key = given.decode("latin-1") if given else None
        if request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() in _ARROW:
            return json_response(await self._run(self._push, source, request.body, None, key))
        shape = 'rows come as {"rows": [{..}]}'
        body = _object(request.body, shape)
        rows = body.get("rows")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Fault(400, shape)
        if len(rows) > self._limits.rows:
            raise Fault(413, f"{len(rows)} rows; at most {self._limits.rows} are taken at once")
        now = body.get("now")
        if now is not None and not self._limits.replay:
            raise Fault(400, '"now" is allowed only where serving.replay is true')
        moment = now if now in (None, "event") else moment_us(now)
        return json_response(await self._run(self._push, source, rows, moment, key))


def _by_key(request: Request) -> Asked:
    """The version that a caller stays with by the key of its header, where it has one; else by its rows' entities."""
    key = request.headers.get(KEY_HEADERS[0])
    return Asked(key=key) if key else ANY


def _plain(service: EndpointService, answer: Answer, query: bytes) -> dict[str, object]:
    plain: dict[str, object] = {
        "id": answer.id,
        "model": service.model,
        "version": answer.version,
        "prediction": answer.prediction,
        "score": answer.score,
        "status": answer.statuses,
    }
    if answer.parts:
        plain["models"] = dict(answer.parts)
    if b"features=true" in query:
        plain["features"] = {column.name: value for column, value in zip(answer.columns, answer.values, strict=True)}
    return plain


def _object(body: bytes, shape: str) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Fault(400, f"the body is not JSON: {error.msg} at byte {error.pos}") from None
    if not isinstance(found, dict):
        raise Fault(400, f"the body is a JSON {_JSON_NAMES[type(found)]}, no JSON object: {shape}")
    return found


_JSON_NAMES: Mapping[type, str] = {
    list: "list",
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    type(None): "null",
}


def _label(item: Any) -> tuple[str, str, float, int]:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str) or "value" not in item or "at" not in item:
        raise Fault(400, 'a label is {"id", "value", "at", "name"?}')
    value = item["value"]
    if type(value) not in (int, float, bool):
        raise Fault(400, f"label value {value!r} is no number and no boolean")
    return item["id"], str(item.get("name", "")), float(value), moment_us(item["at"])
