"""Tables and queries of Postgres as Arrow batches, by ADBC's binary COPY; numerics exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pyarrow as pa
from adbc_driver_manager import Error as AdbcError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from mainspring.adapters.postgres.problems import source_turned
from mainspring.ports.source import NUMBER_AS_TEXT, Point, Range, Relation, SourceSettings, column_called

if TYPE_CHECKING:
    from psycopg.abc import QueryNoTemplate

__all__ = ["PostgresSource", "open_source"]

_NUMERIC, _PADDED = 1700, 1042
_TIMES = {1082: "date", 1114: "timestamp", 1184: "timestamptz"}
# What ADBC reads as what it is; anything else is asked for as text.
_PLAIN = frozenset({16, 17, 20, 21, 23, 25, 26, 700, 701, 1043, *_TIMES, 1000, 1005, 1007, 1016, 1021, 1022})


class PostgresSource:
    """One source's database.

    Args:
        settings: where it is.
    """

    def __init__(self, settings: SourceSettings) -> None:
        known = conninfo_to_dict(settings.url)
        self.place = f"{known.get('host') or 'localhost'}:{known.get('port') or 5432}/{known.get('dbname') or ''}"
        options = f"-c statement_timeout={round(settings.timeout * 1000)} -c default_transaction_read_only=on"
        self._info = make_conninfo(
            settings.url,
            connect_timeout=max(2, round(settings.connect_timeout)),
            options=f"{known.get('options') or ''} {options}".strip(),
            # A server that vanished without a word is noticed within a minute and a half.
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
            **({"tcp_user_timeout": 90_000} if "tcp_user_timeout" not in known else {}),
            **settings.options,
        )

    def columns(self, of: Relation) -> Mapping[str, str]:
        """The relation's columns and their types."""
        return {column.name: column.type_display for column in self._described(of)}

    def newest(self, of: Relation, column: str) -> Point | None:
        """The greatest value of a column."""
        types = self._types(of)
        actual = column_called(column, list(types)) or column
        infinite = _infinite(types.get(actual, 0))
        finite = f" where {_quoted(actual)} < {infinite[0]}" if infinite else ""
        row = self._asked(of, f"select max({_quoted(actual)}) from {_from(of)}{finite}").fetchone()
        return None if row is None else row[0]

    def rows(self, of: Relation, schema: pa.Schema, within: Range | None) -> Iterator[pa.RecordBatch]:
        """The rows, in batches."""
        types = self._types(of)
        chosen, fields = [], []
        for field in schema:
            actual = column_called(field.name, list(types)) or field.name
            expression, metadata = _expression(_quoted(actual), types.get(actual, 0), field.type)
            chosen.append(f"{expression} as {_quoted(field.name)}")
            fields.append(metadata)
        statement = f"select {', '.join(chosen)} from {_from(of)}"
        if within is not None:
            actual = column_called(within.column, list(types)) or within.column
            statement += _where(_quoted(actual), types.get(actual, 0), within)
        with self._turning(of), closing(adbc.connect(self._info)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(statement)
            found = cursor.fetch_record_batch()
            yield _named(pa.RecordBatch.from_pylist([], found.schema), schema, fields)
            for batch in found:
                yield _named(batch, schema, fields)

    def answers(self) -> Mapping[str, object]:
        """The server's version."""
        with self._turning(None), psycopg.connect(self._info) as connection:
            return {"version": connection.info.parameter_status("server_version") or "?"}

    def close(self) -> None:
        """Nothing is held between reads."""

    def _types(self, of: Relation) -> dict[str, int]:
        return {column.name: column.type_code for column in self._described(of)}

    def _described(self, of: Relation) -> list[psycopg.Column]:
        found = self._asked(of, f"select * from {_from(of)} limit 0").description
        return list(found or [])

    def _asked(self, of: Relation, statement: str) -> psycopg.ClientCursor[Any]:
        """One small statement; numbers and times as Python has them."""
        asked: QueryNoTemplate = statement.encode()
        with self._turning(of), psycopg.connect(self._info) as connection:
            # Without parameters, so that a % in a query is what it says.
            return psycopg.ClientCursor(connection).execute(asked)

    @contextmanager
    def _turning(self, of: Relation | None) -> Iterator[None]:
        try:
            yield
        except (psycopg.Error, AdbcError, pa.ArrowException, OSError, ValueError) as error:
            raise source_turned(error, self.place, of) from error


def _expression(column: str, code: int, wanted: pa.DataType) -> tuple[str, dict[bytes, bytes]]:
    """How a column is asked for, and what its field says of it."""
    if code == _NUMERIC:
        return f"trim_scale({column})::text", {} if pa.types.is_string(wanted) else dict(NUMBER_AS_TEXT)
    if code in _TIMES:
        kind = _TIMES[code]
        return f"nullif(nullif({column}, {kind} 'infinity'), {kind} '-infinity')", {}
    if code in _PLAIN:
        return column, {}
    if pa.types.is_fixed_size_list(wanted):
        return f"{column}::real[]", {}
    return f"{column}::text", {}  # padding of CHAR(n) is cut by this


def _named(batch: pa.RecordBatch, schema: pa.Schema, metadata: list[dict[bytes, bytes]]) -> pa.RecordBatch:
    columns = [batch.column(place) for place in range(len(schema))]
    fields = [
        pa.field(field.name, column.type, metadata=own)
        for field, column, own in zip(schema, columns, metadata, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _from(of: Relation) -> str:
    if of.query is not None:
        return f"({of.query}\n) as mainspring_query"
    return ".".join(_quoted(part) for part in str(of.table).split("."))


def _infinite(code: int) -> tuple[str, ...]:
    """What a column may hold that is beyond all moments and numbers, the least first."""
    if code in _TIMES:
        return (f"{_TIMES[code]} 'infinity'",)
    return ("numeric 'Infinity'", "numeric 'NaN'") if code == _NUMERIC else ()


def _where(column: str, code: int, within: Range) -> str:
    bounds = [f"{column} <= {_literal(within.most)}"]
    if within.least is not None:
        bounds.insert(0, f"{column} >= {_literal(within.least)}")
    # What no range holds comes each time, so that it is set aside with a reason and not lost; an index finds it.
    others = [f"{column} is null", *(f"{column} = {value}" for value in _infinite(code))]
    return f" where ({' and '.join(bounds)}) or {' or '.join(others)} order by {column}"


def _literal(value: Point) -> str:
    if isinstance(value, datetime):
        return f"{'timestamp' if value.tzinfo is None else 'timestamptz'} '{value.isoformat(' ')}'"
    if isinstance(value, date):
        return f"date '{value.isoformat()}'"
    return f"{value:f}" if isinstance(value, Decimal) else str(int(value))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def open_source(settings: SourceSettings, state: Path) -> PostgresSource:
    """A database that a source is in; nothing is connected yet."""
    return PostgresSource(settings)
