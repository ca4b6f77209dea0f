"""DuckDB connections for point-in-time work, and how logs are read by them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mainspring.errors import StoreError
from mainspring.lazy import lazy
from mainspring.ports.tables import Limits

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
else:
    duckdb, pa = lazy("duckdb"), lazy("pyarrow")

__all__ = ["connection", "literal", "query", "quoted", "scan"]

_NONE = Limits()
_SELECT = "SELECT"

_Config = tuple[tuple[str, str | bool | int], ...]

# An instance takes 20 ms of CPU to open, a cursor of one that is open microseconds. Each is used by one at a time, as
# memory, threads and settings are an instance's, and one of a kind is kept.
_idle: dict[_Config, duckdb.DuckDBPyConnection] = {}
_left: list[object] = []


@contextmanager
def connection(
    limits: Limits = _NONE, *, threads: int | None = None, ordered: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB that reads times as UTC. What is registered with it or made in it must be temporary.

    Args:
        limits: what it may take of the machine.
        threads: cores it may use; all when left out.
        ordered: keep the order of rows; otherwise every query orders what it returns.

    Raises:
        StoreError: MS-4136, a query does not fit in that.
    """
    with _taken(_config(limits, threads, ordered)) as opened:
        yield opened


def query(sql: str, tables: Mapping[str, pa.Table], *, threads: int | None = None, ordered: bool = False) -> pa.Table:
    """The answer to somebody's SQL over tables; it reads no file, which would be an input that no key knows of.

    Raises:
        duckdb.Error: it does not run.
        StoreError: MS-4136, it does not fit in memory.
    """
    config = (*_config(_NONE, threads, ordered), ("enable_external_access", False))
    with _taken(config) as opened:
        statements = opened.extract_statements(sql)
        if all(statement.type.name == _SELECT for statement in statements):
            return _answer(opened, sql, tables)
    opened = _open(config)  # what it makes must not be there for the next
    with opened:
        return _answer(opened, sql, tables)


def _answer(opened: duckdb.DuckDBPyConnection, sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
    for name, table in tables.items():
        opened.register(name, table)
    return opened.sql(sql).to_arrow_table()


def _config(limits: Limits, threads: int | None, ordered: bool) -> _Config:
    config: dict[str, str | bool | int] = {
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        "preserve_insertion_order": ordered,
    }
    config |= {} if threads is None else {"threads": threads}
    config |= {} if limits.memory is None else {"memory_limit": limits.memory}
    config |= {} if limits.spill is None else {"temp_directory": limits.spill}
    return tuple(config.items())


def _open(config: _Config) -> duckdb.DuckDBPyConnection:
    opened = duckdb.connect(":memory:", config=dict(config))
    opened.execute("set global timezone = 'UTC'")
    return opened


@contextmanager
def _taken(config: _Config) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor of an instance that nobody else uses; after a failure the instance is not used again."""
    try:
        instance = _idle.pop(config, None) or _open(config)
        try:
            with instance.cursor() as opened:
                yield opened
        except BaseException:
            instance.close()
            raise
    except duckdb.OutOfMemoryException as error:
        raise StoreError(
            "a query of the tables does not fit in the memory that it may have",
            code="MS-4136",
            why=str(error).partition("\n")[0],
            fix='raise the limit (tables.memory = "2GiB"), or leave it out',
        ) from error
    spilled = os.path.exists(str(dict(config).get("temp_directory", ".tmp")))  # its files go when it is closed
    if spilled or _idle.setdefault(config, instance) is not instance:
        instance.close()


def _close_idle() -> None:
    """Before a fork: an instance's threads would be missing in the child."""
    for config in list(_idle):
        if instance := _idle.pop(config, None):
            instance.close()


def _leave() -> None:
    """In a forked child: never to end what another thread put back meanwhile, as that waits for its threads."""
    _left.extend(_idle.values())
    _idle.clear()


os.register_at_fork(before=_close_idle, after_in_child=_leave)


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def scan(opened: duckdb.DuckDBPyConnection, files: Sequence[str], schema: pa.Schema, name: str) -> str:
    """SQL for the rows of a log: its files, or an empty relation called `name` when it has none."""
    if files:
        return f"read_parquet([{', '.join(literal(file) for file in files)}], hive_partitioning = false)"
    opened.register(name, schema.empty_table())
    return quoted(name)
