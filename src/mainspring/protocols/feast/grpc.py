"""Feast's gRPC services on the same store as its HTTP wire.

``feast.serving.ServingService``: GetFeastServingInfo, GetOnlineFeatures; ``GrpcFeatureServer``: GetOnlineFeatures,
Push, WriteToOnlineStore. A client's fault is INVALID_ARGUMENT or NOT_FOUND; a caller without a key UNAUTHENTICATED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DeclarationError, UsageError
from mainspring.protocols.feast.messages import SERVER, SERVING, messages, schema
from mainspring.protocols.feast.rest import FeastRows, FeastStore
from mainspring.protocols.grpc.service import GrpcCall, GrpcService
from mainspring.protocols.http import Fault

__all__ = ["feast_services"]

VERSION = "1"
"""What GetFeastServingInfo answers; clients only show it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUSES = {"PRESENT": 1, "MISSING": 3, "EXPIRED": 4}
_MOST_CELLS = 4_000_000
_FIELDS: Mapping[Kind, str] = {
    Kind.STRING: "string_val",
    Kind.INTEGER: "int64_val",
    Kind.FLOAT: "double_val",
    Kind.BOOLEAN: "bool_val",
    Kind.BYTES: "bytes_val",
    Kind.DECIMAL: "string_val",
}
_LISTS: Mapping[Kind, str] = {
    Kind.STRING: "string_list_val",
    Kind.INTEGER: "int64_list_val",
    Kind.FLOAT: "double_list_val",
    Kind.BOOLEAN: "bool_list_val",
    Kind.BYTES: "bytes_list_val",
    Kind.DECIMAL: "string_list_val",
}


def feast_services(store: FeastStore) -> tuple[GrpcService, ...]:
    """The services.

    Args:
        store: the feature store; its methods may wait, and are called in threads.
    """
    answers = _Answers(store)
    return (
        GrpcService(SERVING, schema(), {"GetFeastServingInfo": answers.info, "GetOnlineFeatures": answers.read}),
        GrpcService(
            SERVER,
            schema(),
            {"GetOnlineFeatures": answers.read, "Push": answers.push, "WriteToOnlineStore": answers.write},
        ),
    )


class _Answers:
    def __init__(self, store: FeastStore) -> None:
        self._store = store

    async def info(self, asked: Any, call: GrpcCall) -> Any:
        return messages()["GetFeastServingInfoResponse"](version=VERSION)

    async def read(self, asked: Any, call: GrpcCall) -> Any:
        features = self._features(asked)
        try:
            keys = self._store.keys(features)
        except (UsageError, DeclarationError) as error:
            raise Fault(404, f"{error.what}; {error.fix}") from error
        given = {**asked.entities, **asked.request_context}
        entities = _entities(given, keys)
        service = asked.feature_service if asked.WhichOneof("kind") == "feature_service" else None
        found: FeastRows = await asyncio.to_thread(self._store.read, features, entities, service)
        return await asyncio.to_thread(_answer, asked, given, found, len(entities))

    def _features(self, asked: Any) -> Sequence[str]:
        if asked.WhichOneof("kind") == "feature_service":
            found = self._store.service(asked.feature_service)
            if found is None:
                raise Fault(404, f"Feature service {asked.feature_service} does not exist")
            return found
        features = list(asked.features.val)
        bad = next((name for name in features if ":" not in name), None)
        if not features or bad is not None:
            raise Fault(400, f"{bad or 'nothing'} is no reference to a feature: VIEW:FEATURE")
        return features

    async def push(self, asked: Any, call: GrpcCall) -> Any:
        source = asked.stream_feature_view
        if source not in self._store.sources():
            known = ", ".join(self._store.sources())
            raise Fault(404, f"Unable to find push source '{source}'; there are: {known}")
        row: dict[str, Any] = dict(asked.features)
        row |= {name: _python(value) for name, value in asked.typed_features.items()}
        if not row:
            raise Fault(400, "a push holds features or typed_features")
        await asyncio.to_thread(self._store.push, source, [row])
        return messages()["PushResponse"](status=True)

    async def write(self, asked: Any, call: GrpcCall) -> Any:
        """A view has one way in, its source's log, so that the online store can be written anew from it."""
        if asked.feature_view_name not in self._store.views():
            raise Fault(404, f"Feature view {asked.feature_view_name} does not exist")
        raise Fault(400, "features are made of their source's rows: Push with the source's name")


