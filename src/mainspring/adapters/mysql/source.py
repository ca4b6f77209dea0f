"""Tables and queries of MySQL or MariaDB as Arrow batches; values come as text and are read by Arrow, exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pymysql
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions
from pymysql.cursors import SSCursor

from mainspring.adapters.mysql.problems import turned
from mainspring.errors import ConfigError
from mainspring.ports.source import NUMBER_AS_TEXT, Point, Range, Relation, SourceSettings, column_called

__all__ = ["MysqlSource", "open_source"]

_ROWS = 10_000
_NAMES = {number: name.lower() for name, number in vars(FIELD_TYPE).items() if not name.startswith("_")}
_WHOLE = {FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.LONG, FIELD_TYPE.INT24, FIELD_TYPE.YEAR}
_EXACT = {FIELD_TYPE.LONGLONG, FIELD_TYPE.NEWDECIMAL, FIELD_TYPE.DECIMAL}
_TIMES = {FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP}
_SWITCHES = {"true": True, "false": False}


class MysqlSource:
    """One source's database.

    Args:
        settings: where it is.
    """

    def __init__(self, settings: SourceSettings) -> None:
        parts = urlsplit(settings.url)
        self._database = unquote(parts.path.strip("/"))
        self.place = f"{parts.hostname or 'localhost'}:{parts.port or 3306}/{self._database}"
        self._timeout = settings.timeout
        self._known: dict[str, Any] = {
            "host": parts.hostname or "localhost",
            "port": parts.port or 3306,
            "user": unquote(parts.username or "") or None,
            "password": unquote(parts.password or ""),
            "database": self._database or None,
            "charset": "utf8mb4",
            "connect_timeout": max(1, round(settings.connect_timeout)),
            "read_timeout": max(1, round(settings.timeout) + 10),
            "write_timeout": max(1, round(settings.connect_timeout)),
            "autocommit": True,
            # The session's zone tells what a TIMESTAMP is written in.
            "init_command": "set session time_zone = '+00:00'",
            **{name: _SWITCHES.get(value, value) for name, value in settings.options.items()},
        }

    def columns(self, of: Relation) -> Mapping[str, str]:
        """The relation's columns and their types."""
        return {name: _NAMES.get(code, str(code)) for name, code in self._types(of).items()}

    def newest(self, of: Relation, column: str) -> Point | None:
        """The greatest value of a column."""
        actual = _quoted(column_called(column, list(self._types(of))) or column)
        described, rows = self._asked(of, f"select max({actual}) from {_from(of)}")
        value = rows[0][0]
        if isinstance(value, datetime) and described[0][1] == FIELD_TYPE.TIMESTAMP:
            return value.replace(tzinfo=UTC)
        return value  # type: ignore[no-any-return]

    def rows(self, of: Relation, schema: pa.Schema, within: Range | None) -> Iterator[pa.RecordBatch]:
        """The rows, in batches."""
        types = self._types(of)
        actual = {field.name: column_called(field.name, list(types)) or field.name for field in schema}
        codes = [types.get(actual[field.name], FIELD_TYPE.VAR_STRING) for field in schema]
        chosen = [_expression(_quoted(actual[field.name]), code) for field, code in zip(schema, codes, strict=True)]
        statement = f"select {', '.join(chosen)} from {_from(of)}"
        if within is not None:
            statement += _where(_quoted(column_called(within.column, list(types)) or within.column), within)
        with self._turning(of), self._connected(conv={}, cursorclass=SSCursor) as connection:
            cursor = connection.cursor()
            try:
                cursor.execute(statement)
                yield _batch((), schema, codes)
                while found := cursor.fetchmany(_ROWS):
                    yield _batch(found, schema, codes)
            finally:
                _hang_up(connection)

    def answers(self) -> Mapping[str, object]:
        """The server's version."""
        with self._turning(None), self._connected() as connection:
            return {"version": connection.get_server_info()}

    def close(self) -> None:
        """Nothing is held between reads."""

    def _types(self, of: Relation) -> dict[str, int]:
        described, _ = self._asked(of, f"select * from {_from(of)} limit 0")
        return {column[0]: column[1] for column in described}

    def _asked(self, of: Relation, statement: str) -> tuple[Sequence[Any], Sequence[Any]]:
        with self._turning(of), self._connected() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.description, cursor.fetchall()

    @contextmanager
    def _connected(self, **more: Any) -> Iterator[pymysql.Connection[Any]]:
        connection = pymysql.connect(**{"conv": conversions, **self._known, **more})
        try:
            with connection.cursor() as cursor:
                cursor.execute("set session transaction read only")
                if "MariaDB" in connection.get_server_info():
                    cursor.execute(f"set session max_statement_time = {self._timeout:.3f}")
                else:
                    cursor.execute(f"set session max_execution_time = {round(self._timeout * 1000)}")
            yield connection
        finally:
            if connection.open:
                connection.close()

    @contextmanager
    def _turning(self, of: Relation | None) -> Iterator[None]:
        try:
            yield
        except (pymysql.Error, pa.ArrowException, OSError, ValueError, TypeError, RuntimeError) as error:
            raise turned(error, self.place, of) from error


