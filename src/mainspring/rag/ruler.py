"""Measuring text in an embedder's tokens: where each begins, and how many there are."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise, repeat
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.lazy import lazy
from mainspring.ports.embedder import Embedder

if TYPE_CHECKING:
    import numpy as np
    import tokenizers
else:
    np = lazy("numpy")
    tokenizers = lazy("tokenizers")

__all__ = ["Measured", "Ruler"]

_SEGMENT = 1 << 15
_BREAK = re.compile(r"\s(?=\S)")
_WORD = re.compile(r"[^ \t\n\r]+")
_SPACES = (0x20, 0x09, 0x0A, 0x0D)
_ANYTHING = re.compile("")
_PART = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]")
_LONG = 32
"""Tokens of a word whose inside is worth knowing: a sentence of a script without spaces, an address."""
_KEPT = 1 << 18
_BERT = ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
_LIKELY = re.compile(r"[A-Za-z]{1,4}|[0-9]{1,2}|[^\sA-Za-z0-9]")
"""Pieces that are rather smaller than the tokens of any embedder in use, for one whose tokenizer is not known."""


class _Step(msgspec.Struct, frozen=True):
    """A step of a tokenizer, as far as it matters here."""

    type: str = ""
    lowercase: bool = False


class _Written(msgspec.Struct, frozen=True):
    """A tokenizer's JSON, as far as it matters here."""

    normalizer: _Step | None = None
    pre_tokenizer: _Step | None = None
    model: _Step | None = None


class Measured(msgspec.Struct, frozen=True):
    """A text and its tokens by place.

    Attributes:
        text: the text.
        places: characters at which tokens begin, rising.
        totals: how many tokens begin before each of the places, and how many there are.
    """

    text: str
    places: Sequence[int]
    totals: Sequence[int]

    def tokens(self, start: int, end: int) -> int:
        """Tokens that begin in a span; exact where it begins and ends at white space and tokens add up."""
        return self.totals[bisect_left(self.places, end)] - self.totals[bisect_left(self.places, start)]

    def after(self, start: int, tokens: int) -> int:
        """The character at which so many tokens after a place are over."""
        wanted = self.totals[bisect_left(self.places, start)] + tokens
        return self.places[min(bisect_left(self.totals, wanted), len(self.places) - 1)]


