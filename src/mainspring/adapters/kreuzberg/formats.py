"""Which format a document has, and the formats that are text already."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal

from mainspring.ports.parser import Parsed, Refused

__all__ = ["MEDIA_TYPES", "Format", "format_of", "heading_title", "read_text"]

Format = Literal["pdf", "html", "docx", "pptx", "markdown", "text", "csv"]

MEDIA_TYPES: dict[Format, str] = {
    "pdf": "application/pdf",
    "html": "text/html",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "markdown": "text/markdown",
    "text": "text/plain",
    "csv": "text/csv",
}
_ENDINGS: dict[str, Format] = {
    ".pdf": "pdf",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".docx": "docx",
    ".pptx": "pptx",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".csv": "csv",
}
_FORMATS = {media: name for name, media in MEDIA_TYPES.items()} | {"application/xhtml+xml": "html"}
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*$\r?\n?", re.DOTALL | re.MULTILINE)
_ENTRY = re.compile(r"""^([A-Za-z][\w-]*)[ \t]*:[ \t]*["']?(.*?)["']?[ \t]*\r?$""", re.MULTILINE)
_TITLE = re.compile(r"^# +(.+?)[ #]*$", re.MULTILINE)


def format_of(name: str, media_type: str = "") -> Format | None:
    """The format by media type, or else by the name's ending; None when it is none that is read."""
    known = _FORMATS.get(media_type.partition(";")[0].strip().lower())
    return known or _ENDINGS.get(PurePosixPath(name).suffix.lower())


def read_text(data: bytes, markdown: bool) -> Parsed | Refused:
    """Text as it is: UTF-8, UTF-16 with a byte order mark, or else the Western code page 1252.

    The front matter of Markdown becomes title and metadata, and is no part of the text.
    """
    try:
        text = _decoded(data)
    except UnicodeDecodeError as error:
        return Refused("corrupt", f"it is not text: {error.reason} at byte {error.start}")
    if "\0" in text:
        return Refused("corrupt", "it is not text: it holds zero bytes")
    if not text.strip():
        return Refused("empty", "it holds no text")
    if not markdown:
        return Parsed(text, plain=True)
    front = _FRONT.match(text)
    entries = {} if front is None else {key.lower(): value for key, value in _ENTRY.findall(front[1]) if value}
    text = text if front is None or not entries else text[front.end() :]
    if not text.strip():
        return Refused("empty", "it holds nothing but front matter")
    title = entries.pop("title", "") or heading_title(text)
    return Parsed(text, title, metadata=entries)


def heading_title(text: str) -> str:
    """The first heading of level 1 near the beginning, if there is one."""
    found = _TITLE.search(text, 0, 2000)
    return found[1].strip() if found else ""


def _decoded(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252")
