"""The files of a bucket: listed with their tags, and fetched as they come."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import obstore
from obstore import exceptions

from mainspring.adapters.obstore.problems import turned
from mainspring.adapters.obstore.stores import bucket_of, opened
from mainspring.ports.source import Remote, SourceSettings

__all__ = ["ObstoreBucket", "open_source"]

_CHUNK = 8 << 20
_FAULTS = (exceptions.BaseError, OSError, ValueError)


class ObstoreBucket:
    """A path in a bucket.

    Args:
        settings: its URL, ``s3://bucket/path``, and the driver's options.

    Raises:
        ConfigError: MS-3042, an option or the URL is none.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self.place = bucket_of(settings.url, "sources.NAME")
        # urlsplit would take the rest of a path with a ? or a # for something else.
        self._path = unquote(settings.url.partition("://")[2].partition("/")[2]).strip("/")
        with self._turning():
            self._store = opened(
                settings.url, settings.options, connect_seconds=settings.connect_timeout, seconds=settings.timeout
            )

    def files(self) -> Sequence[Remote]:
        """The files below the path, or that it stands for."""
        with self._turning():
            if re.search(r"[*?\[]", self._path):
                fixed = re.split(r"[*?\[]", self._path)[0].rpartition("/")[0]
                matches = _pattern(self._path)
                return [file for file in self._below(fixed) if matches.fullmatch(file.path)]
            below = [file for file in self._below(self._path) if not _hidden(file.path[len(self._path) :])]
            return below or self._single()

    def fetch(self, file: Remote, to: Path) -> None:
        """Write a file's content to a local one."""
        with self._turning(file.path), open(to, "wb") as local:
            options: Any = {"if_match": file.tag} if file.tag.startswith(('"', "0x")) else {}
            found = obstore.get(self._store, file.path, options=options)
            tag = _remote(found.meta).tag
            if tag.strip('"') != file.tag.strip('"'):  # some servers answer whatever the tag, some quote it only here
                raise exceptions.PreconditionError(f"it is {tag}, no more {file.tag}")
            for chunk in found.stream(min_chunk_size=_CHUNK):
                local.write(chunk)

    def answers(self) -> Mapping[str, object]:
        """How many files are there."""
        return {"files": len(self.files())}

    def close(self) -> None:
        """Nothing is held between calls."""

    def _below(self, prefix: str) -> list[Remote]:
        found = [entry for chunk in obstore.list(self._store, prefix or None) for entry in chunk]
        return sorted((_remote(entry) for entry in found), key=lambda file: file.path)

    def _single(self) -> list[Remote]:
        try:
            return [_remote(obstore.head(self._store, self._path))] if self._path else []
        except FileNotFoundError:
            return []

    @contextmanager
    def _turning(self, file: str = "") -> Iterator[None]:
        try:
            yield
        except _FAULTS as error:
            raise turned(error, self.place, file) from error


def _remote(entry: Any) -> Remote:
    tag = entry.get("e_tag") or entry.get("version") or entry["last_modified"].isoformat()
    return Remote(entry["path"], entry["size"], tag)


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/") if part)


def _pattern(path: str) -> re.Pattern[str]:
    """A glob as an expression: ``*`` stays within a folder, ``**/`` goes through any number of them."""
    expression = re.sub(
        r"\*\*/|\*|\?|\[!?[^/\]]+\]|[^*?\[]+|\[", lambda found: _SIGNS.get(found[0]) or _part(found[0]), path
    )
    return re.compile(expression)


_SIGNS = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}


def _part(text: str) -> str:
    """A class of characters, or a piece that stands for itself."""
    if text.startswith("[") and len(text) > 2:
        return f"[{'^' if text[1] == '!' else ''}{re.escape(text[1:-1].removeprefix('!')).replace(chr(92) + '-', '-')}]"
    return re.escape(text)


def open_source(settings: SourceSettings, state: Path) -> ObstoreBucket:
    """A bucket that a source is in; nothing is connected yet."""
    return ObstoreBucket(settings)
