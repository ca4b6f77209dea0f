"""Tables and queries of Oracle as Arrow batches, by python-oracledb in thin mode; numbers and zones are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import oracledb
import pyarrow as pa
import pyarrow.compute as pc

from mainspring.adapters.oracle.problems import turned
from mainspring.errors import ConfigError, DataError
from mainspring.ports.source import NUMBER_AS_TEXT, Point, Range, Relation, SourceSettings, column_called

__all__ = ["OracleSource", "open_source"]

_ROWS = 10_000
_ZONED = ("DB_TYPE_TIMESTAMP_TZ", "DB_TYPE_TIMESTAMP_LTZ")
_PADDED = ("DB_TYPE_CHAR", "DB_TYPE_NCHAR")
_SWITCHES: Mapping[str, Any] = {"true": True, "false": False}
_ALIAS = "mainspring_source"
"""What is read from, so that columns are told from what the select list makes of them: both have one name."""
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_$#]*")


class OracleSource:
    """One source's database.

    Args:
        settings: ``oracle://user:password@host:1521/service``, and the options of `oracledb.connect`.
        connect: opens a connection.
    """

    def __init__(self, settings: SourceSettings, connect: Callable[..., Any] = oracledb.connect) -> None:
        parts = urlsplit(settings.url)
        service = unquote(parts.path.strip("/"))
        self.place = f"{parts.hostname or 'localhost'}:{parts.port or 1521}/{service}"
        self._timeout, self._connect = settings.timeout, connect
        self._known: dict[str, Any] = {
            "host": parts.hostname or "localhost",
            "port": parts.port or 1521,
            "service_name": service or None,
            "user": unquote(parts.username or "") or None,
            "password": unquote(parts.password or "") or None,
            "tcp_connect_timeout": settings.connect_timeout,
            "retry_count": 0,
            "expire_time": 1,  # minutes until a silent line is looked at
            **{name: _SWITCHES.get(value, value) for name, value in settings.options.items()},
        }

    def columns(self, of: Relation) -> Mapping[str, str]:
        """The relation's columns and their types."""
        return {name: kind.removeprefix("DB_TYPE_").lower() for name, kind in self._types(of).items()}

    def newest(self, of: Relation, column: str) -> Point | None:
        """The greatest value of a column."""
        types = self._types(of)
        actual = column_called(column, list(types)) or column
        kind, name = types.get(actual, ""), _quoted(actual)
        greatest = f"max({_utc(name)})" if kind in _ZONED else f"max({name})"
        with self._turning(of), self._connected() as connection:
            chosen = _as_text(greatest) if kind == "DB_TYPE_NUMBER" else greatest
            row = connection.cursor().execute(f"select {chosen} from {_from(of)}").fetchone()
        found = None if row is None else row[0]
        if kind == "DB_TYPE_NUMBER" and found is not None:
            return Decimal(found)
        return found.replace(tzinfo=UTC) if kind in _ZONED and found is not None else found

    def rows(self, of: Relation, schema: pa.Schema, within: Range | None) -> Iterator[pa.RecordBatch]:
        """The rows, in batches."""
        types = self._types(of)
        actual = [column_called(field.name, list(types)) or field.name for field in schema]
        kinds = [types.get(name, "") for name in actual]
        chosen = [
            f"{_expression(_quoted(name), kind)} as {_quoted(field.name)}"
            for field, name, kind in zip(schema, actual, kinds, strict=True)
        ]
        statement = f"select {', '.join(chosen)} from {_from(of)}"
        if within is not None:
            name = column_called(within.column, list(types)) or within.column
            statement += _where(f"{_ALIAS}.{_quoted(name)}", types.get(name, ""), within)
        with self._turning(of), self._connected() as connection:
            for frame in connection.fetch_df_batches(statement, size=_ROWS):
                yield from _batches(pa.table(frame), schema, kinds)

    def answers(self) -> Mapping[str, object]:
        """The server's version."""
        with self._turning(None), self._connected() as connection:
            return {"version": connection.version}

    def close(self) -> None:
        """Nothing is held between reads."""

    def _types(self, of: Relation) -> dict[str, str]:
        with self._turning(of), self._connected() as connection:
            cursor = connection.cursor()
            cursor.execute(f"select * from {_from(of)} where 1 = 0")
            return {column.name: column.type_code.name for column in cursor.description}

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        connection = self._connect(**self._known)
        try:
            connection.call_timeout = round(self._timeout * 1000)
            # All statements of a connection see one moment, and none of them writes.
            connection.cursor().execute("set transaction read only")
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _turning(self, of: Relation | None) -> Iterator[None]:
        try:
            yield
        except (oracledb.Error, pa.ArrowException, OSError, ValueError, TypeError) as error:
            raise turned(error, self.place, of) from error


