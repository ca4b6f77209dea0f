"""The log files of a run, read back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from mainspring.engine.runs.attempts import folder_name

__all__ = ["LogLine", "follow_logs", "read_logs"]

_NAME = re.compile(r"(\d+)-(.+?)(?:\[(\d+)\])?\.(\d+)\.log")
_PAUSE = 0.2


class LogLine(msgspec.Struct, frozen=True):
    """A line that an attempt wrote; `item` is the number of a map's item, or None."""

    step: str
    item: int | None
    attempt: int
    text: str


def _files(folder: Path, step: str) -> list[tuple[tuple[int, int, int], Path, LogLine]]:
    """The log files of a step, or of all, in the order of steps, items and attempts."""
    found = []
    wanted = folder_name(step)
    for path in folder.glob("*.log"):
        match = _NAME.fullmatch(path.name)
        if match is None or (step and match[2] != wanted):
            continue
        item = int(match[3]) if match[3] is not None else None
        order = (int(match[1]), -1 if item is None else item, int(match[4]))
        found.append((order, path, LogLine(match[2], item, int(match[4]), "")))
    return sorted(found, key=lambda entry: entry[0])


def read_logs(folder: Path, step: str) -> Iterator[LogLine]:
    """The lines of a step's attempts, or of all steps when `step` is empty."""
    for _, path, head in _files(folder, step):
        with open(path, encoding="utf-8", errors="replace") as lines:
            for text in lines:
                yield LogLine(head.step, head.item, head.attempt, text.rstrip("\n"))


def follow_logs(
    folder: Path, step: str, is_over: Callable[[], bool], sleep: Callable[[float], None]
) -> Iterator[LogLine]:
    """The same while they are written; whole lines, until the run is over."""
    read: dict[Path, int] = {}
    over = False
    while True:
        for _, path, head in _files(folder, step):
            with open(path, "rb") as file:
                file.seek(read.get(path, 0))
                data = file.read()
            whole = len(data) if over else data.rfind(b"\n") + 1
            read[path] = read.get(path, 0) + whole
            for text in data[:whole].decode("utf-8", "replace").splitlines():
                yield LogLine(head.step, head.item, head.attempt, text)
        if over:
            return
        over = is_over()
        if not over:
            sleep(_PAUSE)
