"""Which lines of a PDF's text are headings: those that its bookmarks lead to, or else those in larger letters.

Bookmarks are what the author's program knew of the document's parts. Their titles are looked up on the page that they
lead to. A document without them has headings where letters are larger than most of its text, for a line or a few.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from mainspring.ports.parser import Mark

__all__ = ["Bookmark", "Line", "by_bookmarks", "by_size"]

_NUMBER = re.compile(
    r"^(?:(?:chapter|section|part|appendix)\s+)?(?:\d+|[a-z]|[ivxlc]+)(?:[.\-]\d+)*[.:)]?\s+", re.IGNORECASE
)
_WRAPPED = 4
"""Lines that one title may take."""
_LARGER = 1.1
_SHARE = 0.1
"""The most of all letters that those of one size may be and still be headings."""
_LONG = 200
_OFTEN = 3
"""Places at which the same words are a page's head or foot and no heading."""
_LEVELS = 6


class Line(msgspec.Struct, frozen=True):
    """A line of the text.

    Attributes:
        page: its page, from 0.
        start: its first character in the document's text.
        text: the line, without its end.
        size: of its first letter, in points; 0 when it is not known.
    """

    page: int
    start: int
    text: str
    size: float = 0.0

    @property
    def end(self) -> int:
        """One past its last character."""
        return self.start + len(self.text)


class Bookmark(msgspec.Struct, frozen=True):
    """An entry of the document's outline: its depth from 0, its title, the page from 0 that it leads to."""

    depth: int
    title: str
    page: int


def by_bookmarks(lines: Sequence[Line], bookmarks: Sequence[Bookmark]) -> tuple[Mark, ...]:
    """The headings that the outline names, in order and disjoint; empty where too few of its titles are on their page.

    Args:
        lines: all lines that are not blank, in order.
        bookmarks: the document's outline, in order.
    """
    pages = {
        page: [(line, _words(line.text)) for line in group] for page, group in groupby(lines, lambda one: one.page)
    }
    found: list[Mark] = []
    for bookmark in bookmarks:
        before = found[-1].end if found else 0
        place = _place(pages.get(bookmark.page, ()), _words(bookmark.title), before)
        if place is not None:
            found.append(Mark(*place, min(bookmark.depth, _LEVELS - 1) + 1))
    return tuple(found) if 2 * len(found) >= len(bookmarks) else ()


def _place(lines: Sequence[tuple[Line, str]], title: str, before: int) -> tuple[int, int] | None:
    """Where a title stands on a page, after a character; the page's head says it too at times, and is passed over."""
    if not title:
        return None
    places = [
        (line.start, end)
        for number, (line, words) in enumerate(lines)
        if line.start >= before and title.startswith(words) and (end := _end(lines, number, title)) is not None
    ]
    if len(places) > 1 and places[0][0] == lines[0][0].start:
        return places[1]
    return places[0] if places else None


def _end(lines: Sequence[tuple[Line, str]], number: int, title: str) -> int | None:
    """Where a title ends that begins with this line; None when it does not."""
    said = ""
    for line, _ in lines[number : number + _WRAPPED]:
        said = f"{said} {line.text}"
        words = _words(said)
        if words == title:
            return line.end
        if not title.startswith(words):
            return None
    return None


def _words(text: str) -> str:
    """A title's letters, without its number and marks, in which outlines and pages differ."""
    named = _NUMBER.sub("", text.strip()) or text
    return "".join(filter(str.isalnum, named.casefold()))


# -- by size -----------------------------------------------------------------------------------------------------------


def by_size(lines: Sequence[Line]) -> Iterator[Mark]:
    """The headings in larger letters, in order and disjoint.

    Args:
        lines: all lines that are not blank, in order, with their sizes.
    """
    letters: Counter[float] = Counter()
    for line in lines:
        letters[_rounded(line.size)] += len(line.text)
    if not letters:
        return
    usual, most = letters.most_common(1)[0][0], letters.total() * _SHARE
    larger = sorted((size for size in letters if size >= usual * _LARGER and letters[size] <= most), reverse=True)
    level = {size: min(place, _LEVELS - 1) + 1 for place, size in enumerate(larger)}
    often = Counter(_repeated(line) for line in lines if _rounded(line.size) in level)
    for (_, size), group in groupby(lines, lambda line: (line.page, _rounded(line.size))):
        run = list(group)
        if size not in level or len(run) > _WRAPPED:
            continue
        first, last = run[0], run[-1]
        written = " ".join(line.text for line in run)
        said_often = any(often[_repeated(line)] >= _OFTEN for line in run)
        if len(written) <= _LONG and not said_often and sum(map(str.isalpha, written)) > 1:
            yield Mark(first.start, last.end, level[size])


def _rounded(size: float) -> float:
    return round(2 * size) / 2


def _repeated(line: Line) -> str:
    """What is the same in the head or foot of every page."""
    return "".join(letter for letter in line.text.casefold() if letter.isalpha())
