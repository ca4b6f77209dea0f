"""Data on stdout, all else on stderr; tables drawn only for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec
import orjson

__all__ = ["ago", "emit", "lines", "moment", "table", "tell", "tell_json"]


def emit(value: object) -> None:
    """Write a value as one JSON document to stdout."""
    option = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    sys.stdout.buffer.write(orjson.dumps(value, default=_plain, option=option))
    sys.stdout.flush()


def _plain(value: object) -> object:
    return msgspec.structs.asdict(value) if isinstance(value, msgspec.Struct) else str(value)


def lines(texts: Iterable[str]) -> None:
    """Write lines of data to stdout."""
    for text in texts:
        print(text)


def tell(text: str) -> None:
    """Say something to the person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def tell_json(text: str, level: str = "info") -> None:
    """Say something to whatever collects a container's logs: a JSON line on stdout."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stdout.buffer.write(orjson.dumps({"at": at, "level": level, "message": text}, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows as aligned columns to stdout; a column is as wide as its widest cell."""
    cells = [[str(value) if value is not None else "" for value in row] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) if cells else len(name) for i, name in enumerate(columns)]
    for row in ([name.upper() for name in columns], *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def moment(us: int | None) -> str:
    """A moment in microseconds since 1970 as ``2013-07-01 12:00:00Z``."""
    return "" if us is None else datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def ago(us: int) -> str:
    """A length in microseconds for people: ``12 s``, ``3 min``, ``2 h``, ``5 d``."""
    seconds = us / 1e6
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
