"""Where the pages of a document begin in its Markdown.

kreuzberg tells each page's plain text, and boundaries that are offsets into that, not into the Markdown (nor in
characters). Both texts have the same letters in nearly the same order, so the pages' lines are looked up among the
letters of the Markdown: those that are there once are anchors, the longest rising run of anchors is kept, and what is
between the last anchor of a page and the first of the next is shared out by its lines.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import msgspec

__all__ = ["page_starts"]

_LETTER = re.compile(r"[^\W_]")
_ANCHOR = 10
_SHORT = 3
_NEAR = 4000


class _Line(msgspec.Struct, frozen=True):
    """A line of a page as letters, and where it is among those of the Markdown, when that is sure."""

    page: int
    letters: str
    place: int = -1


def page_starts(markdown: str, pages: Sequence[str]) -> tuple[int, ...]:
    """The character of the Markdown at which each page begins; the first begins at 0, an empty one with the next.

    Args:
        markdown: the whole document.
        pages: the plain text of each page, which may hold lines that the Markdown leaves out.
    """
    places = [match.start() for match in _LETTER.finditer(markdown)]
    letters = "".join(markdown[place] for place in places)
    lines = [_Line(page, found) for page, text in enumerate(pages) for found in _lines(text)]
    anchored = _rising(list(_anchored(lines, letters)))
    starts = [0] * len(pages)
    for page in range(1, len(pages)):
        at = _start(page, anchored, letters)
        starts[page] = max(places[at] if at < len(places) else len(markdown), starts[page - 1])
    return tuple(starts)


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if found := "".join(_LETTER.findall(line)):
            yield found


def _anchored(lines: Sequence[_Line], letters: str) -> Iterator[_Line]:
    """The lines, with their place where they are found just once near where they should be."""
    near = _NEAR + 2 * max((len(line.letters) for line in lines), default=0)
    at = 0
    for line in lines:
        low, high = max(at - near, 0), at + near
        place = letters.find(line.letters, low, high) if len(line.letters) >= _ANCHOR else -1
        if place >= 0 and letters.find(line.letters, place + 1, high) < 0:
            yield _Line(line.page, line.letters, place)
            at = place + len(line.letters)
        else:
            yield line
            at += len(line.letters) if place >= 0 or len(line.letters) < _ANCHOR else 0


def _rising(lines: list[_Line]) -> list[_Line]:
    """The lines, with the place of those alone that are in the longest run of rising places."""
    ends: list[int] = []
    tops: list[int] = []
    before: dict[int, int] = {}
    for number, line in enumerate(lines):
        if line.place < 0:
            continue
        height = bisect_left(ends, line.place)
        before[number] = tops[height - 1] if height else -1
        ends[height : height + 1] = [line.place]
        tops[height : height + 1] = [number]
    kept = set()
    number = tops[-1] if tops else -1
    while number >= 0:
        kept.add(number)
        number = before[number]
    return [line if number in kept else _Line(line.page, line.letters) for number, line in enumerate(lines)]


def _start(page: int, lines: Sequence[_Line], letters: str) -> int:
    """The letter at which a page begins: after what is left of the page before it, at the first of its own lines."""
    first = bisect_left(lines, page, key=lambda line: line.page)
    last = next((number for number in range(first - 1, -1, -1) if lines[number].place >= 0), -1)
    following = next((number for number in range(first, len(lines)) if lines[number].place >= 0), len(lines))
    at = lines[last].place + len(lines[last].letters) if last >= 0 else 0
    end = lines[following].place if following < len(lines) else len(letters)
    for line in lines[last + 1 : first]:
        found = letters.find(line.letters, at, end) if len(line.letters) >= _SHORT else -1
        at = found + len(line.letters) if found >= 0 else at
    for line in lines[first:following]:
        found = letters.find(line.letters, at, end) if line.page == page and len(line.letters) >= _SHORT else -1
        if found >= 0:
            return found
    return end if following == len(lines) or lines[following].page >= page else at
