"""YAML for people: our order, literal blocks for scripts, pinned actions with their tags, the user's own places."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mainspring.deploy.ci.actions import Pin
from mainspring.deploy.ci.blocks import closed, opened

__all__ = ["Lines", "Said", "Yours", "written"]

_PLAIN = re.compile(r"^[A-Za-z_./][A-Za-z0-9_./ -]*$")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"})


class Yours(msgspec.Struct, frozen=True):
    """A place for lines of the user's; `hint` says what belongs there."""

    name: str
    hint: str


class Said(msgspec.Struct, frozen=True):
    """A value with a remark behind it, for tools that read such."""

    value: object
    remark: str


class Lines(list[object]):
    """A list whose items stand on lines of their own: a script."""


def written(value: Mapping[object, object]) -> str:
    """The document."""
    return "\n".join(_mapping(value, 0)) + "\n"


def _mapping(value: Mapping[object, object], depth: int) -> Iterable[str]:
    pad = "  " * depth
    for key, item in value.items():
        if isinstance(key, Yours):
            yield from _place(key, pad)
        else:
            yield from _entry(f"{pad}{_scalar(key)}:", item, depth + 1)
        if depth == 0 or (depth == 1 and isinstance(item, Mapping) and "steps" in item):
            yield ""


def _entry(head: str, item: object, depth: int) -> Iterable[str]:
    if isinstance(item, Said):
        first, *rest = _entry(head, item.value, depth)
        yield f"{first} # {item.remark}"
        yield from rest
    elif isinstance(item, Mapping):
        if item:
            yield head
            yield from _mapping(item, depth)
        else:
            yield f"{head} {{}}"
    elif isinstance(item, list | tuple):
        yield from _sequence(head, item, depth)
    elif isinstance(item, str) and "\n" in item:
        yield f"{head} |"
        yield from (f"{'  ' * depth}{line}" if line else "" for line in item.rstrip("\n").split("\n"))
    else:
        yield f"{head} {_scalar(item)}"


def _sequence(head: str, items: Sequence[object], depth: int) -> Iterable[str]:
    if not isinstance(items, Lines) and all(isinstance(item, str | int) for item in items):
        yield f"{head} [{', '.join(map(_scalar, items))}]"
        return
    yield head
    pad = "  " * depth
    for item in items:
        if isinstance(item, Yours):
            yield from _place(item, pad)
        elif isinstance(item, Mapping):
            first, *rest = _mapping(item, depth + 1)
            yield f"{pad}- {first.strip()}"
            yield from rest
        else:
            yield f"{pad}- {_scalar(item)}"


def _place(place: Yours, pad: str) -> Iterable[str]:
    yield pad + opened(place.name, place.hint)
    yield pad + closed(place.name)


def _scalar(value: object) -> str:
    if isinstance(value, Pin):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    text = str(value)
    return text if _PLAIN.match(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)
