"""The blocks of a Markdown text as character spans: headings, tables, code and prose, containers with their parts."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mainspring.lazy import lazy
from mainspring.ports.parser import Mark

if TYPE_CHECKING:
    import numpy as np
    import pyromark
    from pyromark.event import Range as Span
else:
    np, pyromark = lazy("numpy"), lazy("pyromark")

__all__ = ["Block", "blocks_of", "lines_of", "marked_blocks"]

Kind = Literal["heading", "table", "fence", "code", "prose"]

_LEAVES: Mapping[str, Kind] = {
    "Paragraph": "prose",
    "Heading": "heading",
    "Table": "table",
    "CodeBlock": "code",
    "HtmlBlock": "prose",
}
_CONTAINERS = frozenset(("List", "Item", "BlockQuote"))
_DEPTH = 20
"""Containers in containers whose parts are told apart; what is deeper is one part."""
_BLOCKS = _CONTAINERS.union(_LEAVES)
_TEXTS = frozenset(("Text", "Code"))
_BREAKS = frozenset(("SoftBreak", "HardBreak"))
_LINE = re.compile(r"\r\n?|\n")
_Tag: TypeAlias = str | Mapping[str, object]


class Block(msgspec.Struct, frozen=True):
    """A block of a text.

    Attributes:
        kind: what it is.
        start: its first character.
        end: one past its last.
        level: of a heading, 1 to 6.
        title: of a heading, its words without markup.
        parts: of a list, an item or a quotation: what is in it; they cover it.
    """

    kind: Kind
    start: int
    end: int
    level: int = 0
    title: str = ""
    parts: tuple[Block, ...] = ()


def lines_of(text: str) -> list[int]:
    """Where each line begins, and the text's length."""
    return [0, *(match.end() for match in _LINE.finditer(text)), len(text)]


def blocks_of(text: str) -> list[Block]:
    """The top-level blocks, in order; together they hold every character that is not blank."""
    data = text.encode("utf-8", "replace")  # half a character becomes one mark, as long as it was
    clean = text if text.isascii() else data.decode()
    reading = _Reading(text, lines_of(text), _characters(data, text))
    try:
        for event, place in pyromark.events_with_range(clean, options=pyromark.Options.ENABLE_TABLES):
            reading.take(event, place)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # which is no Exception; a document that stops the parser is prose
            raise
        reading.found.clear()
    return _filled(text, 0, len(text), reading.found)


def marked_blocks(text: str, headings: Sequence[Mark]) -> list[Block]:
    """The blocks of a text that is no Markdown: headings as marked, and prose; what overlaps the last is no heading."""
    found = []
    at = 0
    for mark in headings:
        title = " ".join(text[mark.start : mark.end].split())
        if mark.start >= at and title:
            found.append(Block("heading", mark.start, mark.end, mark.level, title))
            at = mark.end
    return _filled(text, 0, len(text), found)


def _characters(data: bytes, text: str) -> Callable[[int], int]:
    """From a place among the bytes to that among the characters."""
    if len(data) == len(text):
        return int
    begins = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
    before = np.concatenate(([0], np.cumsum(begins)))
    return lambda place: int(before[place])


class _Reading(msgspec.Struct):
    """The tree of blocks as a parser's events make it."""

    text: str
    lines: list[int]
    at: Callable[[int], int]
    found: list[Block] = msgspec.field(default_factory=list)
    _open: list[tuple[int, int, list[Block]]] = msgspec.field(default_factory=list)
    _beyond: int = 0
    _heading: tuple[int, int, int] | None = None
    _words: list[str] = msgspec.field(default_factory=list)

    def take(self, event: _Tag, place: Span) -> None:
        """The next event and the bytes that it is about."""
        if isinstance(event, str):
            if event == "Rule":
                self._leaf("prose", place)
            elif self._heading is not None and event in _BREAKS:
                self._words.append(" ")
            return
        ((happens, tag),) = event.items()
        if happens == "Start":
            self._start(tag, place)
        elif happens == "End":
            self._end(tag)
        elif self._heading is not None and happens in _TEXTS:
            self._words.append(str(tag))

    def _start(self, tag: object, place: Span) -> None:
        name = tag if isinstance(tag, str) else next(iter(tag))  # type: ignore[call-overload]
        if name not in _BLOCKS:
            return
        if name in _CONTAINERS:
            if len(self._open) == _DEPTH:
                self._leaf("prose", place)
                self._beyond += 1
            else:
                self._open.append((*self._span(place), []))
        elif name == "Heading":
            level = int(tag["Heading"]["level"][1:])  # type: ignore[index]
            self._heading = (*self._span(place), level)
            self._words = []
        else:
            fenced = name == "CodeBlock" and not isinstance(tag["CodeBlock"], str)  # type: ignore[index]
            self._leaf("fence" if fenced else _LEAVES[name], place)

    def _end(self, tag: object) -> None:
        name = tag if isinstance(tag, str) else next(iter(tag))  # type: ignore[call-overload]
        if name in _CONTAINERS:
            if self._beyond:
                self._beyond -= 1
            else:
                start, end, parts = self._open.pop()
                self._add(Block("prose", start, end, parts=tuple(parts)))
        elif name == "Heading" and self._heading is not None:
            self._add(Block("heading", *self._heading, " ".join("".join(self._words).split())))
            self._heading = None

    def _leaf(self, kind: Kind, place: Span) -> None:
        self._add(Block(kind, *self._span(place)))

    def _add(self, block: Block) -> None:
        if not self._beyond:
            (self._open[-1][2] if self._open else self.found).append(block)

    def _span(self, place: Span) -> tuple[int, int]:
        """The lines that an event is on, as characters; the blanks before the next block are none of its own."""
        start, end = self.at(place["start"]), self.at(place["end"])
        begins = self.lines[bisect_right(self.lines, start) - 1]
        while end > start and self.text[end - 1] in " \t":
            end -= 1
        return begins, self.lines[bisect_left(self.lines, end)]


def _filled(text: str, start: int, end: int, blocks: Iterable[Block]) -> list[Block]:
    """The blocks of a span, with prose where they leave out something: link definitions, a list's own marks."""
    found = []
    at = start
    for block in blocks:
        if text[at : block.start].strip():
            found.append(Block("prose", at, block.start))
        begin = max(block.start, at)
        if begin >= block.end:
            continue
        if block.parts or begin > block.start:
            parts = tuple(_filled(text, begin, block.end, block.parts)) if block.parts else ()
            block = Block(block.kind, begin, block.end, block.level, block.title, parts)
        found.append(block)
        at = block.end
    if text[at:end].strip():
        found.append(Block("prose", at, end))
    return found
