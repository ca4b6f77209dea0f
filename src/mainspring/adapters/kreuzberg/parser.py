"""The parser port on kreuzberg and pdfium."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

from mainspring.adapters.kreuzberg.child import Job
from mainspring.adapters.kreuzberg.formats import Format, format_of, read_text
from mainspring.adapters.kreuzberg.problems import unreadable
from mainspring.adapters.kreuzberg.settings import KreuzbergSettings
from mainspring.adapters.kreuzberg.workers import Workers
from mainspring.ports.parser import Parsed, Refused

__all__ = ["KreuzbergParser", "open_parser"]

_RULES = 1
"""Rises when the same bytes would give another text."""


class KreuzbergParser:
    """Text as it is; everything else in child processes with a limit of time and memory.

    Args:
        settings: what is read, and how much it may cost.
    """

    def __init__(self, settings: KreuzbergSettings) -> None:
        self._settings = settings
        versions = [importlib.metadata.version(name) for name in ("kreuzberg", "pypdfium2")]
        self.id = f"kreuzberg-{versions[0]}-pdfium-{versions[1]}-{settings.pdf}-{_RULES}"
        self.limits = " ".join(
            map(str, (settings.max_bytes, settings.max_characters, settings.timeout, settings.memory))
        )
        self.max_bytes = settings.max_bytes
        cores = len(os.sched_getaffinity(0))
        self.workers = Workers(settings.workers or cores, settings.memory, settings.timeout)

    def reads(self, name: str, media_type: str = "") -> bool:
        """Whether the media type or the name's ending is of a format that it reads."""
        return format_of(name, media_type) is not None

    def parse(self, document: bytes | Path, name: str, media_type: str = "") -> Parsed | Refused:
        """The document's text, or why there is none.

        Raises:
            StoreError: MS-4261, the file itself cannot be read.
        """
        kind = format_of(name, media_type)
        if kind is None:
            return Refused("unsupported", f"{media_type or 'its ending'} is no format that is read")
        try:
            size = len(document) if isinstance(document, bytes) else document.stat().st_size
            if size > self.max_bytes:
                return Refused("too_large", f"it has {size} bytes, more than the {self.max_bytes} of parser.max_bytes")
            if size == 0:
                return Refused("empty", "it has no bytes")
            return self._parsed(document, kind)
        except OSError as error:
            raise unreadable(error, name) from error

    def close(self) -> None:
        """End the child processes."""
        self.workers.close()

    def _parsed(self, document: bytes | Path, kind: Format) -> Parsed | Refused:
        if kind in ("markdown", "text"):
            parsed = read_text(document if isinstance(document, bytes) else document.read_bytes(), kind == "markdown")
            if isinstance(parsed, Parsed) and len(parsed.text) > self._settings.max_characters:
                return Refused("too_large", f"its text has {len(parsed.text)} characters (parser.max_characters)")
            return parsed
        fast, most = self._settings.pdf == "fast", self._settings.max_characters
        if isinstance(document, bytes):
            return self.workers.run(Job(kind, fast, most, data=document))
        with document.open("rb"):  # a file that may not be read is the caller's fault, not the document's
            return self.workers.run(Job(kind, fast, most, path=os.fsencode(document.absolute())))


def open_parser(settings: KreuzbergSettings, place: Path) -> KreuzbergParser:
    """The parser; children start with the first document."""
    return KreuzbergParser(settings)
