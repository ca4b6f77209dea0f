"""Feature services and pushes over gRPC, a column a message field.

``mainspring.v1.Features/Read``: of each feature a column over the entities. A value that is missing is a filler, and
its place is in ``missing``. Moments are microseconds since 1970, dates and decimals text; ``status`` has a byte an
entity: P, M or E (Present, Missing, Expired).
``mainspring.v1.Sources/Push``: rows as an Arrow IPC stream with plain buffers; acknowledged as ``POST
/sources/NAME/push`` is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from mainspring.declare.record import ColumnType, Kind
from mainspring.protocols.grpc.service import GrpcCall, GrpcService
from mainspring.protocols.http import Fault
from mainspring.protocols.native.features import FeatureAnswer, FeatureReader
from mainspring.protocols.native.messages import FEATURES, SOURCES, schema
from mainspring.protocols.native.rest import NativeLimits, PushSink, moment_us

__all__ = ["native_services"]

_LETTERS = {"PRESENT": b"P", "MISSING": b"M", "EXPIRED": b"E"}
_KINDS: Mapping[Kind, tuple[str, Any]] = {
    Kind.STRING: ("strings", ""),
    Kind.DECIMAL: ("strings", ""),
    Kind.DATE: ("strings", ""),
    Kind.INTEGER: ("ints", 0),
    Kind.TIMESTAMP: ("ints", 0),
    Kind.FLOAT: ("doubles", 0.0),
    Kind.BOOLEAN: ("bools", False),
    Kind.BYTES: ("blobs", b""),
}
"""The field of each kind of value, and what stands where one is missing."""


def native_services(
    services: Callable[[], Mapping[str, FeatureReader]],
    push: PushSink | None,
    limits: NativeLimits,
    now: Callable[[], int],
    run_blocking: Callable[..., Any],
    *,
    waits: bool = False,
) -> list[GrpcService]:
    """The services.

    Args:
        services: the feature services by name.
        push: takes pushed rows; None where there are no tables.
        limits: what the settings allow.
        now: the clock, UTC microseconds.
        run_blocking: awaits a function run in a thread.
        waits: whether the online store is another machine, so that an event loop should not wait for it.
    """
    answers = _Answers(services, push, limits, now, run_blocking, waits)
    found = []
    if services():
        found.append(GrpcService(FEATURES, schema(), {"Read": answers.read}))
    if push is not None:
        found.append(GrpcService(SOURCES, schema(), {"Push": answers.push}))
    return found


class _Answers:
    def __init__(
        self,
        services: Callable[[], Mapping[str, FeatureReader]],
        push: PushSink | None,
        limits: NativeLimits,
        now: Callable[[], int],
        run_blocking: Callable[..., Any],
        waits: bool,
    ) -> None:
        self._services = services
        self._push = push
        self._limits = limits
        self._now = now
        self._run = run_blocking
        self._waits = waits
        self._read, self._pushed = (schema().message(f"mainspring.v1.{name}Response") for name in ("Read", "Push"))
        self._column = schema().message("mainspring.v1.Column")

    async def read(self, asked: Any, call: GrpcCall) -> Any:
        services = self._services()
        service = services.get(asked.feature_service)
        if service is None:
            known = ", ".join(services)
            raise Fault(404, f"no feature service is called {asked.feature_service!r}; there are: {known}")
        entities = {name: self._values(name, column) for name, column in asked.entities.items()}
        rows = max((len(column) for column in entities.values()), default=0)
        if rows > self._limits.rows:
            raise Fault(413, f"{rows} entities; at most {self._limits.rows} are served at once")
        request = {name: _only(name, self._values(name, column)) for name, column in asked.request.items()}
        moment = self._moment(asked.now_us)
        if self._waits or service.blocks:
            found = await self._run(service.read, entities, request, moment)
        else:
            found = service.read(entities, request, moment)
        return self._answer(service, found)

    async def push(self, asked: Any, call: GrpcCall) -> Any:
        assert self._push is not None
        found = await self._run(self._push, asked.source, asked.rows, None, asked.idempotency_key or None)
        return self._pushed(accepted=found["accepted"], quarantined=found.get("quarantined", 0))

    def _moment(self, asked: int) -> int:
        if not asked:
            return self._now()
        if not self._limits.replay:
            raise Fault(400, "now_us is allowed only where serving.replay is true")
        return moment_us(asked)

    def _values(self, name: str, column: Any) -> list[Any]:
        kind = column.WhichOneof("kind")
        if kind == "lists":
            raise Fault(400, f"{name!r} is a column of lists, which no key is made of")
        values: list[Any] = [] if kind is None else list(getattr(column, kind).values)
        for place in column.missing:
            if place >= len(values):
                raise Fault(400, f"{name!r} misses value {place}, and has {len(values)}")
            values[place] = None
        return values

    def _answer(self, service: FeatureReader, found: FeatureAnswer) -> Any:
        answer = self._read(names=found.names)
        columns = zip(*found.rows, strict=True) if found.rows else [()] * len(found.names)
        for kind, values in zip(service.types, columns, strict=True):
            self._fill(answer.columns.add(), kind, values)
        for view, statuses in found.statuses.items():
            state = answer.views.add(view=view, status=b"".join([_LETTERS[status] for status in statuses]))
            self._fill(state.event_us, ColumnType(Kind.TIMESTAMP, True), found.events[view])
        return answer

    def _fill(self, column: Any, kind: ColumnType, values: Sequence[Any]) -> None:
        if kind.kind in (Kind.LIST, Kind.VECTOR):
            element = kind.element if kind.kind is Kind.LIST else ColumnType(Kind.FLOAT)
            column.lists.SetInParent()
            for place, value in enumerate(values):
                self._fill(column.lists.values.add(), element, () if value is None else value)
                if value is None:
                    column.missing.append(place)
            return
        name, filler = _KINDS[kind.kind]
        written = values
        if kind.kind is Kind.DATE:
            written = [None if value is None else date.fromordinal(value).isoformat() for value in values]
        if None in written:
            column.missing.extend([place for place, value in enumerate(written) if value is None])
            written = [filler if value is None else value for value in written]
        field = getattr(column, name)
        field.SetInParent()
        field.values.extend(written)


def _only(name: str, values: list[Any]) -> Any:
    """A value of the request: one for all entities, or one an entity."""
    if not values:
        raise Fault(400, f"{name!r} of the request has no value")
    return values[0] if len(values) == 1 else values
