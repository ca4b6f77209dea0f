"""A double of python-oracledb's connections over DuckDB, for want of an Oracle that tests could start.

It answers the statements that the adapter writes, by macros for Oracle's functions, and hands rows out as
python-oracledb documents it: types by name, NUMBER as double unless it was made text, zones dropped, '' as null. It
shows that the adapter's statements are whole and its conversions exact; it cannot show that Oracle agrees.
"""

import re
from datetime import UTC
from types import SimpleNamespace

import duckdb
import oracledb
import pyarrow as pa

TYPES = {
    "text": ("varchar", "VARCHAR"), "char(8)": ("varchar", "CHAR"), "int64": ("decimal(38, 0)", "NUMBER"),
    "number(30, 10)": ("decimal(38, 10)", "NUMBER"), "float64": ("double", "BINARY_DOUBLE"),
    "naive": ("timestamp", "TIMESTAMP"), "zoned": ("timestamp", "TIMESTAMP_TZ"), "date": ("timestamp", "DATE"),
    "flag": ("boolean", "BOOLEAN"), "bytes": ("blob", "RAW"),
}  # fmt: skip
PLAIN = {"DECIMAL": "NUMBER", "INTEGER": "NUMBER", "TIMESTAMP": "TIMESTAMP", "VARCHAR": "VARCHAR"}
# What TM9 does: no trailing zeros, no zero before the point.
MACROS = r"""
create macro to_char(n, f, l) as case when n is null then null else
    regexp_replace(regexp_replace(regexp_replace(n::varchar, '(\.\d*?)0+$', '\1'), '\.$', ''), '^(-?)0\.', '\1.') end;
create macro sys_extract_utc(t) as t;
create macro to_date(t, f) as t::timestamp;
"""


class Server:
    """The tables, and the kinds of their columns."""

    def __init__(self):
        self.database = duckdb.connect()
        self.database.execute(MACROS)
        self.kinds = {}
        self.heard = []

    def fill(self, name, columns, rows):
        self.database.execute(f"drop table if exists {name}")
        listed = ", ".join(f'"{column.upper()}" {TYPES[kind][0]}' for column, kind in columns.items())
        self.database.execute(f"create table {name} ({listed})")
        self.kinds = {column.upper(): TYPES[kind][1] for column, kind in columns.items()}
        sent = [[self._stored(value, kind) for value, kind in zip(row, columns.values(), strict=True)] for row in rows]
        if sent:
            places = ", ".join("?" * len(columns))
            if len(sent) > 1000:
                self.database.register(
                    "sent", pa.table(dict(zip(columns, map(list, zip(*sent, strict=True)), strict=True)))
                )
                self.database.execute(f"insert into {name} select * from sent")
            else:
                self.database.executemany(f"insert into {name} values ({places})", sent)

    def _stored(self, value, kind):
        if kind == "char(8)" and value is not None:
            return value.ljust(8)
        if kind == "zoned" and value is not None:
            return value.astimezone(UTC).replace(tzinfo=None)
        return None if value == "" else value

    def connect(self, **known):
        unknown = known.keys() - SIGNATURE
        if unknown:
            raise TypeError(f"connect() got an unexpected keyword argument {min(unknown)!r}")
        if known["password"] != "secret-word":
            raise fault("ORA-01017", "invalid credential or not authorized; logon denied")
        return Connection(self)


SIGNATURE = {
    "host", "port", "service_name", "user", "password", "tcp_connect_timeout", "retry_count", "expire_time", "protocol",
}  # fmt: skip


def fault(code, text):
    return oracledb.DatabaseError(SimpleNamespace(full_code=code, message=f"{code}: {text}"))


class Connection:
    version = "23.9.0.25.07"
    call_timeout = 0

    def __init__(self, server):
        self._server = server
        self._cursor = server.database.cursor()

    def cursor(self):
        return Cursor(self._server, self._run)

    def fetch_df_batches(self, statement, size):
        found = self._run(statement, self._cursor.sql).to_arrow_reader(size)
        yield pa.Table.from_batches([], found.schema)
        for batch in found:
            table = pa.Table.from_batches([batch])
            for place, field in enumerate(table.schema):
                if pa.types.is_decimal(field.type):
                    table = table.set_column(place, field.name, table.column(place).cast(pa.float64()))
            yield table

    def _run(self, statement, how=None):
        self._server.heard.append(statement)
        if statement == "set transaction read only":
            return None
        statement = re.sub(r"timestamp '([^']*) \+00:00'", r"timestamp '\1'", statement)
        try:
            return (how or self._cursor.execute)(statement)
        except duckdb.CatalogException as error:
            raise fault("ORA-00942", "table or view does not exist") from error
        except duckdb.BinderException as error:
            raise fault("ORA-00904", "invalid identifier") from error
        except duckdb.ParserException as error:
            raise fault("ORA-00936", "missing expression") from error

    def close(self):
        self._cursor.close()


class Cursor:
    def __init__(self, server, run):
        self._server, self._run, self.description = server, run, None

    def execute(self, statement):
        self._found = self._run(statement)
        if self._found is not None:
            self.description = [
                SimpleNamespace(name=name.upper(), type_code=self._kind(name.upper(), str(kind)))
                for name, kind, *_ in self._found.description
            ]
        return self

    def _kind(self, name, kind):
        known = self._server.kinds.get(name) or PLAIN.get(kind.partition("(")[0], "VARCHAR")
        return getattr(oracledb, f"DB_TYPE_{known}")

    def fetchone(self):
        return self._found.fetchone()
