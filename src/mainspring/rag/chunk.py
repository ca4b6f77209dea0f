"""Chunks of a document: what is embedded and found, with its heading path, its span and its pages.

The splitter of semantic-text-splitter says where prose may be cut; tokens are counted by the embedder's own tokenizer,
which never cuts. Counting once and asking for characters is about ten times as fast as giving it the tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import msgspec

from mainspring.ports.parser import Parsed
from mainspring.rag.blocks import Block, blocks_of, marked_blocks
from mainspring.rag.cut import halves, pieces_of
from mainspring.rag.ruler import Measured, Ruler

__all__ = ["Chunk", "ChunkSpec", "Chunker"]

_SPACES = " \t\n\r"


class ChunkSpec(msgspec.Struct, frozen=True):
    """How documents are cut; a part of an index version's identity.

    Attributes:
        max_tokens: most tokens of what is embedded: special tokens, prefix, repeated header and body.
        prefix_tokens: most tokens of the prefix (title and heading path); what is beyond is left out from its middle.
        merge_tokens: a chunk with fewer tokens takes in the section after it, if that fits.
        rules: rises when the same text would be cut differently.
    """

    max_tokens: int = 256
    prefix_tokens: int = 64
    merge_tokens: int = 0
    rules: int = 1


class Chunk(msgspec.Struct, frozen=True):
    """A part of a document.

    Attributes:
        ordinal: its place among the document's chunks, from 0.
        path: the headings above it, outermost first.
        start: its first character in the document's text.
        end: one past its last.
        body: the document's text from start to end.
        text: what is embedded: prefix, repeated header, body.
        tokens: of `text`, special tokens included.
        page_first: the page that it begins on, from 1; None without pages.
        page_last: the page that it ends on.
    """

    ordinal: int
    path: tuple[str, ...]
    start: int
    end: int
    body: str
    text: str
    tokens: int
    page_first: int | None = None
    page_last: int | None = None


class _Heading(msgspec.Struct, frozen=True):
    level: int
    title: str
    start: int


Stack = tuple[_Heading, ...]


class _Section(msgspec.Struct, frozen=True):
    """Blocks under the same headings; `opening` are the headings right before them."""

    stack: Stack
    opening: tuple[Block, ...]
    blocks: tuple[Block, ...]


class _Part(msgspec.Struct, frozen=True):
    """What becomes a chunk, alone or with its neighbours."""

    start: int
    end: int
    header: str
    stack: Stack


class Chunker:
    """Cuts documents for one embedder; safe to call from several threads.

    Args:
        ruler: counts in the embedder's tokens.
        spec: how to cut.
        most: tokens that the embedder reads; it lowers the spec's own limit.
    """

    def __init__(self, ruler: Ruler, spec: ChunkSpec, most: int) -> None:
        self._ruler = ruler
        self._spec = spec
        self._cap = min(spec.max_tokens, most)
        self._specials = ruler.count(["a"])[0] - _tokens(ruler, "a")

    def chunks(self, parsed: Parsed) -> list[Chunk]:
        """The document's chunks in order: disjoint, within the limit, together all that is not blank.

        No chunk is a heading or a fence alone unless the document has nothing else to put it with.
        """
        text = parsed.text
        measured = self._ruler.measured(text)
        blocks = marked_blocks(text, parsed.headings) if parsed.plain else blocks_of(text)
        work = _Cutting(measured, blocks, parsed.title, self._ruler, self._spec, self._cap - self._specials)
        fitting = self._fitting(work, [work.trimmed(part) for part in work.packed()])
        return [
            Chunk(
                ordinal,
                tuple(heading.title for heading in part.stack),
                part.start,
                part.end,
                text[part.start : part.end],
                embedded,
                tokens,
                parsed.page_at(part.start),
                parsed.page_at(part.end - 1),
            )
            for ordinal, (part, embedded, tokens) in enumerate(fitting)
        ]

    def _fitting(self, work: _Cutting, parts: list[_Part]) -> list[tuple[_Part, str, int]]:
        """Parts with what is embedded and its exact tokens; one that is too long after all is halved until it fits."""
        embedded = [work.embedded(part) for part in parts]
        found = []
        for part, text, tokens in zip(parts, embedded, self._counts(work, parts, embedded), strict=True):
            if tokens <= self._cap:
                found.append((part, text, tokens))
            elif part.end - part.start > 1:
                found += self._fitting(work, work.halved(part))
            else:
                found.append((part, part_text := work.body(part), self._ruler.count([part_text])[0]))
        return found

    def _counts(self, work: _Cutting, parts: list[_Part], embedded: list[str]) -> list[int]:
        """The exact tokens of each part; those that are known from cutting are not counted again."""
        adds_up = self._ruler.adds_up
        known = [work.tokens(part) + self._specials if adds_up and work.is_clean(part) else 0 for part in parts]
        counted = iter(self._ruler.count([text for text, count in zip(embedded, known, strict=True) if not count]))
        return [count or next(counted) for count in known]


class _Cutting:
    """One document being cut."""

    def __init__(
        self, measured: Measured, blocks: Sequence[Block], title: str, ruler: Ruler, spec: ChunkSpec, room: int
    ) -> None:
        self._measured = measured
        self._text = measured.text
        self._blocks = blocks
        self._title = title.strip()
        self._ruler = ruler
        self._spec = spec
        self._room = room
        self._prefixes: dict[tuple[str, ...], tuple[str, int]] = {}

    def packed(self) -> list[_Part]:
        """The parts, neighbours of one section put together as long as they fit."""
        found: list[_Part] = []
        for part in self._parts():
            if not self.body(part).strip():
                continue
            if found and (joined := self._join(found[-1], part)) is not None:
                found[-1] = joined
            else:
                found.append(part)
        return found

    def trimmed(self, part: _Part) -> _Part:
        """Without blank lines before and white space after."""
        body = self._text[part.start : part.end]
        lead = len(body) - len(body.lstrip())
        lead = max(body.rfind("\n", 0, lead), body.rfind("\r", 0, lead)) + 1 if lead else 0
        return _Part(part.start + lead, part.start + len(body.rstrip()), part.header, part.stack)

    def halved(self, part: _Part) -> list[_Part]:
        """Two parts in place of one."""
        start, cut, end = halves(self._text, part.start, part.end, (part.start + part.end) // 2)
        both = (_Part(start, cut, part.header, part.stack), _Part(cut, end, part.header, part.stack))
        return [self.trimmed(half) for half in both if self._text[half.start : half.end].strip()]

    def body(self, part: _Part) -> str:
        """The part's own text."""
        return self._text[part.start : part.end]

    def embedded(self, part: _Part) -> str:
        """What is embedded of a part."""
        prefix, _ = self._prefix(part.stack, part.start)
        return f"{prefix}{part.header}{self.body(part)}"

    def tokens(self, part: _Part) -> int:
        """Tokens of what is embedded of a part, without special tokens, as far as tokens add up."""
        header = _tokens(self._ruler, part.header) if part.header else 0
        return self._prefix(part.stack, part.start)[1] + header + self._measured.tokens(part.start, part.end)

    def is_clean(self, part: _Part) -> bool:
        """Whether no word is cut at the part's ends."""
        text = self._text
        starts = part.start == 0 or text[part.start - 1] in _SPACES or text[part.start] in _SPACES
        return starts and (part.end == len(text) or text[part.end] in _SPACES)

    # -- putting together -------------------------------------------------------------------------------------------

    def _join(self, first: _Part, second: _Part) -> _Part | None:
        stack = first.stack
        if second.stack != stack:
            if self._measured.tokens(first.start, first.end) >= self._spec.merge_tokens:
                return None
            stack = _shared(stack, second.stack)
        whole = _Part(first.start, second.end, first.header, stack)
        return whole if self.tokens(whole) <= self._room else None

    # -- taking apart -----------------------------------------------------------------------------------------------

    def _parts(self) -> Iterator[_Part]:
        last: _Part | None = None
        for section in _sections(self._blocks):
            for part in self._parts_of(section) if section.blocks else self._headings_alone(section, last):
                if last is not None and part.start > last.start:
                    yield last
                last = part
        if last is not None:
            yield last

    def _parts_of(self, section: _Section) -> Iterator[_Part]:
        start = section.opening[0].start if section.opening else section.blocks[0].start
        opening = self._measured.tokens(start, section.blocks[0].start)
        room = self._room - self._prefix(section.stack, section.blocks[0].start)[1]
        first = self._room - self._prefix(section.stack, start)[1] - opening
        if first < room / 2:  # more headings than text: they are text
            yield from self._pieces(section.opening, section.stack, room)
            start, first = section.blocks[0].start, room
        for place, block in enumerate(section.blocks):
            for piece in pieces_of(self._measured, block, first if place == 0 else room):
                begin = start if piece.start == section.blocks[0].start else piece.start
                yield _Part(begin, piece.end, piece.header, section.stack)

    def _pieces(self, blocks: Sequence[Block], stack: Stack, room: int) -> Iterator[_Part]:
        whole = Block("prose", blocks[0].start, blocks[-1].end)
        for piece in pieces_of(self._measured, whole, room):
            yield _Part(piece.start, piece.end, piece.header, stack)

    def _headings_alone(self, section: _Section, last: _Part | None) -> Iterator[_Part]:
        """Headings at the end of the document go with the text before them, or with its second half."""
        start, end = section.opening[0].start, section.opening[-1].end
        if last is None:
            yield from self._pieces(section.opening, section.stack, self._room - self._prefix(section.stack, start)[1])
            return
        whole = _Part(last.start, end, last.header, last.stack)
        if self.tokens(whole) <= self._room:
            yield whole
            return
        begin, cut, _ = halves(self._text, last.start, last.end, (last.start + last.end) // 2)
        yield _Part(begin, cut, last.header, last.stack)
        yield from self._pieces([Block("prose", cut, end)], last.stack, self._room - self._prefix(last.stack, cut)[1])

    # -- prefix -----------------------------------------------------------------------------------------------------

    def _prefix(self, stack: Stack, start: int) -> tuple[str, int]:
        """Title and headings that stand before a part, and their tokens."""
        names = _names(self._title, stack, start)
        if names not in self._prefixes:
            self._prefixes[names] = self._made(list(names))
        return self._prefixes[names]

    def _made(self, names: list[str]) -> tuple[str, int]:
        most = min(self._spec.prefix_tokens, self._room // 2)
        while names:
            measured = self._ruler.measured(" > ".join(names) + "\n\n")
            if measured.totals[-1] <= most:
                return measured.text, measured.totals[-1]
            if len(names) > 1:
                del names[len(names) // 2 if len(names) > 2 else 0]
            else:
                shorter = names[0][: measured.after(0, most)].rstrip()
                names = [shorter] if shorter and shorter != names[0] else []
        return "", 0


def _tokens(ruler: Ruler, text: str) -> int:
    return ruler.measured(text).totals[-1]


def _names(title: str, stack: Stack, start: int) -> tuple[str, ...]:
    """The title and the headings before a place; where the title begins with the first heading, only one of both."""
    above = [heading.title for heading in stack if heading.start < start and heading.title]
    first = stack[0].title.casefold() if stack else ""
    if first and title.casefold().startswith(first):
        if stack[0].start < start:
            return (title, *above[1:])
        title = "" if title.casefold() == first else title
    return (title, *above) if title else tuple(above)


def _sections(blocks: Sequence[Block]) -> Iterator[_Section]:
    """The blocks by the headings above them; headings without text of their own open the next section."""
    stack: Stack = ()
    opening: list[Block] = []
    held: list[Block] = []
    for block in blocks:
        if block.kind != "heading":
            held.append(block)
            continue
        if held:
            yield _Section(stack, tuple(opening), tuple(held))
            opening, held = [], []
        opening.append(block)
        stack = (
            *(heading for heading in stack if heading.level < block.level),
            _Heading(block.level, block.title, block.start),
        )
    if opening or held:
        yield _Section(stack, tuple(opening), tuple(held))


def _shared(one: Stack, other: Stack) -> Stack:
    """The headings that are above both."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(mine for mine, _ in pairs)
