"""An index in memory, for tests: paragraphs are chunks, shared words are the score, and rights are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from mainspring.declare.identity import PUBLIC, Identity
from mainspring.rag.search import Hit, Note, Passage, Ranks, SearchAnswer, SearchRequest, Took

__all__ = ["Library", "Page"]


@dataclass(frozen=True)
class Page:
    """A document.

    Attributes:
        uri: where it is; identifies it.
        text: its paragraphs, with an empty line between two.
        title: the file's name when left out.
        principals: who may see it.
        tenant: whose it is; empty for everybody's.
        version: grows with each content.
    """

    uri: str
    text: str
    title: str = ""
    principals: tuple[str, ...] = (PUBLIC,)
    tenant: str = ""
    version: int = 1

    @property
    def document_id(self) -> str:
        """Its id, in hex."""
        return hashlib.blake2b(self.uri.encode(), digest_size=16).hexdigest()


@dataclass
class Library:
    """A `Searcher` over pages; `put` and `remove` change it between two searches.

    Attributes:
        name: of the index.
        asked: the searches so far, with who asked.
    """

    pages: Iterable[Page] = ()
    name: str = "library"
    asked: list[tuple[SearchRequest, Identity]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pages = {page.uri: page for page in self.pages}

    def put(self, page: Page) -> None:
        """Add a page, or a new version of one."""
        known = self._pages.get(page.uri)
        self._pages[page.uri] = replace(page, version=known.version + 1) if known else page

    def remove(self, uri: str) -> None:
        """Take a page out."""
        self._pages.pop(uri, None)

    def search(self, request: SearchRequest, caller: Identity) -> SearchAnswer:
        """As `Searcher.search`."""
        self.asked.append((request, caller))
        words = set(request.query.lower().replace("?", " ").replace(".", " ").split())
        found = [
            (len(words & set(text.lower().replace(".", " ").replace(",", " ").split())), page, start, text)
            for page in self._pages.values()
            if _readable(page, caller)
            for start, text in _paragraphs(page.text)
        ]
        best = sorted((one for one in found if one[0]), key=lambda one: (-one[0], one[1].uri, one[2]))[: request.k]
        hits = tuple(_hit(page, start, text, score, rank) for rank, (score, page, start, text) in enumerate(best, 1))
        complete = len(hits) == request.k
        notes = () if complete else (Note("fewer_than_k", f"{len(hits)} of {request.k}"),)
        return SearchAnswer(self.name, 1, complete, notes, Took(), hits)

    def passage(self, document_id: str, document_version: int | None, caller: Identity) -> Passage | None:
        """As `Searcher.passage`."""
        for page in self._pages.values():
            if page.document_id == document_id and document_version in (None, page.version) and _readable(page, caller):
                return Passage(document_id, page.version, page.text, _title(page), page.uri)
        return None


def _readable(page: Page, caller: Identity) -> bool:
    return page.tenant in ("", caller.tenant) and not set(page.principals).isdisjoint(caller.principals)


def _title(page: Page) -> str:
    return page.title or page.uri.rpartition("/")[2]


def _paragraphs(text: str) -> list[tuple[int, str]]:
    found, start = [], 0
    for paragraph in text.split("\n\n"):
        if paragraph.strip():
            found.append((start, paragraph))
        start += len(paragraph) + 2
    return found


def _hit(page: Page, start: int, text: str, score: float, rank: int) -> Hit:
    chunk = hashlib.blake2b(f"{page.uri}:{start}:{text}".encode(), digest_size=16).hexdigest()
    return Hit(
        chunk_id=chunk,
        document_id=page.document_id,
        document_version=page.version,
        score=score,
        ranks=Ranks(text=rank),
        text=text,
        title=_title(page),
        uri=page.uri,
        span=(start, start + len(text)),
    )
