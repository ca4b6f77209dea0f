"""Tables in files: read and written a batch at a time, so that a long table takes no more memory than a short one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mainspring.errors import DataError, UsageError
from mainspring.lazy import lazy
from mainspring.server.scoring.shape import Part

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.ipc as pa_ipc
    import pyarrow.parquet as pq
else:
    pa, pa_csv, pa_ipc, pq = lazy("pyarrow"), lazy("pyarrow.csv"), lazy("pyarrow.ipc"), lazy("pyarrow.parquet")

__all__ = [
    "BATCH",
    "batches_of",
    "format_of",
    "is_text",
    "parts_of",
    "reads_part",
    "row_groups",
    "schema_of",
    "to_parquet",
    "writing",
]

BATCH = 16_384
"""Rows that are in memory at once where a table is copied from one file to another."""

_FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": "stream",
}


class Writer(Protocol):
    """A file that takes batches."""

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append rows."""


def format_of(path: Path) -> str:
    """``parquet``, ``csv``, ``arrow`` (a file) or ``stream``, by a file's name.

    Raises:
        UsageError: MS-5120, the name ends on nothing that is known.
    """
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        raise UsageError(
            f"{path.name!r} is no table that can be read or written",
            code="MS-5120",
            why=f"its name ends on {path.suffix or 'nothing'}",
            fix=f"name it {', '.join(f'*{suffix}' for suffix in _FORMATS)}",
        )
    return found


def is_text(path: Path) -> bool:
    """Whether all values of a file come as text."""
    return format_of(path) == "csv"


def schema_of(path: Path, kind: str = "") -> pa.Schema:
    """The columns of a table of this format, or of the one that its name tells; of a CSV all are text.

    Raises:
        DataError: MS-5121, the file is missing, damaged, or of another format.
        UsageError: MS-5120.
    """
    with _readable(path):
        kind = kind or format_of(path)
        if kind == "parquet":
            return pq.read_schema(path)
        if kind == "csv":
            with pa_csv.open_csv(path) as reader:
                return pa.schema([(name, pa.string()) for name in reader.schema.names])
        with _arrow(path, kind) as reader:
            return reader.schema


def batches_of(path: Path, rows: int = BATCH, kind: str = "") -> Iterator[pa.RecordBatch]:
    """A table's rows in their order, at most so many at once.

    Raises:
        DataError: MS-5121.
    """
    with _readable(path):
        kind = kind or format_of(path)
        if kind == "parquet":
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(rows)
        elif kind == "csv":
            yield from _cut(_csv(path), rows)
        else:
            with _arrow(path, kind) as reader:
                if kind == "stream":
                    yield from _cut(reader, rows)
                else:
                    yield from _cut((reader.get_batch(at) for at in range(reader.num_record_batches)), rows)


def _cut(batches: Any, rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, len(batch), rows):
            yield batch.slice(start, rows)


def _csv(path: Path) -> Iterator[pa.RecordBatch]:
    """Rows of a CSV, every value as it is written: what a number is in one row may be a word in the next."""
    names = schema_of(path).names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _unread(path, f"two of its columns are called {twice!r}")
    options = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    with pa_csv.open_csv(path, convert_options=options) as reader:
        yield from reader


@contextlib.contextmanager
def _arrow(path: Path, kind: str) -> Iterator[Any]:
    with pa.memory_map(str(path)) as mapped:
        yield pa_ipc.open_stream(mapped) if kind == "stream" else pa_ipc.open_file(mapped)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise _unread(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _unread(path: Path, why: str) -> DataError:
    return DataError(
        f"table {path.name!r} cannot be read",
        code="MS-5121",
        why=why.replace(str(path), path.name),
        origin=path.name,
        fix=f"mend the file, or name it after what it is: {', '.join(_FORMATS)}",
    )


def to_parquet(batches: Iterator[pa.RecordBatch], schema: pa.Schema, to: Path) -> int:
    """Write batches to a Parquet file, a row group for each; how many rows that were."""
    rows = 0
    with pq.ParquetWriter(to, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += len(batch)
    return rows


def row_groups(path: Path) -> list[int]:
    """The rows of each row group of a Parquet file.

    Raises:
        DataError: MS-5121.
    """
    with _readable(path), pq.ParquetFile(path) as file:
        return [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)]


def parts_of(groups: Sequence[int], rows: int) -> list[Part]:
    """Parts of about so many rows: small row groups together, large ones cut; an empty table is one part.

    Args:
        groups: the rows of each row group.
        rows: the most rows of a part.
    """
    found: list[Part] = []
    start = at = 0
    for group in groups:
        if at > start and at + group - start > rows:
            found.append(Part(start, at))
            start = at
        at += group
        while at - start > rows:
            found.append(Part(start, start + rows))
            start += rows
    if at > start or not found:
        found.append(Part(start, at))
    return found


def reads_part(path: Path, part: Part, rows: int = BATCH) -> Iterator[pa.RecordBatch]:
    """The rows of a part of a Parquet file; only the row groups that it touches are read.

    Raises:
        DataError: MS-5121.
    """
    touched: list[int] = []
    first = at = 0
    for number, count in enumerate(row_groups(path)):
        if at < part.stop and at + count > part.start:
            first = at if not touched else first
            touched.append(number)
        at += count
    with _readable(path), pq.ParquetFile(path, pre_buffer=False) as file:
        at = first
        for batch in file.iter_batches(rows, row_groups=touched) if touched else ():
            low, high = max(part.start - at, 0), min(part.stop - at, len(batch))
            at += len(batch)
            if low < high:
                yield batch.slice(low, high - low)
            if at >= part.stop:
                return


@contextlib.contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Writer]:
    """A table that appears whole when the block is left, or not at all; what stood there before stays until then.

    Raises:
        UsageError: MS-5120; MS-5122, it cannot be written; MS-5123, somebody else is writing it.
    """
    kind, part = format_of(path), path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(part, "ab")  # noqa: SIM115 - its end is its removal
    except OSError as error:
        raise _unwritten(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(part, 0)  # of one that was killed
    except OSError as error:
        handle.close()
        raise UsageError(
            f"{path} is being written", code="MS-5123", why="another scoring has the same output", fix="wait for it"
        ) from error
    try:
        with _writer(part, schema, kind) as writer:
            yield writer
        os.fsync(handle.fileno())
        os.replace(part, path)
    except (OSError, pa.ArrowException) as error:
        part.unlink(missing_ok=True)
        raise _unwritten(path, error) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        handle.close()


def _unwritten(path: Path, error: Exception) -> UsageError:
    why = getattr(error, "strerror", None) or str(error)
    return UsageError(
        f"{path} cannot be written", code="MS-5122", why=why, fix="name another place, or another format: *.parquet"
    )


@contextlib.contextmanager
def _writer(path: Path, schema: pa.Schema, kind: str) -> Iterator[Any]:
    if kind == "parquet":
        with pq.ParquetWriter(path, schema) as writer:
            yield writer
    elif kind == "csv":
        with pa_csv.CSVWriter(path, schema) as written:
            yield written
    else:
        new = pa_ipc.new_stream if kind == "stream" else pa_ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, new(sink, schema) as written:
            yield written
