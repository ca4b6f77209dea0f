"""What one run has retrieved: numbered, shown to the model as data, and checked again when it is cited."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Mapping
from itertools import zip_longest

import msgspec

from mainspring.assistants.events import Citation, Retrieval, Source
from mainspring.assistants.text import content_tokens, sentences, stems
from mainspring.declare.identity import Identity
from mainspring.rag.search import Hit, SearchAnswer, Searcher, SearchRequest

__all__ = ["Checked", "Sources", "quoted", "shown"]

_WRAPPED = re.compile(r"(?<!\n)\n(?![\n#|>*+-]|\d+[.)])")
"""A line's end inside a paragraph of Markdown, where no sentence has to end."""
_LEAST_SHARE = 0.75
"""The share of a sentence's content tokens that a source must hold, for the sentence to stand on it uncited."""
_LEAST_TOKENS = 4
_LEAST_OF_QUESTION, _QUOTED = 0.5, 2
"""The share of a question's content tokens that a source must hold to be quoted for it, and how many are."""


class Checked(msgspec.Struct, frozen=True):
    """A citation that holds, with the number it was cited by."""

    number: int
    citation: Citation


class Sources:
    """The sources of one run and one caller; numbers go on over several searches.

    Args:
        searchers: the indexes, by name.
        caller: whose rights every search and every check has; nothing in a prompt changes it.
        k: how many chunks one question is given, over all indexes.
    """

    def __init__(self, searchers: Mapping[str, Searcher], caller: Identity, k: int) -> None:
        self._searchers = searchers
        self._caller = caller
        self._k = k
        self._nonce = secrets.token_hex(4)
        self._passages: dict[tuple[str, str, int], str | None] = {}
        self.found: list[Source] = []
        self.asked = ""

    @property
    def indexes(self) -> tuple[str, ...]:
        """The names of the indexes."""
        return tuple(self._searchers)

    async def search(self, query: str, index: str = "") -> list[Retrieval]:
        """Search all indexes, or one of them, and number what is found by turns, best first.

        Raises:
            DataError: as the indexes raise.
        """
        self.asked = query
        asked = [index] if index else list(self._searchers)
        started = time.perf_counter_ns()
        answers = await asyncio.gather(*(self._search(name, query) for name in asked))
        took_us = (time.perf_counter_ns() - started) // 1000
        by_index: dict[str, list[Source]] = {name: [] for name in asked}
        for name, answer, hit in _by_turns(asked, answers)[: self._k]:
            source = _source(len(self.found) + 1, name, answer, hit)
            self.found.append(source)
            by_index[name].append(source)
        return [
            Retrieval(
                index=name,
                version=answer.version,
                query=query,
                complete=answer.complete,
                notes=tuple(note.code for note in answer.notes),
                took_us=took_us,
                sources=tuple(by_index[name]),
            )
            for name, answer in zip(asked, answers, strict=True)
        ]

    async def _search(self, name: str, query: str) -> SearchAnswer:
        return await asyncio.to_thread(self._searchers[name].search, SearchRequest(query, k=self._k), self._caller)

    def block(self, most: int) -> str:
        """So many sources, the best first, as the model is shown them."""
        return shown(self.found[:most], self._nonce)

    async def check(self, number: int, sentence: str) -> Checked | None:
        """The citation of a source for a sentence; None when there is no such source, or what it says does not hold.

        What was indexed may have changed since: the version must still be there, hold the very words, and be the
        caller's to read.
        """
        if not 1 <= number <= len(self.found):
            return None
        source = self.found[number - 1]
        text = await self._passage(source)
        if text is None or text[source.span[0] : source.span[1]] != source.text:
            return None
        start, end = quoted(source.text, sentence)
        start, end = source.span[0] + start, source.span[0] + end
        citation = Citation(
            source.chunk_id,
            source.document_id,
            source.document_version,
            source.uri,
            source.title,
            source.pages,
            (start, end),
            text[start:end],
        )
        return Checked(number, citation)

    async def _passage(self, source: Source) -> str | None:
        key = (source.index, source.document_id, source.document_version)
        if key not in self._passages:
            found = await asyncio.to_thread(
                self._searchers[source.index].passage, source.document_id, source.document_version, self._caller
            )
            self._passages[key] = None if found is None else found.text
        return self._passages[key]

    def supporting(self, sentence: str) -> int | None:
        """The number of the source that holds nearly all content tokens of a sentence, or None."""
        said = content_tokens(sentence)
        if len(said) < _LEAST_TOKENS or not self.found:
            return None
        shares = [(len(said & content_tokens(source.text)) / len(said), -source.number) for source in self.found]
        share, number = max(shares)
        return -number if share >= _LEAST_SHARE else None

    async def quotations(self) -> list[Checked]:
        """Of the sources that speak of what was asked last, what each says of it; the best first."""
        wanted = stems(self.asked)
        shares = [(len(wanted & stems(source.text)), -source.number) for source in self.found]
        near = [
            -number for shared, number in sorted(shares, reverse=True) if shared >= _LEAST_OF_QUESTION * len(wanted)
        ]
        checked = [await self.check(number, self.asked) for number in near[:_QUOTED]] if wanted else []
        return [one for one in checked if one is not None]


def _by_turns(names: list[str], answers: list[SearchAnswer]) -> list[tuple[str, SearchAnswer, Hit]]:
    """All first hits, then all second hits: scores of two indexes cannot be compared."""
    rows = zip_longest(*(answer.hits for answer in answers))
    return [(name, answer, hit) for row in rows for name, answer, hit in zip(names, answers, row, strict=True) if hit]


def _source(number: int, index: str, answer: SearchAnswer, hit: Hit) -> Source:
    return Source(
        number=number,
        index=index,
        index_version=answer.version,
        chunk_id=hit.chunk_id,
        document_id=hit.document_id,
        document_version=hit.document_version,
        score=hit.score,
        title=hit.title,
        uri=hit.uri,
        path=hit.path,
        pages=hit.pages,
        span=hit.span,
        text=hit.text,
    )


def shown(sources: list[Source], nonce: str) -> str:
    """Sources as delimited data; no text among them can end its delimiter, as it cannot know the run's nonce.

    Args:
        sources: in order of their numbers.
        nonce: drawn for the run.
    """
    parts = [f"<sources id={nonce}>"]
    for source in sources:
        where = " > ".join((source.title or source.uri, *source.path))
        label = where.replace("\n", " ").replace("<", "(").replace(">", "/")
        text = source.text.replace(nonce, "").replace("</source", "<\\/source")
        parts.append(f"[{source.number}] {label}\n{text}")
    parts.append(f"</sources id={nonce}>")
    return "\n\n".join(parts)


def quoted(text: str, sentence: str) -> tuple[int, int]:
    """First and one-past-last character of the sentence of a text that holds most of another's content words.

    The whole text when none holds any; a heading is no sentence.
    """
    said = stems(sentence)
    best, span = 0, (0, len(text))
    for start, end in sentences(_WRAPPED.sub(" ", text)):
        shared = 0 if text[start] == "#" else len(said & stems(text[start:end]))
        if shared > best:
            best, span = shared, (start, end)
    return span
