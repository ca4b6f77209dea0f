"""Messages as rows of a record: JSON objects, and Debezium's changes; what does not fit is told row by row."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec

from mainspring.declare.record import ColumnType, Kind
from mainspring.features.decimals import EXACT, to_scale
from mainspring.features.logs.ingest import REASON, Prepared, prepare
from mainspring.features.logs.log import SourceTable, record_schema
from mainspring.features.quality.rowwise import Known, nothing_known
from mainspring.features.sources.files import RawFile
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["prepare_messages"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DECODE = msgspec.json.Decoder(object, float_hook=Decimal).decode
_MOST = 2**63


class _UnfitError(Exception):
    """A message is no row; the message says why."""


def prepare_messages(source: SourceTable, values: Iterable[bytes | None], known: Known = nothing_known) -> Prepared:
    """The rows that messages hold, in their order; a message without a value, as compaction needs them, holds none.

    A message is a JSON object by the names of the record's columns, or a change as Debezium tells it, with or without
    its schema: what was created, read or updated is its ``after``; what was deleted its ``before``, marked in the
    source's ``deleted`` column.

    Args:
        source: what rows should look like.
        values: the messages' values.
        known: the values that references of checks may have.
    """
    good: list[dict[str, object]] = []
    bad: list[tuple[dict[str, object], str]] = []
    for value in values:
        if value is None:
            continue
        row: dict[str, object] = {}
        try:
            given = _row_of(_object(value), source)
            problem = ""
            for field in source.fields:
                try:
                    row[field.name] = _value(given.get(field.name), field.type, source.zone)
                except (_UnfitError, ValueError, InvalidOperation, OverflowError, TypeError):
                    row[field.name] = None
                    problem = problem or f"{field.name} is no {field.type.kind.value}"
            if problem:
                raise _UnfitError(problem)
        except _UnfitError as error:
            bad.append((row, str(error)))
        else:
            good.append(row)
    schema = pa.schema([field.with_nullable(True) for field in record_schema(source.fields)])
    raw = RawFile(Path("the messages"), pa.Table.from_pylist(good, schema=schema), False, tuple(schema.names))
    prepared = prepare(source, [raw], known=known)
    if not bad:
        return prepared
    aside = pa.Table.from_pylist([row for row, _ in bad], schema=schema)
    aside = aside.append_column(REASON, pa.array([reason for _, reason in bad], pa.string()))
    report = dict(prepared.report)
    for _, reason in bad:
        report[reason] = report.get(reason, 0) + 1
    both = pa.concat_tables([prepared.set_aside.cast(aside.schema), aside])
    return Prepared(prepared.rows, both.combine_chunks(), report, prepared.given, prepared.results)


def _object(value: bytes) -> dict[str, Any]:
    try:
        found = _DECODE(value)
    except msgspec.MsgspecError as error:
        raise _UnfitError("the message is no JSON") from error
    if not isinstance(found, dict):
        raise _UnfitError("the message is no JSON object")
    return found


def _row_of(message: dict[str, Any], source: SourceTable) -> Mapping[str, Any]:
    """The columns of a message, out of Debezium's envelope if it is in one."""
    schema = None
    if message.keys() == {"schema", "payload"}:
        schema, message = message["schema"], message["payload"]
        if not isinstance(message, dict):
            raise _UnfitError("the message's payload is no object")
    if not ({"op", "after"} <= message.keys() or {"op", "before"} <= message.keys()):
        return _by_schema(message, schema)
    side = "before" if message["op"] == "d" else "after"
    if message["op"] == "d" and source.deleted is None:
        raise _UnfitError("it is a deletion, and the source has no deleted=")
    row = message.get(side)
    if not isinstance(row, dict):
        raise _UnfitError(f"the change holds no {side!r}")
    named = next((item for item in (schema or {}).get("fields", ()) if item.get("field") == side), None)
    row = dict(_by_schema(row, named))
    if source.deleted is not None:
        row[source.deleted] = message["op"] == "d"
    return row


