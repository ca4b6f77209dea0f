"""The blocks of a Markdown text as character spans: headings, tables, code and prose, containers with their parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from mainspring.lazy import lazy
from mainspring.rag.plain import PLAIN, plain

if TYPE_CHECKING:
    import markdown_it
    from markdown_it.token import Token
else:
    markdown_it = lazy("markdown_it")

__all__ = ["Block", "blocks_of", "lines_of"]

Kind = Literal["heading", "table", "fence", "code", "prose"]

_KINDS: dict[str, Kind] = {
    "heading_open": "heading",
    "table_open": "table",
    "fence": "fence",
    "code_block": "code",
}
_CONTAINERS = {"bullet_list_open", "ordered_list_open", "list_item_open", "blockquote_open"}
_LINE = re.compile(r"\r\n?|\n")


@dataclass(frozen=True, slots=True)
class Block:
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
    lines = lines_of(text)
    return list(_filled(text, 0, len(text), _tree(iter(_block_parser().parse(text)), lines)))


@cache
def _block_parser() -> markdown_it.MarkdownIt:
    parser = markdown_it.MarkdownIt("commonmark").enable("table").disable("reference")
    parser.core.ruler.enableOnly(["normalize", "block"])
    parser.block.ruler.before("table", PLAIN, plain)
    return parser


@cache
def _inline_parser() -> markdown_it.MarkdownIt:
    return markdown_it.MarkdownIt("commonmark")


def _tree(tokens: Iterator[Token], lines: list[int]) -> list[Block]:
    """The blocks up to the end of the tokens, or of the container that they are in."""
    found = []
    for token in tokens:
        if token.nesting == -1:
            break
        found.append(_block(token, tokens, lines))
    return found


def _block(token: Token, tokens: Iterator[Token], lines: list[int]) -> Block:
    """The block that a token opens; those after it, up to its closing one, are taken too."""
    first, last = token.map or (0, 0)
    start, end = lines[first], lines[min(last, len(lines) - 1)]
    kind = _KINDS.get(token.type, "prose")
    if token.type in _CONTAINERS:
        return Block(kind, start, end, parts=tuple(_tree(tokens, lines)))
    inner = list(takewhile(lambda one: one.level != token.level, tokens)) if token.nesting == 1 else []
    if kind == "heading":
        return Block(kind, start, end, int(token.tag[1:]), _words(inner[0].content))
    return Block(kind, start, end)


def _words(content: str) -> str:
    """A heading without its markup."""
    children = _inline_parser().parseInline(content)[0].children or []
    return " ".join("".join(" " if part.type.endswith("break") else part.content for part in children).split())


def _filled(text: str, start: int, end: int, blocks: list[Block] | tuple[Block, ...]) -> list[Block]:
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