class Ruler:
    """Counts by the embedder's own tokenizer, which neither cuts nor pads here; threads may share it.

    Args:
        tokenizer: the tokenizer's JSON; empty when it is not known: then `measured` guesses, and `count` says what
            holds.
        count: tokens of each text, special tokens included.
    """

    def __init__(self, tokenizer: str, count: Callable[[Sequence[str]], Sequence[int]]) -> None:
        self._tokenizer = None
        self._count = count
        self._words: dict[str, int] = {}
        self._parts: dict[str, int] = {}
        self._single = _ANYTHING
        self._piece: Callable[[str], int] | None = None
        self.adds_up = '"BertPreTokenizer"' in tokenizer
        """Whether a word between white space has the same tokens wherever it stands: then each is counted once."""
        if tokenizer:
            self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            if self.adds_up and '"BertNormalizer"' in tokenizer:
                named = [re.escape(token.content) for token in self._tokenizer.get_added_tokens_decoder().values()]
                self._single = re.compile("|".join(named) or r"(?!)", re.IGNORECASE)
            self._piece = _piece_of(self._tokenizer, tokenizer)

    @classmethod
    def of(cls, embedder: Embedder) -> Ruler:
        """The ruler of an embedder."""
        return cls(embedder.tokenizer, embedder.count)

    def measured(self, text: str) -> Measured:
        """A text with its tokens by place; without special tokens."""
        if self.adds_up:
            return self._by_words(text)
        starts = self._starts(text)
        return Measured(text, starts, range(len(starts) + 1))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the embedder is given it, special tokens included, nothing cut."""
        return list(self._count(texts)) if texts else []

    def _by_words(self, text: str) -> Measured:
        words = _WORD.findall(text)
        known = self._counted(words)
        places = _beginnings(text)
        counts = list(map(known.__getitem__, words))
        if max(counts, default=0) > _LONG:
            places, counts = self._spread(words, places, counts)
        return Measured(text, places, list(accumulate(counts, initial=0)))

    def _counted(self, words: Sequence[str]) -> dict[str, int]:
        """The tokens of each of these words; what was counted for other documents is remembered."""
        if len(self._words) > _KEPT:
            self._words, self._parts = {}, {}
        known = self._words
        missing = set(words).difference(known)
        plain = self._plain(missing)
        found = _PART.findall(" ".join(plain))  # over all at once, a space between two words
        parts = self._parts
        whole = missing.difference(plain)
        fresh = set(found).difference(parts, " ")
        if self._piece is None:
            self._encode(list(whole.difference(parts).union(fresh)), parts)
        else:
            self._encode(list(whole.difference(parts)), parts)
            parts.update({part: self._piece(part) for part in fresh})
        known.update(zip(plain, _sums(found, parts), strict=True))
        known.update((word, parts[word]) for word in whole)
        return known

    def _plain(self, words: Iterable[str]) -> list[str]:
        """The words whose runs of letters and digits, and single marks, BERT's tokenizers look at one by one anyway.

        There are far fewer of those than of words with their brackets and dots. Beyond ASCII, and where one of the
        tokenizer's own tokens is spelt out, the word is given to it as it stands.
        """
        plain = [word for word in words if word.isascii()]
        written = " ".join(plain)
        if not written.isprintable() or self._single.search(written):
            plain = [word for word in plain if word.isprintable() and not self._single.search(word)]
        return plain

    def _encode(self, texts: list[str], known: dict[str, int]) -> None:
        if texts:
            encoded = cast("tokenizers.Tokenizer", self._tokenizer).encode_batch_fast(texts, add_special_tokens=False)
            known.update((text, len(one)) for text, one in zip(texts, encoded, strict=True))

    def _spread(self, words: Sequence[str], places: list[int], counts: list[int]) -> tuple[list[int], list[int]]:
        """Long words, such as sentences of a script without spaces, with a place for each of their tokens."""
        spread: list[int] = []
        each: list[int] = []
        inside: dict[str, list[int]] = {}  # a table's rules are all alike
        done = 0
        for number in [number for number, count in enumerate(counts) if count > _LONG]:
            word, place = words[number], places[number]
            if word not in inside:
                inside[word] = self._starts(word)
            if starts := inside[word]:
                spread += [*places[done:number], *(place + start for start in starts)]
                each += [*counts[done:number], *repeat(1, len(starts))]
                done = number + 1
        return spread + places[done:], each + counts[done:]

    def _starts(self, text: str) -> list[int]:
        """The character at which each token begins, rising."""
        if self._tokenizer is None:
            return [match.start() for match in _LIKELY.finditer(text)]
        if len(text) <= _SEGMENT:
            return _rising(start for start, _ in self._tokenizer.encode(text, add_special_tokens=False).offsets)
        edges = _segments(text)
        pieces = [text[start:end] for start, end in pairwise(edges)]
        encoded = self._tokenizer.encode_batch(pieces, add_special_tokens=False)
        return _rising(edge + start for edge, one in zip(edges, encoded, strict=False) for start, _ in one.offsets)


def _piece_of(tokenizer: tokenizers.Tokenizer, written: str) -> Callable[[str], int] | None:
    """Counts a run of ASCII letters and digits, or one mark, at a tenth of the cost: it is one word as it stands.

    None where the tokenizer is not BERT's own, or does more to such a run than to make its letters small.
    """
    steps = msgspec.json.decode(written, type=_Written)
    named = [step.type if step else "" for step in (steps.normalizer, steps.pre_tokenizer, steps.model)]
    if named != _BERT or steps.normalizer is None:
        return None
    tokens, lowers = tokenizer.model.tokenize, steps.normalizer.lowercase
    return (lambda run: len(tokens(run.lower()))) if lowers else (lambda run: len(tokens(run)))


def _sums(parts: Sequence[str], counts: Mapping[str, int]) -> Iterator[int]:
    """The counts of each word's parts together; words are parted by a space, and no word is none."""
    total = 0
    for part in parts:
        if part == " ":
            yield total
            total = 0
        else:
            total += counts[part]
    if parts:
        yield total


def _beginnings(text: str) -> list[int]:
    """The character at which each of the words of `_WORD` begins; many times as fast as asking each match."""
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    inside = np.ones(len(letters) + 1, bool)
    inside[0] = False
    for space in _SPACES:
        inside[1:] &= letters != space
    found: list[int] = np.flatnonzero(inside[1:] & ~inside[:-1]).tolist()
    return found


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