def _hang_up(connection: pymysql.Connection[Any]) -> None:
    """Close without reading what is left on the line, as the driver's own closing would."""
    if connection._result is not None:
        connection._result.unbuffered_active = False
    connection._force_close()


def _expression(column: str, code: int) -> str:
    if code == FIELD_TYPE.FLOAT:
        return f"cast({column} as double)"  # as text it has six digits
    return f"{column} + 0" if code == FIELD_TYPE.BIT else column


def _batch(rows: Sequence[Sequence[Any]], schema: pa.Schema, codes: Sequence[int]) -> pa.RecordBatch:
    columns, fields = [], []
    for place, (field, code) in enumerate(zip(schema, codes, strict=True)):
        values = [row[place] for row in rows]
        column = _column(values, code, field.type)
        number = (code in _EXACT or code == FIELD_TYPE.BIT) and not pa.types.is_string(field.type)
        columns.append(column)
        fields.append(pa.field(field.name, column.type, metadata=dict(NUMBER_AS_TEXT) if number else None))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _column(values: list[Any], code: int, wanted: pa.DataType) -> pa.Array:
    """One column; a time of zeros is none."""
    if code in _EXACT or code == FIELD_TYPE.BIT:
        texts = pa.array(values, pa.string())
        return pc.replace_substring_regex(texts, r"\.0+$", "") if pa.types.is_integer(wanted) else texts
    if code in _WHOLE:
        return pa.array(values, pa.string()).cast(pa.int64())
    if code in (FIELD_TYPE.FLOAT, FIELD_TYPE.DOUBLE):
        return pa.array(values, pa.string()).cast(pa.float64())
    if code in _TIMES or code == FIELD_TYPE.DATE:
        texts = pa.array(values, pa.string())
        texts = pc.if_else(pc.starts_with(texts, "0000-00-00"), pa.scalar(None, pa.string()), texts)
        if code == FIELD_TYPE.DATE:
            return texts.cast(pa.date32())
        moments = texts.cast(pa.timestamp("us"))
        return moments if code == FIELD_TYPE.DATETIME else pc.assume_timezone(moments, "UTC")
    binary = any(isinstance(value, bytes) for value in values) or (not values and pa.types.is_binary(wanted))
    return pa.array(values, pa.binary() if binary else pa.string())


def _from(of: Relation) -> str:
    if of.query is not None:
        return f"({of.query}\n) as mainspring_query"
    return ".".join(_quoted(part) for part in str(of.table).split("."))


def _where(column: str, within: Range) -> str:
    bounds = [f"{column} <= {_literal(within.most)}"]
    if within.least is not None:
        bounds.insert(0, f"{column} >= {_literal(within.least)}")
    return f" where ({' and '.join(bounds)}) or {column} is null order by {column}"


def _literal(value: Point) -> str:
    if isinstance(value, datetime):
        moment = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        return f"timestamp '{moment.isoformat(' ')}'"
    if isinstance(value, date):
        return f"date '{value.isoformat()}'"
    return f"{value:f}" if isinstance(value, Decimal) else str(int(value))


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def open_source(settings: SourceSettings, state: Path) -> MysqlSource:
    """A database that a source is in; nothing is connected yet.

    Raises:
        ConfigError: MS-3042, the URL is none.
    """
    try:
        return MysqlSource(settings)
    except ValueError as error:  # a port that is no number; the text could hold a password
        raise ConfigError(
            "the url of a source is none",
            code="MS-3042",
            why="its port is no number",
            origin="sources.NAME.url",
            fix="write mysql://user:password@host:port/name, with signs in the password as %40",
        ) from error
