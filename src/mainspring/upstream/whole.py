"""Whole characters from pieces that end inside one."""

from __future__ import annotations

import codecs
import json
import re

import orjson

__all__ = ["WholeText", "loads"]

_ODD = re.compile("[\ud800-\udfff]")


def loads(data: bytes) -> object:
    """JSON, also when its texts hold halves of characters: those become lone surrogates, for `WholeText` to join.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        return json.loads(data.decode("utf-8", "surrogateescape"))


class WholeText:
    r"""Joins texts in which a character may be split: into bytes that are not UTF-8 alone, or into surrogates.

    Bytes come as `loads` makes them of raw ones (U+DC80 to U+DCFF), surrogates from ``"\ud83d"`` and ``"\ude00"``.
    """

    __slots__ = ("_bytes", "_high")

    def __init__(self) -> None:
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._high = ""

    def feed(self, text: str) -> str:
        """As much of all that came as is whole."""
        if not self._high and not self._bytes.getstate()[0] and (text.isascii() or not _ODD.search(text)):
            return text
        text, self._high = self._high + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._high = text[:-1], text[-1]
        joined = re.sub("[\ud800-\udbff][\udc00-\udfff]", _pair, text)
        return self._bytes.decode(joined.encode("utf-8", "surrogateescape" if _raw(joined) else "replace"))

    def finish(self) -> str:
        """What is left: a replacement for half a character, once, or nothing."""
        rest = self._bytes.decode(b"", final=True) + ("\ufffd" if self._high else "")
        self._high = ""
        return rest


def _pair(match: re.Match[str]) -> str:
    return match[0].encode("utf-16", "surrogatepass").decode("utf-16")


def _raw(text: str) -> bool:
    """Whether every surrogate that is left stands for a byte."""
    return all("\udc80" <= found <= "\udcff" for found in _ODD.findall(text))