def _entities(given: Mapping[str, Any], keys: Mapping[str, ColumnType]) -> list[dict[str, Any]]:
    missing = sorted(set(keys) - set(given))
    if missing:
        raise Fault(400, f"the entities lack the key {', '.join(missing)}")
    lengths = {len(column.val) for column in given.values()}
    if len(lengths) > 1:
        raise Fault(400, f"the columns of entities have {sorted(lengths)} values")
    count = lengths.pop() if lengths else 1
    if count * max(len(keys), 1) > _MOST_CELLS:
        raise Fault(400, f"{count} entities in one request are too many")
    columns = [[_key(name, _python(value), kind) for value in given[name].val] for name, kind in keys.items()]
    if not columns:
        return [{} for _ in range(count)]
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


def _key(name: str, value: Any, kind: ColumnType) -> Any:
    """A key or request field as it is packed; a text of digits is an integer here, as Feast's clients send it so."""
    try:
        if kind.kind is Kind.INTEGER and isinstance(value, str):
            return int(value)
        if kind.kind is Kind.TIMESTAMP and isinstance(value, datetime):
            return (value - _EPOCH) // timedelta(microseconds=1)
        if kind.kind is Kind.DATE and isinstance(value, datetime):
            return value.date()
        if kind.kind is Kind.FLOAT and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
    except ValueError:
        raise Fault(400, f"key {name}: {value!r} is no {kind}") from None
    return value


def _python(value: Any) -> Any:
    """What a `feast.types.Value` holds; moments are whole seconds there."""
    kind = value.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    held = getattr(value, kind)
    if kind == "unix_timestamp_val":
        return _EPOCH + timedelta(seconds=held)
    return list(held.val) if kind.endswith("_list_val") else held


def _answer(asked: Any, given: Mapping[str, Any], found: FeastRows, rows: int) -> Any:
    answer = messages()["GetOnlineFeaturesResponse"](status=True)
    names = [
        f"{column.view}__{column.feature}" if asked.full_feature_names else column.feature for column in found.columns
    ]
    answer.metadata.feature_names.val.extend([*given, *names])
    if asked.include_feature_view_version_metadata:
        for name in found.versions:
            answer.metadata.feature_view_metadata.add(name=name)
    for column in given.values():
        vector = answer.results.add()
        vector.values.extend(column.val)
        vector.statuses.extend([1] * rows)
        for _ in range(rows):
            vector.event_timestamps.add()
    value_class = messages()["Value"]
    for described, values, statuses, events in zip(
        found.columns, found.values, found.statuses, found.events, strict=True
    ):
        vector = answer.results.add()
        vector.values.extend([_value(value_class, value, described.type) for value in values])
        vector.statuses.extend([_STATUSES[status] for status in statuses])
        for event in events:
            seconds, micros = divmod(event or 0, 1_000_000)
            vector.event_timestamps.add(seconds=seconds, nanos=micros * 1000)
    return answer


def _value(value_class: Any, value: Any, kind: ColumnType) -> Any:
    found = value_class()
    if value is None:
        return found
    if kind.kind is Kind.TIMESTAMP:
        found.unix_timestamp_val = value // 1_000_000
    elif kind.kind is Kind.DATE:
        found.unix_timestamp_val = (value - _EPOCH.toordinal()) * 86_400
    elif kind.kind is Kind.VECTOR:
        found.float_list_val.val.extend(value)
    elif kind.kind is Kind.LIST:
        _fill(found, value, kind.element)
    else:
        setattr(found, _FIELDS[kind.kind], value)
    return found


def _fill(found: Any, values: Sequence[Any], kind: ColumnType) -> None:
    """A list; protobuf's have no nulls, so those are left out."""
    held = [value for value in values if value is not None]
    if kind.kind is Kind.TIMESTAMP:
        found.unix_timestamp_list_val.val.extend([value // 1_000_000 for value in held])
    elif kind.kind is Kind.DATE:
        found.unix_timestamp_list_val.val.extend([(value - _EPOCH.toordinal()) * 86_400 for value in held])
    else:
        getattr(found, _LISTS[kind.kind]).val.extend(held)
