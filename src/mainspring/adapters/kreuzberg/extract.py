"""From bytes to text with kreuzberg or pdfium; runs in a child process."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from mainspring.adapters.kreuzberg.formats import MEDIA_TYPES, Format, heading_title
from mainspring.adapters.kreuzberg.headings import Bookmark, Line, by_bookmarks, by_size
from mainspring.adapters.kreuzberg.html import body_of, decoded, head_of
from mainspring.adapters.kreuzberg.office import restored, shielded
from mainspring.adapters.kreuzberg.pages import page_starts
from mainspring.adapters.kreuzberg.problems import refusal
from mainspring.lazy import lazy
from mainspring.ports.parser import Parsed, Refused

if TYPE_CHECKING:
    import kreuzberg
    import pypdfium2
else:
    kreuzberg, pypdfium2 = lazy("kreuzberg"), lazy("pypdfium2")

__all__ = ["extracted"]

_BREAK = re.compile("[\x02\ufffe\u00ad]\r?\n?")
_BEGINNING, _AHEAD = 16, 4_000
"""Characters by which a line is found again, and how far ahead of the last one it may be."""
_BOOKMARKS = 10_000
_OLD_OFFICE = b"\xd0\xcf\x11\xe0"
_KEPT = ("authors", "created_at", "modified_at", "created_by", "language", "subject", "keywords", "abstract_text")
_NO_TEXT = {"pdf": "it holds no text; scanned pages need character recognition, which is not part of this parser"}


def extracted(data: bytes, kind: Format, fast: bool, most: int) -> Parsed | Refused:
    """The text of a document, at most `most` characters, or why there is none.

    Args:
        data: the document.
        kind: its format.
        fast: whether a PDF is read by pdfium alone.
        most: characters that the text may have.
    """
    if data.startswith(_OLD_OFFICE) and kind in ("docx", "pptx"):
        return Refused("encrypted", "it is protected by a password, or of the binary format before 2007")
    try:
        parsed = _fast_pdf(data) if fast and kind == "pdf" else _READERS[kind](data)
    except Exception as error:  # the libraries' errors share no base but Exception
        return refusal(error)
    if len(parsed.text) > most:
        return Refused("too_large", f"its text has {len(parsed.text)} characters, at most {most} are taken")
    if not parsed.text.strip():
        return Refused("empty", _NO_TEXT.get(kind, "it holds no text"))
    return parsed


def _html(data: bytes) -> Parsed:
    page = decoded(data)
    title, about = head_of(page)
    text = _converted(body_of(page).encode("utf-8", "replace"), "html").content
    return Parsed(text, title or heading_title(text), metadata=about)


def _docx(data: bytes) -> Parsed:
    result = _converted(shielded(data), "docx")
    text = restored(result.content)
    return _parsed(result, text, [restored(page["content"]) for page in result.pages or ()])


def _pptx(data: bytes) -> Parsed:
    """Slides are known by their place in the plain text alone: its boundaries are right, those of Markdown are not."""
    checked = shielded(data)
    result = _converted(checked, "pptx")
    plain = _converted(checked, "pptx", "plain")
    content = plain.content.encode()
    bounds = plain.metadata.get("pages", {}).get("boundaries", ())
    slides = [content[bound["byte_start"] : bound["byte_end"]].decode("utf-8", "ignore") for bound in bounds]
    return _parsed(result, result.content, slides)


def _pdf(data: bytes) -> Parsed:
    result = _converted(data, "pdf")
    return _parsed(result, result.content, [page["content"] for page in result.pages or ()])


def _csv(data: bytes) -> Parsed:
    return Parsed(_converted(data, "csv").content)


def _converted(data: bytes, kind: Format, output: str = "markdown") -> Any:
    """What kreuzberg makes of it.

    The margins of a page are read too, where it would drop a first line as furniture. Its score of the text's quality,
    which nobody reads, would take half of its time for HTML.
    """
    config = kreuzberg.ExtractionConfig(
        output_format=output,
        pages=kreuzberg.PageConfig(extract_pages=True),
        use_cache=False,
        enable_quality_processing=False,
        content_filter=kreuzberg.ContentFilterConfig(include_headers=True, include_footers=True),
        pdf_options=kreuzberg.PdfConfig(top_margin_fraction=0.0, bottom_margin_fraction=0.0),
    )
    return kreuzberg.extract_bytes_sync(data, MEDIA_TYPES[kind], config)


def _parsed(result: Any, text: str, pages: list[str]) -> Parsed:
    title = str(result.metadata.get("title") or "").strip() or heading_title(text)
    return Parsed(text, title, page_starts(text, pages) if len(pages) > 1 else (), _metadata(dict(result.metadata)))


def _metadata(found: dict[str, Any]) -> dict[str, str]:
    kept = {}
    for key in _KEPT:
        value = found.get(key)
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
        if text:
            kept[key] = text
    return kept


def _fast_pdf(data: bytes) -> Parsed:
    document = pypdfium2.PdfDocument(data)
    try:
        about = document.get_metadata_dict(skip_empty=True)
        bookmarks = _bookmarks(document)
        pages, lines = _pages(document, sized=not bookmarks)
        headings = by_bookmarks(lines, bookmarks)
        if bookmarks and not headings:
            _, lines = _pages(document, sized=True)
        headings = headings or tuple(by_size(lines))
    finally:
        document.close()
    named = (("Author", "authors"), ("Subject", "subject"), ("Keywords", "keywords"), ("CreationDate", "created_at"))
    metadata = {ours: about[theirs] for theirs, ours in named if theirs in about}
    starts = tuple(accumulate((len(page) + 2 for page in pages[:-1]), initial=0)) if pages else ()
    title = about.get("Title", "").strip()
    return Parsed("\n\n".join(pages), title, starts, metadata, plain=True, headings=headings)


def _pages(document: Any, *, sized: bool) -> tuple[list[str], list[Line]]:
    """The pages' texts, which are put together with a blank line between, and the lines that are not blank."""
    pages: list[str] = []
    lines: list[Line] = []
    at = 0
    for number in range(len(document)):
        page = document[number]
        text_page = page.get_textpage()
        try:
            text = _BREAK.sub("", text_page.get_text_bounded()).replace("\r\n", "\n")
            size_of = _Sizes(text_page).of if sized else _unsized
            for line in text.split("\n"):
                if line and not line.isspace():
                    lines.append(Line(number, at, line, size_of(line)))
                at += len(line) + 1
        finally:
            text_page.close()
            page.close()
        pages.append(text)
        at += 1
    return pages, lines


