"""TOML with the line that each value was written on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping

import msgspec

from mainspring.errors import ConfigError

__all__ = ["Written", "read_toml"]

_TABLE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


class Written(msgspec.Struct, frozen=True):
    """A value of a TOML file: its dotted path, the value, the line (from 1; 0 when unknown) and its table."""

    path: tuple[str, ...]
    value: object
    line: int
    table: str


def read_toml(text: str, name: str) -> tuple[Written, ...]:
    """All leaf values of a TOML text, with their lines; an empty table is an empty mapping.

    Args:
        text: the file's content.
        name: the file's name, for errors.

    Raises:
        ConfigError: MS-3001, the text is not TOML.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{name} is not valid TOML", code="MS-3001", why=str(error), origin=name, fix="mend the line it names"
        ) from error
    places = _places(text)
    return tuple(Written(path, value, *places.get(path, (0, ""))) for path, value in _leaves(tree, ()))


def _leaves(tree: Mapping[str, object], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _places(text: str) -> dict[tuple[str, ...], tuple[int, str]]:
    places: dict[tuple[str, ...], tuple[int, str]] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.fullmatch(line):
            table = _parts(header[1])
            places.setdefault(table, (number, ".".join(table)))
        elif key := _KEY.match(line):
            places.setdefault((*table, *_parts(key[1])), (number, ".".join(table)))
    return places


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))
