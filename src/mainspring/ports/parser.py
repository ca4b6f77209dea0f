"""Parsers: from the bytes of a document to Markdown with pages, or a reason why not."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import msgspec

__all__ = ["Mark", "Parsed", "Parser", "Reason", "Refused"]

Reason = Literal[
    "too_large", "unsupported", "encrypted", "corrupt", "empty", "timeout", "memory", "crashed", "unreadable"
]


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """A heading of a text that is no Markdown: its first character, one past its last, its level from 1 to 6."""

    start: int
    end: int
    level: int


class Parsed(msgspec.Struct, frozen=True):
    """A document as text.

    Attributes:
        text: Markdown; all offsets are characters of it.
        title: what the document calls itself; empty when it does not say.
        pages: where each page begins, as character offsets, rising; page 1 is the first. Empty without pages.
        metadata: what else the document says of itself: ``authors``, ``created_at``, ``language``, ...
        plain: whether the text is no Markdown: a line that begins with ``#`` is no heading.
        headings: of a plain text, in order and disjoint; those of Markdown stand in the text.
    """

    text: str
    title: str = ""
    pages: tuple[int, ...] = ()
    metadata: dict[str, str] = {}
    plain: bool = False
    headings: tuple[Mark, ...] = ()

    def page_at(self, offset: int) -> int | None:
        """The number, from 1, of the page that a character is on; None without pages."""
        return max(bisect_right(self.pages, offset), 1) if self.pages else None


class Refused(msgspec.Struct, frozen=True):
    """Why a document could not be read; it is put aside and the others go on.

    Attributes:
        reason: what kind of fault.
        why: the cause in one line, without paths.
    """

    reason: Reason
    why: str


@runtime_checkable
class Parser(Protocol):
    """Reads documents, hostile ones too; safe to call from several threads."""

    @property
    def id(self) -> str:
        """Names the parser, its version and the settings that change its text: a part of cache keys."""

    @property
    def limits(self) -> str:
        """Names the settings that decide what is refused and change no text: a refusal holds while they do."""

    @property
    def max_bytes(self) -> int:
        """The largest document that it takes."""

    def reads(self, name: str, media_type: str = "") -> bool:
        """Whether it takes documents of such a name or media type."""

    def parse(self, document: bytes | Path, name: str, media_type: str = "") -> Parsed | Refused:
        """The document's text, or why there is none; never raises for what is in the document.

        Args:
            document: its bytes, or the file that holds them.
            name: its file name, whose ending tells the format.
            media_type: its format, where that is known otherwise.

        Raises:
            StoreError: MS-4261, the file itself cannot be read.
        """

    def close(self) -> None:
        """Let go of its workers."""
