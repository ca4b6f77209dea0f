"""Lengths of time as the user writes them: ``"90s"``, ``"10m"``, ``"3h"``, ``"30d"``, ``"2w"``; a day is 24 hours."""

from __future__ import annotations

import re
from datetime import timedelta

from mainspring.declare.origin import here
from mainspring.errors import DeclarationError

__all__ = ["Duration", "microseconds", "spell"]

Duration = str | timedelta

_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)\s*")


def microseconds(length: Duration, *, what: str = "duration") -> int:
    """A length of time in whole microseconds.

    Raises:
        DeclarationError: MS-1001, the text is no duration; MS-1002, it is not above zero.
    """
    if isinstance(length, timedelta):
        value = length // timedelta(microseconds=1)
    else:
        match = _FORM.fullmatch(length) if isinstance(length, str) else None
        if match is None:
            raise DeclarationError(
                f"{what} {length!r} is not a length of time",
                code="MS-1001",
                why="a duration is a number and a unit, or a datetime.timedelta",
                origin=str(here()),
                fix='write "500ms", "90s", "10m", "3h", "30d" or "2w"',
            )
        value = round(float(match[1]) * _UNITS[match[2]])
    if value <= 0:
        raise DeclarationError(
            f"{what} must be longer than zero, not {length!r}",
            code="MS-1002",
            origin=str(here()),
            fix="leave it out to have no limit",
        )
    return value


def spell(length_us: int) -> str:
    """The shortest whole spelling of a length in microseconds: ``10800000000`` is ``3h``."""
    for unit, size in reversed(_UNITS.items()):
        if unit != "w" and length_us % size == 0:
            return f"{length_us // size}{unit}"
    return f"{length_us}us"