def _by_schema(row: dict[str, Any], schema: Any) -> Mapping[str, Any]:
    """A row's values as what Kafka Connect's schema says they are; without one as they are."""
    if not isinstance(schema, dict):
        return row
    kinds = {item.get("field"): item for item in schema.get("fields", ()) if isinstance(item, dict)}
    found = {}
    for name, value in row.items():
        read = _CONNECT.get(str(kinds.get(name, {}).get("name")))
        try:
            found[name] = value if value is None or read is None else read(value, kinds[name])
        except (TypeError, ValueError, OverflowError, KeyError) as error:
            raise _UnfitError(f"{name} is not what its schema says") from error
    return found


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _naive(micros: int) -> datetime:
    return _moment(micros).replace(tzinfo=None)


def _scaled(value: str, kind: Mapping[str, Any]) -> Decimal:
    unscaled = int.from_bytes(base64.b64decode(value), "big", signed=True)
    return Decimal(unscaled).scaleb(-int(kind["parameters"]["scale"]), EXACT)


# Debezium's Timestamp and MicroTimestamp are of columns without a zone; Connect's Timestamp is a moment.
_CONNECT: Mapping[str, Callable[[Any, Mapping[str, Any]], object]] = {
    "io.debezium.time.Timestamp": lambda value, kind: _naive(value * 1000),
    "io.debezium.time.MicroTimestamp": lambda value, kind: _naive(value),
    "io.debezium.time.Date": lambda value, kind: date(1970, 1, 1) + timedelta(days=value),
    "org.apache.kafka.connect.data.Timestamp": lambda value, kind: _moment(value * 1000),
    "org.apache.kafka.connect.data.Date": lambda value, kind: date(1970, 1, 1) + timedelta(days=value),
    "org.apache.kafka.connect.data.Decimal": _scaled,
}


def _value(value: Any, kind: ColumnType, zone: str | None) -> object:
    """A value of JSON as the record's type has it, without loss.

    Raises:
        _UnfitError: it is none; or as Python's own conversions raise.
    """
    return None if value is None else _READ[kind.kind](value, kind, zone)


def _of(*types: type) -> Callable[[Any, ColumnType, str | None], object]:
    def read(value: Any, kind: ColumnType, zone: str | None) -> object:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise _UnfitError
        return value

    return read


def _integer(value: Any, kind: ColumnType, zone: str | None) -> int:
    number = int(value) if isinstance(value, Decimal) and value == int(value) else value
    if not isinstance(number, int) or isinstance(number, bool) or not -_MOST <= number < _MOST:
        raise _UnfitError
    return number


def _float(value: Any, kind: ColumnType, zone: str | None) -> float:
    if not isinstance(value, (int, Decimal)) or isinstance(value, bool):
        raise _UnfitError
    return float(value)


def _decimal(value: Any, kind: ColumnType, zone: str | None) -> Decimal:
    if not isinstance(value, (int, Decimal, str)) or isinstance(value, bool):
        raise _UnfitError
    number = Decimal(value)
    if not number.is_finite() or number.copy_abs() >= Decimal(10) ** (kind.precision - kind.scale):
        raise _UnfitError
    if number != to_scale(number, kind.scale):
        raise _UnfitError
    return number


def _time(value: Any, kind: ColumnType, zone: str | None) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        raise _UnfitError
    if moment.tzinfo is not None:
        return moment.astimezone(UTC)
    if zone is None:
        raise _UnfitError
    both = [moment.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1)]
    if both[0] != both[1]:
        raise _UnfitError  # it does not exist there, or exists twice
    return both[0]


def _date(value: Any, kind: ColumnType, zone: str | None) -> date:
    found = date.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(found, date) or isinstance(found, datetime):
        raise _UnfitError
    return found


def _bytes(value: Any, kind: ColumnType, zone: str | None) -> bytes:
    return base64.b64decode(value, validate=True)


def _vector(value: Any, kind: ColumnType, zone: str | None) -> list[float]:
    if not isinstance(value, list) or len(value) != kind.length:
        raise _UnfitError
    return [_float(item, kind, zone) for item in value]


_READ: Mapping[Kind, Callable[[Any, ColumnType, str | None], object]] = {
    Kind.STRING: _of(str),
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.BOOLEAN: _of(bool),
    Kind.TIMESTAMP: _time,
    Kind.DATE: _date,
    Kind.BYTES: _bytes,
    Kind.DECIMAL: _decimal,
    Kind.VECTOR: _vector,
}
