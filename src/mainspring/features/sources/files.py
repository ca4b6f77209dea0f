"""Reading Parquet, CSV, JSON and Arrow files as they are; bringing them into a record's types is `ingest`'s."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.record import FieldSpec
from mainspring.errors import DataError
from mainspring.features.sources.json_files import json_parts
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import csv, feather, parquet
else:
    pa, csv, feather = lazy("pyarrow"), lazy("pyarrow.csv"), lazy("pyarrow.feather")
    parquet = lazy("pyarrow.parquet")

__all__ = ["FORMATS", "RawFile", "find_files", "gathered", "read_files"]

_HEADER_BYTES = 65_536
FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
"""File formats by the end of the name."""


class RawFile(msgspec.Struct, frozen=True):
    """What one file, or a part of one, holds.

    Attributes:
        path: the file.
        table: those of the record's columns that it has, as it has them.
        text: whether all values are text, so that ``"1"`` may be a number.
        names: all columns of the file.
        numbers: those of the columns whose numbers come as text, whatever `text` says.
        start: which row of the file the first one is, from 0.
    """

    path: Path
    table: pa.Table
    text: bool
    names: tuple[str, ...]
    numbers: frozenset[str] = frozenset()
    start: int = 0


_Read = Iterator[tuple["pa.Table", Sequence[str]]]
"""The record's columns of a file, part by part and at least once, and the names of all its columns."""

_PART = 131_072
"""Rows of a part."""


def find_files(path: str, project: Path, *, source: str, format: str | None = None, origin: str = "") -> list[Path]:
    """The files that a path stands for, sorted: one file, a folder's (at any depth), or a glob's.

    Args:
        path: relative to the project, or absolute.
        project: the project's folder.
        source: whose path it is, for errors.
        format: takes files of any name as that format.
        origin: where the path was written, for errors.

    Raises:
        DataError: MS-2112, there is no such file.
    """
    place = project / path
    if place.is_file():
        return [place]
    if place.is_dir():
        found = sorted(entry for entry in place.rglob("*") if entry.is_file() and not _hidden(entry, place))
    else:
        found = sorted(Path(entry) for entry in glob.glob(str(place), recursive=True) if Path(entry).is_file())
    found = [entry for entry in found if format is not None or _format(entry) is not None]
    if not found:
        raise DataError(
            f"source {source!r} has no file",
            code="MS-2112",
            why=f"nothing is at {path}" if not place.exists() else f"{path} holds no {', '.join(FORMATS)} file",
            origin=origin,
            fix=f"write the file, or correct sources.{source}.path in mainspring.toml",
        )
    return found


def read_files(
    paths: Sequence[Path], fields: Sequence[FieldSpec], *, source: str, format: str | None = None
) -> Iterator[RawFile]:
    """The columns of files, those of the record only, file by file; large files in parts.

    Raises:
        DataError: MS-2114, a file cannot be read as what its name or the setting says.
    """
    for path in paths:
        yield from _read(path, fields, source, format)


def _read(path: Path, fields: Sequence[FieldSpec], source: str, format: str | None) -> Iterator[RawFile]:
    kind = format or _format(path)
    if kind is None or kind not in _READERS:
        raise DataError(
            f"the format of {path.name} is not known",
            code="MS-2114",
            why=f"it is {kind!r}" if kind else f"the name ends in none of {', '.join(FORMATS)}",
            origin=f"sources.{source}.path",
            fix=f'say it: sources.{source}.format = "parquet", "csv", "json" or "arrow"',
        )
    try:
        start = 0
        for table, names in _READERS[kind](path, fields):
            yield RawFile(path, table, kind in ("csv", "json"), tuple(names), start=start)
            start += len(table)
    except (pa.ArrowException, OSError, msgspec.MsgspecError, ValueError) as error:
        raise DataError(
            f"source {source!r} cannot be read",
            code="MS-2114",
            why=f"{path.name} as {kind}: {str(error).splitlines()[0]}",
            origin=f"sources.{source}.path",
            fix=f"mend the file, or say what it is: sources.{source}.format",
        ) from error


def _hidden(entry: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in entry.relative_to(folder).parts)


def _format(path: Path) -> str | None:
    name = path.name.lower()
    return next((kind for end, kind in FORMATS.items() if name.endswith(end)), None)


def _parquet(path: Path, fields: Sequence[FieldSpec]) -> _Read:
    with parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        wanted = [field.name for field in fields if field.name in names]
        if file.metadata.num_rows <= _PART:
            yield file.read(wanted), names
            return
        for batch in file.iter_batches(_PART, columns=wanted):
            yield pa.Table.from_batches([batch]), names


def _csv(path: Path, fields: Sequence[FieldSpec]) -> _Read:
    """All columns as text; an empty field is null, a quoted empty one is an empty text."""
    parsing = csv.ParseOptions(delimiter="\t" if path.name.lower().endswith(".tsv") else ",", newlines_in_values=True)
    if path.stat().st_size == 0:
        raise ValueError("the file is empty: it has no header")
    with csv.open_csv(_ended(path), parse_options=parsing) as head:
        names = head.schema.names
    if len(set(names)) < len(names):
        raise ValueError(f"two columns are called {next(name for name in names if names.count(name) > 1)!r}")
    wanted = [field.name for field in fields if field.name in names]
    converting = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=wanted,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    with csv.open_csv(_ended(path), parse_options=parsing, convert_options=converting) as reader:
        for part in gathered(reader, reader.schema):
            yield part, names


def _ended(path: Path) -> pa.NativeFile | Path:
    """The file; a header without an end of its line, as exports without rows are, gets the one that Arrow asks for."""
    with pa.input_stream(path, compression="detect") as stream:
        head = stream.read(_HEADER_BYTES)
    return pa.BufferReader(head + b"\n") if len(head) < _HEADER_BYTES and not {10, 13} & set(head) else path


def gathered(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Batches put together into parts; one without rows when there is none."""
    held: list[pa.RecordBatch] = []
    count, none = 0, True
    for batch in batches:
        held.append(batch)
        count += len(batch)
        if count >= _PART:
            yield pa.Table.from_batches(held)
            held, count, none = [], 0, False
    if held:  # by their own schema: a driver may say of its columns that they hold no nulls
        yield pa.Table.from_batches(held)
    elif none:
        yield schema.empty_table()


def _arrow(path: Path, fields: Sequence[FieldSpec]) -> _Read:
    with pa.OSFile(str(path)) as file:
        reader = _arrow_reader(file)
        if reader is None:  # the first format of that name
            tables: Iterable[pa.Table] = [feather.read_table(path, memory_map=False)]
        elif isinstance(reader, pa.ipc.RecordBatchFileReader):
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
            tables = gathered(batches, reader.schema)
        else:
            tables = gathered(reader, reader.schema)
        for table in tables:
            yield (
                table.select([field.name for field in fields if field.name in table.column_names]),
                table.column_names,
            )


def _arrow_reader(file: pa.NativeFile) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader | None:
    for opened in (pa.ipc.open_file, pa.ipc.open_stream):
        file.seek(0)
        with contextlib.suppress(pa.ArrowInvalid):
            return opened(file)
    return None


_READERS: Mapping[str, Callable[[Path, Sequence[FieldSpec]], _Read]] = {
    "parquet": _parquet,
    "csv": _csv,
    "json": json_parts,
    "arrow": _arrow,
}
