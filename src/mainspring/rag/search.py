"""What a search asks and answers; the JSON and gRPC forms are these fields in this order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import msgspec

from mainspring.declare.documents import Mode
from mainspring.declare.identity import Identity

__all__ = ["Hit", "Note", "NoteCode", "Passage", "Ranks", "SearchAnswer", "SearchRequest", "Searcher", "Took"]

NoteCode = Literal["fewer_than_k", "exact_fallback", "rerank_skipped"]


class SearchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question to an index.

    Attributes:
        query: what is searched for.
        k: how many hits, from 1 to 1000.
        filter: the JSON form of a filter on metadata, or None.
        mode: ``hybrid``, ``dense`` or ``text``; None is the index's own.
        rerank: whether the reranker sorts what is found; None is the index's own.
        deadline_ms: when the answer is wanted, in milliseconds; a reranker that is not done by then is left out.
        version: of the index; None is the live one.
    """

    query: str
    k: int = 10
    filter: Mapping[str, object] | None = None
    mode: Mode | None = None
    rerank: bool | None = None
    deadline_ms: int | None = None
    version: int | None = None


class Ranks(msgspec.Struct, frozen=True):
    """A hit's rank in each leg, from 1; None where the leg did not find it or was not asked."""

    dense: int | None = None
    text: int | None = None


class Hit(msgspec.Struct, frozen=True):
    """A chunk that was found.

    Attributes:
        chunk_id: identifies the chunk over rebuilds, in hex.
        document_id: of its document, in hex.
        document_version: grows with each content of the document.
        score: greater is better; comparable within one answer only.
        ranks: where each leg had it.
        text: the chunk, ``document[span[0]:span[1]]``.
        title: its document's.
        uri: where its document is.
        path: the headings above it, outermost first.
        pages: first and last page, from 1; None for what has no pages.
        span: first and one-past-last character in the document's text.
        metadata: the document's own.
    """

    chunk_id: str
    document_id: str
    document_version: int
    score: float
    ranks: Ranks
    text: str
    title: str
    uri: str
    path: tuple[str, ...] = ()
    pages: tuple[int, int] | None = None
    span: tuple[int, int] = (0, 0)
    metadata: Mapping[str, object] = {}


class Note(msgspec.Struct, frozen=True):
    """Why an answer is less than was asked for."""

    code: NoteCode
    detail: str = ""


class Took(msgspec.Struct, frozen=True):
    """Where the time went, in microseconds."""

    embed: int = 0
    search: int = 0
    rerank: int = 0


class SearchAnswer(msgspec.Struct, frozen=True):
    """What was found: `k` hits, or fewer with `complete` false and a note that says why."""

    index: str
    version: int
    complete: bool
    notes: tuple[Note, ...]
    took_us: Took
    hits: tuple[Hit, ...]


class Passage(msgspec.Struct, frozen=True):
    """A document's text as an index version holds it."""

    document_id: str
    document_version: int
    text: str
    title: str
    uri: str


@runtime_checkable
class Searcher(Protocol):
    """An index that is served. Safe to call from several threads."""

    def search(self, request: SearchRequest, caller: Identity) -> SearchAnswer:
        """What the caller may see of what fits best.

        Raises:
            DataError: MS-2431, the filter does not fit the index; MS-2432, k is out of range.
        """

    def passage(self, document_id: str, document_version: int | None, caller: Identity) -> Passage | None:
        """The text of a document's version (None: the newest); None where there is none that the caller may see."""
