"""Measuring text in an embedder's tokens: where each begins, and how many there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.ports.embedder import Embedder

if TYPE_CHECKING:
    import numpy as np
    import tokenizers
    from numpy.typing import NDArray
else:
    np, tokenizers = lazy("numpy"), lazy("tokenizers")

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

    def starts(self, text: str) -> NDArray[np.int64]:
        """The character at which each token of a text begins, rising, int64 (tokens,); without special tokens."""
        if self._tokenizer is None:
            return np.array([match.start() for match in _LIKELY.finditer(text)], np.int64)
        edges = _segments(text)
        pieces = [text[start:end] for start, end in pairwise(edges)]
        found = []
        for start, encoding in zip(edges, self._tokenizer.encode_batch(pieces, add_special_tokens=False), strict=False):
            if encoding.offsets:
                found.append(np.array(encoding.offsets, np.int64)[:, 0] + start)
        return np.maximum.accumulate(np.concatenate(found)) if found else np.zeros(0, np.int64)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the embedder is given it, special tokens included, nothing cut."""
        return list(self._count(texts)) if texts else []


def _segments(text: str) -> list[int]:
    """Offsets that cut a text into pieces of about `_SEGMENT` characters where white space ends."""
    edges = [0]
    while len(text) - edges[-1] > 2 * _SEGMENT:
        found = _BREAK.search(text, edges[-1] + _SEGMENT, edges[-1] + 2 * _SEGMENT)
        edges.append(found.end() if found else edges[-1] + _SEGMENT)
    return [*edges, len(text)]
