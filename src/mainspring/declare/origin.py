"""Where in the user's files something was declared."""

from __future__ import annotations

import sys
from collections.abc import Callable
from os import path
from types import FrameType

import msgspec

__all__ = ["Origin", "here", "of_function"]

_PACKAGE = path.join(path.dirname(path.dirname(path.abspath(__file__))), "")


class Origin(msgspec.Struct, frozen=True):
    """A line of a file, printed as ``flights.py:31``."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{path.basename(self.file)}:{self.line}"


def here() -> Origin:
    """The nearest caller outside this package: the line the user wrote."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _ours(frame):
        frame = frame.f_back
    return Origin(frame.f_code.co_filename, frame.f_lineno)


def _ours(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    # The methods that a dataclass is given have no file, only a module.
    made = file == "<string>" and str(frame.f_globals.get("__name__")).startswith("mainspring.")
    return made or file.startswith(_PACKAGE)


def of_function(function: Callable[..., object]) -> Origin:
    """The line a function starts at; the caller's line for something without code."""
    code = getattr(function, "__code__", None)
    return here() if code is None else Origin(code.co_filename, code.co_firstlineno)
