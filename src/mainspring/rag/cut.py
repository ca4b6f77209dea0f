"""Cutting a block that is too long: prose where the sense allows it, tables and code at their lines."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy
from mainspring.rag.blocks import Block, lines_of
from mainspring.rag.ruler import Measured

if TYPE_CHECKING:
    import semantic_text_splitter as splitting
else:
    splitting = lazy("semantic_text_splitter")

__all__ = ["Piece", "halves", "pieces_of"]

_FILL = 0.95
"""How full pieces are aimed to be: their characters are chosen by the text's mean, their tokens counted afterwards."""
_SLACK = 1.03
"""Characters over an even share, so that ending at a sentence leaves no small rest."""
_STEP = 16
_LONGEST = 1 << 15
_NEAR = 256
_WORD = re.compile(r"\w")
_SPACE = re.compile(r"\s+")
_CLOSING = re.compile(r"[ >]*(`{3,}|~{3,})\s*$")


class Piece(msgspec.Struct, frozen=True):
    """A span of the text, and what has to be repeated before it to be understood: a table's head, a fence."""

    start: int
    end: int
    header: str = ""


def pieces_of(measured: Measured, block: Block, budget: int) -> list[Piece]:
    """A block as pieces of at most `budget` tokens each, their repeated header included."""
    if measured.tokens(block.start, block.end) <= budget:
        return [Piece(block.start, block.end)]
    if block.kind in ("table", "fence", "code"):
        return _by_lines(measured, block, budget)
    if not block.parts:
        return [Piece(start, end) for start, end in _by_sense(measured, block.start, block.end, budget)]
    pieces = [piece for part in block.parts for piece in pieces_of(measured, part, budget)]
    return _joined(pieces, lambda start, end: measured.tokens(start, end) <= budget)


def halves(text: str, start: int, end: int, at: int) -> tuple[int, int, int]:
    """A span cut in two near a character, where white space is when there is any: start, cut, end."""
    near = _NEAR
    while True:
        low, high = max(start + 1, at - near), min(end, at + near)
        ends = [match.end() for match in _SPACE.finditer(text, low, high) if match.end() < high]  # else it may go on
        cut = min(ends, key=lambda space: abs(space - at), default=-1)
        whole = (low, high) == (start + 1, end)
        if ends and (whole or abs(cut - at) < near):
            return start, cut, end
        if whole:
            return start, min(max(at, start + 1), end - 1), end
        near *= 8


def _joined(pieces: Iterable[Piece], fits: Callable[[int, int], bool]) -> list[Piece]:
    """Neighbours put together as long as they fit; what repeats a header stays by itself."""
    found: list[Piece] = []
    for piece in pieces:
        if found and not piece.header and not found[-1].header and fits(found[-1].start, piece.end):
            found[-1] = Piece(found[-1].start, piece.end)
        else:
            found.append(piece)
    return found


def _by_lines(measured: Measured, block: Block, budget: int) -> list[Piece]:
    """A table or code at its lines; the head (two lines of a table, one of fenced code) is repeated."""
    text = measured.text
    heads = {"table": 2, "fence": 1}.get(block.kind, 0)
    lines = [block.start + line for line in lines_of(text[block.start : block.end])]
    body = lines[min(heads, len(lines) - 1)]
    if block.kind == "fence" and len(lines) > 2 and _CLOSING.fullmatch(text[lines[-2] : lines[-1]].strip("\r\n")):
        del lines[-2]  # the closing fence stays with the line before
    room = budget - measured.tokens(block.start, body)
    if room < budget / 2:
        return [Piece(start, end) for start, end in _by_sense(measured, block.start, block.end, budget)]
    rows: list[Piece] = []
    edges = [line for line in lines if line >= body]
    for start, end in pairwise(edges):
        rows += [Piece(*span) for span in _by_sense(measured, start, end, room)]
    rows = _joined(rows, lambda start, end: measured.tokens(start, end) <= room)
    header = text[block.start : body]
    return [
        Piece(block.start, row.end) if place == 0 else Piece(row.start, row.end, header)
        for place, row in enumerate(rows)
    ]


def _by_sense(measured: Measured, start: int, end: int, budget: int) -> list[tuple[int, int]]:
    """A span at paragraphs, sentences or words, each part within the budget and with at least a letter."""
    found: list[tuple[int, int]] = []
    for atom in _atoms(measured, start, end, budget):
        if found and measured.tokens(found[-1][0], atom[1]) <= budget:
            found[-1] = (found[-1][0], atom[1])
        elif found and not _WORD.search(measured.text, *atom):
            first, cut, last = halves(measured.text, *found[-1], (found[-1][0] + found[-1][1]) // 2)
            found[-1:] = [(first, cut), (cut, max(atom[1], last))]
        else:
            found.append(atom)
    return found


def _atoms(measured: Measured, start: int, end: int, budget: int) -> list[tuple[int, int]]:
    total = measured.tokens(start, end)
    if total <= budget or end - start < 2:
        return [(start, end)]
    if end - start > _LONGEST:
        middle = halves(measured.text, start, end, (start + end) // 2)[1]
        return _atoms(measured, start, middle, budget) + _atoms(measured, middle, end, budget)
    shares = math.ceil(total / (budget * _FILL))
    size = max(int((end - start) / shares * _SLACK) // _STEP * _STEP, 1)
    spans = [
        (start + offset, start + offset + len(part))
        for offset, part in _splitter(size).chunk_indices(measured.text[start:end])
    ]
    if len(spans) < 2:
        middle = min(max(measured.after(start, total // 2), start + 1), end - 1)
        spans = [(start, middle), (middle, end)]
    return [atom for span in spans for atom in _atoms(measured, *span, budget)]


@lru_cache(maxsize=64)
def _splitter(characters: int) -> splitting.MarkdownSplitter:
    return splitting.MarkdownSplitter(characters)
