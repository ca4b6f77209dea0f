"""HTML before it is converted: decoded by its own charset, and only what a reader came for.

kreuzberg takes bytes that are not UTF-8 for broken characters, and writes the head into the text. Where a page says
what its main part is, the rest is menus; addresses of links and pictures that are written out are no words.
"""

from __future__ import annotations

import codecs
import re
from html.parser import HTMLParser

__all__ = ["body_of", "decoded", "head_of"]

_CHARSET = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_HEAD = re.compile(r"<head\b[^>]*>.*?</head\s*>|<title\b[^>]*>.*?</title\s*>|<meta\b[^>]*>", re.IGNORECASE | re.DOTALL)
_PICTURE = re.compile(r"""(\bsrc\s*=\s*["']?)data:[^"'\s>]*""", re.IGNORECASE)
_MAIN = re.compile(r"""<(?=main\b|\w+[^>]*\brole\s*=\s*["']?main\b)(\w+)[^>]*>""", re.IGNORECASE)
_PERMALINK = re.compile(r"<a\b[^>]*>\s*(?:¶|#|§|🔗|&para;|&#182;|&#xb6;)\s*</a\s*>", re.IGNORECASE)
_LINK = re.compile(r"</?a\b[^>]*>", re.IGNORECASE)
_END = re.compile(r"</head\b|<body\b", re.IGNORECASE)
_NEAR = 1 << 16
_LITTLE = 1 << 12
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_KEPT = {"author": "authors", "description": "subject", "keywords": "keywords", "date": "created_at"}


def decoded(data: bytes) -> str:
    """The page as text: by its byte order mark or charset, else UTF-8, else the Western code page 1252."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    named = _CHARSET.search(data[:_NEAR])
    for encoding in ([named[1].decode("ascii", "replace")] if named else []) + ["utf-8"]:
        try:
            return data.decode(encoding)
        except (LookupError, UnicodeDecodeError):
            continue
    return data.decode("cp1252", "replace")


def body_of(page: str) -> str:
    """The main part of a page, without head, links' addresses, permalinks and pictures that are written out."""
    body = _LINK.sub("", _PERMALINK.sub("", _main(_HEAD.sub("", page))))
    return _PICTURE.sub(r"\1", body) if "data:" in body.lower() else body  # looking for it takes half of all this time


def head_of(page: str) -> tuple[str, dict[str, str]]:
    """The title, and what the page says about itself."""
    end = _END.search(page, 0, _NEAR)
    reader = _Head()
    reader.feed(page[: end.start() if end else _LITTLE])
    return " ".join("".join(reader.title).split()), reader.found


def _main(page: str) -> str:
    """The element that is marked as the main part, or the whole page."""
    opening = _MAIN.search(page)
    if opening is None:
        return page
    depth = 0
    for tag in re.finditer(rf"<(/?){opening[1]}\b[^>]*>", page[opening.start() :], re.IGNORECASE):
        depth += -1 if tag[1] else 1
        if depth == 0:
            return page[opening.start() : opening.start() + tag.end()]
    return page


class _Head(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self.found: dict[str, str] = {}
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "title":
            self._inside = not self.title
        elif tag == "html" and given.get("lang"):
            self.found["language"] = given["lang"]
        elif tag == "meta" and (name := _KEPT.get(given.get("name", "").lower())) and given.get("content"):
            self.found[name] = given["content"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.title.append(data)
