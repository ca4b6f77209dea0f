"""DOCX and PPTX before they are read: what unpacks to too much is refused, pictures are left out.

kreuzberg 4.10 drops ``&amp;``, ``&lt;`` and other references from the text of a DOCX, silently: they go through as
characters of the private use area, and come back afterwards.
"""

from __future__ import annotations

import io
import re
import zipfile

__all__ = ["MOST", "TooLarge", "restored", "shielded"]

MOST = 100 << 20
"""Bytes that a document's XML may have when it is unpacked."""
_REFERENCE = re.compile(rb"&(amp|lt|gt|quot|apos|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")
_NAMES = {b"amp": "&", b"lt": "<", b"gt": ">", b"quot": '"', b"apos": "'"}
_SHIELDS = {"&": "\ue0a1", "<": "\ue0a2", ">": "\ue0a3", '"': "\ue0a4", "'": "\ue0a5"}
_BACK = str.maketrans({shield: "\\<" if mark == "<" else mark for mark, shield in _SHIELDS.items()})


class TooLarge(Exception):  # noqa: N818 - it is what it is
    """The document unpacks to more than `MOST`."""


def shielded(data: bytes) -> bytes:
    """The same document with references that survive.

    Raises:
        zipfile.BadZipFile: it is no archive.
        TooLarge: its XML is larger than `MOST`.
    """
    out = io.BytesIO()
    left = MOST
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as copy:
        for entry in archive.infolist():
            if not entry.filename.endswith((".xml", ".rels")):
                continue
            with archive.open(entry) as file:
                content = file.read(left + 1)
            left -= len(content)
            if left < 0:
                raise TooLarge(f"its XML exceeds {MOST} bytes")
            if entry.filename.startswith("word/") and b"&" in content:
                content = _REFERENCE.sub(_shield, content)
            copy.writestr(entry.filename, content)
    return out.getvalue()


def restored(text: str) -> str:
    """The text with its references as characters; ``<`` as Markdown wants it."""
    return text.translate(_BACK)


def _shield(match: re.Match[bytes]) -> bytes:
    name = match[1]
    if name in _NAMES:
        mark = _NAMES[name]
    else:
        number = int(name[2:], 16) if name[1:2] in b"xX" else int(name[1:])
        if not 32 <= number < 0x110000 or 0xD800 <= number < 0xE000:
            return match[0]
        mark = chr(number)
    return _SHIELDS.get(mark, mark).encode()
