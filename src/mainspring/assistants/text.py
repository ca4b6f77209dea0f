"""The words of an answer: markers such as ``[1]``, sentences, content tokens, refusals. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from mainspring.metrics import retrieval

__all__ = ["MARKER", "content_tokens", "is_refusal", "sentences", "stems", "without_markers"]

MARKER = re.compile(r"\[(\d{1,3}(?: ?[,;] ?\d{1,3}){0,7})\]")
"""A citation as models write it: ``[1]``, ``[1, 3]``."""

_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?](?!\s|$)[^.!?\n]*)*(?:[.!?]+[\"')\]]*|\n|$)")
_WORD = re.compile(r"\w")
_ENDING = re.compile(r"(?<=\w\w)(?:ing|ed|es|s|e)$")
_REFUSALS = re.compile(
    r"\b(?:i (?:do not|don't|cannot|can't|could not|couldn't) (?:know|find|answer|tell)"
    r"|(?:do|does|did) not (?:say|mention|contain|provide|include|specify|state|cover)"
    r"|(?:don't|doesn't|didn't) (?:say|mention|contain|provide|include|specify|state|cover)"
    r"|(?:is|are|was|were) not (?:mentioned|stated|specified|covered|provided|given|described)"
    r"|no (?:information|mention|answer)\b(?: is| was| about| on| of| in)?"
    r"|not (?:enough|sufficient) information|unable to (?:answer|find)|cannot be answered)",
    re.IGNORECASE,
)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """First and one-past-last character of each sentence that holds a word, white space around it left out."""
    for found in _SENTENCE.finditer(text):
        piece = found[0]
        stripped = piece.strip()
        if _WORD.search(stripped):
            start = found.start() + piece.index(stripped)
            yield start, start + len(stripped)


def content_tokens(text: str) -> frozenset[str]:
    """Its words in lower case without those that say nothing, markers left out."""
    return frozenset(retrieval.content_tokens(MARKER.sub(" ", text)))


def stems(text: str) -> frozenset[str]:
    """Its content tokens without the endings of English inflection, so that "gives" and "give" are one."""
    return frozenset(_ENDING.sub("", token) for token in content_tokens(text))


def without_markers(text: str) -> str:
    """The text without citations, so that an earlier answer's numbers are not taken for the present sources'."""
    return re.sub(r"\s*" + MARKER.pattern, "", text)


def is_refusal(text: str) -> bool:
    """Whether an English answer says, in its first two sentences, that it does not know."""
    first = [text[start:end] for start, end in islice(sentences(text), 2)]
    return any(_REFUSALS.search(sentence) for sentence in first)
