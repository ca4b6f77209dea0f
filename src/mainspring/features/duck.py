"""DuckDB connections for point-in-time work, and how logs are read by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

__all__ = ["connection", "literal", "quoted", "scan"]

_NONE = Limits()


@contextmanager
def connection(limits: Limits = _NONE, *, threads: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB that reads times as UTC and may reorder rows, so that every query orders what it returns.

    Args:
        limits: what it may take of the machine.
        threads: cores it may use; all when left out.

    Raises:
        StoreError: MS-4136, a query does not fit in that.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
    }
    config |= {} if threads is None else {"threads": threads}
    config |= {} if limits.memory is None else {"memory_limit": limits.memory}
    config |= {} if limits.spill is None else {"temp_directory": limits.spill}
    try:
        with duckdb.connect(":memory:", config=config) as opened:
            opened.execute("set timezone = 'UTC'")
            opened.execute("set preserve_insertion_order = false")
            yield opened
    except duckdb.OutOfMemoryException as error:
        raise StoreError(
            "a query of the tables does not fit in the memory that it may have",
            code="MS-4136",
            why=str(error).partition("\n")[0],
            fix='raise the limit (tables.memory = "2GiB"), or leave it out',
        ) from error


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
