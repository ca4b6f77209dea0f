"""DuckDB connections for point-in-time work, and how logs are read by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
else:
    duckdb, pa = lazy("duckdb"), lazy("pyarrow")

__all__ = ["connection", "literal", "quoted", "scan"]


@contextmanager
def connection(
    *, threads: int | None = None, memory: str | None = None, temporary: str | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB that reads times as UTC and may reorder rows, so that every query orders what it returns.

    Args:
        threads: cores it may use; all when left out.
        memory: its limit, as ``"1GB"``; DuckDB's own when left out.
        temporary: folder it spills to beyond that limit.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
    }
    config |= {} if threads is None else {"threads": threads}
    config |= {} if memory is None else {"memory_limit": memory}
    config |= {} if temporary is None else {"temp_directory": temporary}
    with duckdb.connect(":memory:", config=config) as opened:
        opened.execute("set timezone = 'UTC'")
        opened.execute("set preserve_insertion_order = false")
        yield opened


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
