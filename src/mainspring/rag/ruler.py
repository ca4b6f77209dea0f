"""Measuring text in an embedder's tokens: where each begins, and how many there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.ports.embedder import Embedder

if TYPE_CHECKING:
    import tokenizers
else:
    tokenizers = lazy("tokenizers")

__all__ = ["Ruler"]

_SEGMENT = 1 << 15
_BREAK = re.compile(r"\s(?=\S)")
_LIKELY = re.compile(r"[A-Za-z]{1,4}|[0-9]{1,2}|[^\sA-Za-z0-9]")
"""Pieces that are rather smaller than the tokens of any embedder in use, for one whose tokenizer is not known."""


class Ruler:
    """Counts by the embedder's own tokenizer, which neither cuts nor pads here.

    Args:
        tokenizer: the tokenizer's JSON; empty when it is not known: then `starts` are guessed, and `count` says what
            holds.
        count: tokens of each text, special tokens included.
    """

    def __init__(self, tokenizer: str, count: Callable[[Sequence[str]], Sequence[int]]) -> None:
        self._tokenizer = None
        self._count = count
        self.adds_up = '"BertPreTokenizer"' in tokenizer
        """Whether tokens of texts that meet at white space are those of both: then nothing is counted twice."""
        if tokenizer:
            self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()

    @classmethod
    def of(cls, embedder: Embedder) -> Ruler:
        """The ruler of an embedder."""
        return cls(embedder.tokenizer, embedder.count)

    def starts(self, text: str) -> list[int]:
        """The character at which each token of a text begins, rising; without special tokens."""
        if self._tokenizer is None:
            return [match.start() for match in _LIKELY.finditer(text)]
        if len(text) <= _SEGMENT:
            return _rising(start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets)
        edges = _segments(text)
        pieces = [text[start:end] for start, end in pairwise(edges)]
        encoded = self._tokenizer.encode_batch(pieces, add_special_tokens=False)
        return _rising(edge + start for edge, one in zip(edges, encoded, strict=False) for start, _ in one.offsets)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the embedder is given it, special tokens included, nothing cut."""
        return list(self._count(texts)) if texts else []


def _rising(starts: Iterable[int]) -> list[int]:
    """As they are, for nearly every tokenizer: one may say twice where a character is that became two."""
    return list(accumulate(starts, max))


def _segments(text: str) -> list[int]:
    """Offsets that cut a text into pieces of about `_SEGMENT` characters where white space ends."""
    edges = [0]
    while len(text) - edges[-1] > 2 * _SEGMENT:
        found = _BREAK.search(text, edges[-1] + _SEGMENT, edges[-1] + 2 * _SEGMENT)
        edges.append(found.end() if found else edges[-1] + _SEGMENT)
    return [*edges, len(text)]