def _as_text(number: str) -> str:
    """A NUMBER as text: Arrow gets doubles of them otherwise, unless each is declared to the driver."""
    return f"to_char({number}, 'TM9', 'NLS_NUMERIC_CHARACTERS=''.,''')"


def _utc(moment: str) -> str:
    """A time with a zone as UTC: python-oracledb drops the zone."""
    return f"sys_extract_utc({moment})"


def _expression(column: str, kind: str) -> str:
    if kind == "DB_TYPE_NUMBER":
        return _as_text(column)
    if kind in _ZONED:
        return _utc(column)
    if kind in _PADDED:
        return f"rtrim({column})"
    if kind == "DB_TYPE_JSON":
        return f"json_serialize({column} returning clob)"
    return f"rowidtochar({column})" if kind == "DB_TYPE_ROWID" else column


def _batches(rows: pa.Table, schema: pa.Schema, kinds: list[str]) -> Iterator[pa.RecordBatch]:
    columns, fields = [], []
    for field, column, kind in zip(schema, rows.columns, kinds, strict=True):
        read = _read(column, kind, field)
        number = kind == "DB_TYPE_NUMBER" and not pa.types.is_string(field.type)
        columns.append(read)
        fields.append(pa.field(field.name, read.type, metadata=dict(NUMBER_AS_TEXT) if number else None))
    table = pa.table(columns, schema=pa.schema(fields)).combine_chunks()
    yield from table.to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]


def _read(column: pa.ChunkedArray, kind: str, field: pa.Field) -> pa.ChunkedArray:
    if pa.types.is_large_string(column.type):
        column = column.cast(pa.string())
    if kind == "DB_TYPE_NUMBER":
        return pc.replace_substring_regex(column.cast(pa.string()), r"^(-?)\.", r"\10.")
    if kind in _ZONED:
        return pc.assume_timezone(column, "UTC")
    if kind == "DB_TYPE_DATE":
        return _day(field.name, column, field.type)
    return column


def _day(name: str, column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """Oracle's DATE has a time of day; one that is midnight everywhere is a date where the record wants one.

    Raises:
        DataError: MS-2151, the record wants a date and it is none.
    """
    moments = column.cast(pa.timestamp("us"))
    if not pa.types.is_date(wanted):
        return moments
    days = moments.cast(pa.date32())
    if not pc.all(pc.equal(days.cast(pa.timestamp("us")), moments), min_count=0).as_py():
        raise DataError(
            "a DATE of Oracle's holds a time of day, and the record wants a date",
            code="MS-2151",
            why="which day it is depends on a zone",
            origin=f"column {name}",
            fix=f"declare {name} as datetime, or cut it in a query: trunc({name})",
        )
    return days


def _from(of: Relation) -> str:
    if of.query is not None:
        return f"({of.query}\n) {_ALIAS}"
    parts = str(of.table).split(".")
    return ".".join(part if _PLAIN.fullmatch(part) else _quoted(part) for part in parts) + f" {_ALIAS}"


def _where(column: str, kind: str, within: Range) -> str:
    bounds = [f"{column} <= {_literal(within.most, kind)}"]
    if within.least is not None:
        bounds.insert(0, f"{column} >= {_literal(within.least, kind)}")
    return f" where ({' and '.join(bounds)}) or {column} is null order by {column}"


def _literal(value: Point, kind: str) -> str:
    """A value in the column's own type, as an index is not used through a conversion."""
    if isinstance(value, date) and kind == "DB_TYPE_DATE":
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
        return f"to_date('{moment:%Y-%m-%d %H:%M:%S}', 'YYYY-MM-DD HH24:MI:SS')"
    if isinstance(value, datetime):
        zone = "" if value.tzinfo is None else " +00:00"
        moment = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        return f"timestamp '{moment.isoformat(' ')}{zone}'"
    if isinstance(value, date):
        return f"date '{value.isoformat()}'"
    return f"{value:f}" if isinstance(value, Decimal) else str(int(value))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', "") + '"'  # no name of Oracle's has a quotation mark


def open_source(settings: SourceSettings, state: Path) -> OracleSource:
    """A database that a source is in; nothing is connected yet.

    Raises:
        ConfigError: MS-3042, the URL is none.
    """
    try:
        return OracleSource(settings)
    except ValueError as error:  # a port that is no number; the text could hold a password
        raise ConfigError(
            "the url of a source is none",
            code="MS-3042",
            why="its port is no number",
            origin="sources.NAME.url",
            fix="write oracle://user:password@host:port/name, with signs in the password as %40",
        ) from error
