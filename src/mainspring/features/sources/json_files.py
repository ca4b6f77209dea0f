"""JSON files in parts: an array of objects, or an object a line, of which no more than a few megabytes are held."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from mainspring.declare.record import FieldSpec, Kind
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import json as arrow_json
else:
    pa, arrow_json = lazy("pyarrow"), lazy("pyarrow.json")

__all__ = ["json_parts"]

PART = 16 << 20
"""Bytes of a file that are read as one part."""
_CHUNK = 1 << 20
_LONGEST = 64 << 20
"""Bytes of an object."""
_TEXTS = frozenset({Kind.STRING, Kind.TIMESTAMP, Kind.DATE, Kind.BYTES})
_EXTENT = json.JSONDecoder().raw_decode
_Part = tuple["pa.Table", int, list[str]]
"""Rows, how many they are, and the names that are in them; a table may have further columns, of nulls."""


def json_parts(path: Path, fields: Sequence[FieldSpec]) -> Iterator[tuple[pa.Table, Sequence[str]]]:
    """The record's columns of a file, part by part and at least once, and the names of all its columns.

    What the record calls text or a time must be text in the file. A column is there when it is in any part of the
    file: in the others it is null.

    Raises:
        ValueError, pyarrow.ArrowException: it is not JSON of that kind.
        OSError: it cannot be read.
    """
    schema = pa.schema([pa.field(field.name, pa.string()) for field in fields if field.type.kind in _TEXTS])
    wanted = [field.name for field in fields]
    known: dict[str, None] = {}
    large, looked = path.stat().st_size > PART, False
    for table, rows, names in _parts(path, schema, wanted):
        known |= dict.fromkeys(names)
        if large and not looked and any(field.name not in known for field in fields):
            looked = True  # the rest of the file may have it
            for _, _, others in _parts(path, schema, wanted):
                known |= dict.fromkeys(others)
        columns = {
            field.name: table.column(field.name) if field.name in table.column_names else pa.nulls(rows)
            for field in fields
            if field.name in known
        }
        yield pa.table(columns) if columns else table.select([]), [*known]


def _parts(path: Path, schema: pa.Schema, wanted: Sequence[str]) -> Iterator[_Part]:
    with path.open("rb") as file:
        first = _first_sign(file.read(_CHUNK))
        while first == b"" and (data := file.read(_CHUNK)):
            first = _first_sign(data)
    if not first:
        raise ValueError("the file is empty")
    return _of_array(path, schema, wanted) if first == b"[" else _of_lines(path, schema)


def _first_sign(data: bytes) -> bytes:
    return data.lstrip()[:1]


def _of_lines(path: Path, schema: pa.Schema) -> Iterator[_Part]:
    parsing = arrow_json.ParseOptions(explicit_schema=schema)
    with path.open("rb") as file:
        while data := file.read(PART):
            line = file.readline(_LONGEST)
            if len(line) == _LONGEST:
                raise ValueError(f"a line is longer than {_LONGEST} bytes")
            data += line
            if not data.strip():
                continue
            table = arrow_json.read_json(pa.BufferReader(data), parse_options=parsing)
            present = msgspec.json.decode(data.lstrip().partition(b"\n")[0], type=dict[str, object])
            yield table, len(table), [name for name in table.column_names if name in present or _filled(table, name)]


def _filled(table: pa.Table, name: str) -> bool:
    return bool(table.column(name).null_count < len(table))


def _of_array(path: Path, schema: pa.Schema, wanted: Sequence[str]) -> Iterator[_Part]:
    known = {field.name: field.type for field in schema}
    for text in _runs(path):
        rows: list[dict[str, Any]] = msgspec.json.decode(text.encode(), type=list[dict[str, object]])
        names = [*dict.fromkeys(name for row in rows for name in row)]
        kept = [name for name in names if name in wanted]
        columns = {name: pa.array([row.get(name) for row in rows], known.get(name)) for name in kept}
        yield pa.table(columns), len(rows), names


def _runs(path: Path) -> Iterator[str]:
    """An array's objects as arrays that are shorter; one at least."""
    with path.open(encoding="utf-8") as file:
        reading = _Reading(file)
        run: list[str] = []
        size, none = 0, True
        reading.expect("[")
        sign = reading.sign()
        while sign != "]":
            run.append(reading.object())
            size += len(run[-1])
            sign = reading.expect(",]")
            if sign == "," and reading.sign() == "]":
                raise ValueError("JSON is malformed: trailing comma in array")
            if size >= PART:
                yield f"[{','.join(run)}]"
                run, size, none = [], 0, False
        if run or none:
            if none and not run:
                reading.expect("]")
            yield f"[{','.join(run)}]"
        if reading.sign():
            raise ValueError("JSON is malformed: trailing characters")


class _Reading:
    """A text file, of which what is not read yet is held."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0

    def _more(self) -> bool:
        """Read on, twice as much as waits: an object that does not end is looked at a few times only."""
        rest = self._text[self._at :]
        data = self._file.read(max(_CHUNK, len(rest)))
        self._text, self._at = rest + data, 0
        return bool(data)

    def sign(self) -> str:
        """The next character that is no space; nothing at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def expect(self, signs: str) -> str:
        """Go on behind one of these."""
        found = self.sign()
        if not found or found not in signs:
            raise ValueError(f"JSON is malformed: {found!r} where one of {' '.join(signs)} should be")
        self._at += 1
        return found

    def object(self) -> str:
        """The next object, as it is written."""
        if self.sign() != "{":
            raise ValueError("an array's entries are to be objects")
        while True:
            try:
                _, end = _EXTENT(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > _LONGEST or not self._more():
                    raise ValueError(f"JSON is malformed: {error.msg}") from None
            except RecursionError:
                raise ValueError("JSON is nested too deeply") from None
            else:
                found, self._at = self._text[self._at : end], end
                return found
