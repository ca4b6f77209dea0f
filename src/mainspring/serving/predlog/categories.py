"""Categories in the log are 8-byte hashes; their texts are kept once, in a file beside the segments."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import orjson

__all__ = ["Categories", "hash_text", "read_categories"]

_FILE = "categories.jsonl"
_MOST = 65_536
_LONGEST = 256


def hash_text(text: str) -> int:
    """The hash of a text, 0 to 2^64 - 1: blake2b-64 of ``s`` and its UTF-8, little-endian.

    The letter tells the text ``1`` from the number 1, as the hashes of the monitors' baselines do.
    """
    data = b"s" + text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class Categories:
    """Gives texts their hashes, and writes each text down before its hash is used for the first time.

    Args:
        folder: the log's folder.
        most: how many texts are written down; further ones are known by their hash alone.
    """

    def __init__(self, folder: Path, most: int = _MOST) -> None:
        self._most = most
        self._path = folder / _FILE
        self._cut = False
        self._known: dict[str, int] = {text: code for code, text in read_categories(folder).items()}

    def code(self, text: str) -> int:
        """The hash of a text."""
        code = self._known.get(text)
        return self._new(text) if code is None else code

    def _new(self, text: str) -> int:
        code = hash_text(text)
        # A name that cannot be written is a name that monitors show as a hash: no reason to fail a request.
        if len(self._known) < self._most and len(text) <= _LONGEST and self._written(code, text):
            self._known[text] = code
        return code

    def _written(self, code: int, text: str) -> bool:
        """Write a name down; False when the disk refuses it now, and the next time may be better."""
        try:
            line = orjson.dumps([f"{code:016x}", text]) + b"\n"
        except orjson.JSONEncodeError:
            return True
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                # One short append: lines of several workers do not mix. An empty line ends one that was cut short.
                self._cut = os.write(descriptor, b"\n" * self._cut + line) < self._cut + len(line)
            finally:
                os.close(descriptor)
        except OSError:
            self._cut = True
        return not self._cut


def read_categories(folder: Path) -> Mapping[int, str]:
    """The texts of a log's categories by hash; a line that was cut short is left out."""
    found = {}
    try:
        lines = (folder / _FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            code, text = orjson.loads(line)
            found[int(code, 16)] = text
    return found