def _unsized(line: str) -> float:
    return 0.0


class _Sizes:
    """The letters' sizes at the lines of a page, which are asked for in order.

    The sizes are told by place among all characters, which is not quite the text that is taken: that has fewer breaks.
    """

    def __init__(self, text_page: Any) -> None:
        self._page = text_page
        self._text = text_page.get_text_range()
        self._wide = len(self._text) * 2 != len(self._text.encode("utf-16-le", "replace"))
        self._at = 0

    def of(self, line: str) -> float:
        """In points; 0 where the line is not found."""
        begins = line.lstrip()[:_BEGINNING]
        found = self._text.find(begins, self._at, self._at + _AHEAD)
        if found < 0:
            return 0.0
        self._at = found + len(begins)
        place = len(self._text[:found].encode("utf-16-le", "replace")) // 2 if self._wide else found
        index = pypdfium2.raw.FPDFText_GetCharIndexFromTextIndex(self._page, place)
        return float(pypdfium2.raw.FPDFText_GetFontSize(self._page, index)) if index >= 0 else 0.0


def _bookmarks(document: Any) -> list[Bookmark]:
    """The outline, as far as it leads to pages of this document."""
    found = []
    for item in itertools.islice(document.get_toc(), _BOOKMARKS):
        target = item.get_dest()
        page = None if target is None else target.get_index()
        if page is not None:
            found.append(Bookmark(item.level, item.get_title(), page))
    return found


_READERS: dict[str, Callable[[bytes], Parsed]] = {"html": _html, "docx": _docx, "pptx": _pptx, "pdf": _pdf, "csv": _csv}
