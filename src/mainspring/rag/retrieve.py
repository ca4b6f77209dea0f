"""Searching an index: the live version, its embedder, the caller's rights; and the text behind a citation."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any as Anything
from typing import TypeAlias

import msgspec

from mainspring.declare.identity import Identity
from mainspring.errors import MainspringError, UsageError
from mainspring.ports.embedder import Embedder
from mainspring.ports.manifest import IndexVersion, Manifest
from mainspring.ports.objects import Objects
from mainspring.ports.parser import Parsed
from mainspring.ports.reranker import Reranker
from mainspring.ports.vector_store import And, Any, Filter, Hits, In, Query, VectorStore, filter_from_json
from mainspring.ports.vector_store import Hit as Point
from mainspring.rag.search import Hit, Note, Passage, Ranks, SearchAnswer, SearchRequest, Took
from mainspring.rag.shape import ACL, DOCUMENT, META, OWN, TENANT, VERSION, IndexShape, collection

__all__ = ["MOST", "IndexSearcher"]

MOST = 1000
"""Most hits of one search."""

_ALIAS_SECONDS = 0.25
_TEXTS = 64
_RERANKED = 50
_CANDIDATES = 50
"""Of each leg at least; twice as many cost half as much again and find nothing better for the first ten hits."""
_Payload: TypeAlias = Mapping[str, Anything]
_CODES: frozenset[str] = frozenset(("fewer_than_k", "exact_fallback", "rerank_skipped"))


class IndexSearcher(msgspec.Struct):
    """An index that is served; implements `mainspring.rag.search.Searcher`.

    Attributes:
        shape: the index as declared.
        manifest: says which version answers.
        objects: has the documents' texts.
        store: has the points.
        embedder_of: the embedder of a version.
        reranker: sorts what is found, or None.
    """

    shape: IndexShape
    manifest: Manifest
    objects: Objects
    store: VectorStore
    embedder_of: Callable[[IndexVersion], Embedder]
    reranker: Reranker | None = None
    _live: tuple[float, IndexVersion] | None = None
    _texts: OrderedDict[str, Parsed] = msgspec.field(default_factory=OrderedDict)
    _lock: Lock = msgspec.field(default_factory=Lock)

    def search(self, request: SearchRequest, caller: Identity) -> SearchAnswer:
        """What the caller may see of what fits best.

        Raises:
            UsageError: MS-2431, k is out of range; MS-2432, nothing is asked; MS-2433, there is no such version;
                MS-2434, no version answers yet; MS-2650 to MS-2652, the filter does not fit.
            ServiceError: as the embedder and the store raise.
        """
        _sound(request)
        version = self._version(request.version)
        mode = request.mode or self.shape.mode
        rerank = self.shape.rerank if request.rerank is None else request.rerank
        began = time.perf_counter_ns()
        vector = None if mode == "text" else self.embedder_of(version).embed_query(request.query)
        embedded = time.perf_counter_ns()
        wanted = max(request.k, _RERANKED) if rerank else request.k
        query = Query(
            dense=vector,
            text=None if mode == "dense" else request.query,
            filter=_allowed(request.filter, caller),
            k=wanted,
            candidates=min(max(_CANDIDATES, 2 * wanted), MOST),
        )
        found = self.store.search(collection(version.index, version.version), query)
        hits = [_hit(point) for point in _newest(found.hits)]
        searched = time.perf_counter_ns()
        notes = [Note(note.code, note.detail) for note in found.notes if note.code in _CODES]
        if rerank and hits:
            hits, skipped = self._reranked(request, hits)
            notes += skipped
        ended = time.perf_counter_ns()
        hits = hits[: request.k]
        complete, notes = _completeness(found, len(hits), request.k, notes)
        took = Took((embedded - began) // 1000, (searched - embedded) // 1000, (ended - searched) // 1000)
        return SearchAnswer(version.index, version.version, complete, tuple(notes), took, tuple(hits))

    def passage(self, document_id: str, document_version: int | None, caller: Identity) -> Passage | None:
        """The text of a document's version, the newest when None; None where it is not there or not for the caller."""
        row = self.manifest.document(self.shape.name, document_id)
        if row is None or row.tenant not in _tenants(caller) or not set(row.principals) & set(caller.principals):
            return None
        wanted = row.document_version if document_version is None else document_version
        member = self.manifest.member(self.shape.name, document_id, wanted)
        if member is None:
            return None
        return Passage(document_id, wanted, self._parsed(member.parsed).text, row.title, row.uri)

    def _parsed(self, digest: str) -> Parsed:
        with self._lock:
            if digest in self._texts:
                self._texts.move_to_end(digest)
                return self._texts[digest]
        parsed = msgspec.json.decode(self.objects.get(digest), type=Parsed)
        with self._lock:
            self._texts[digest] = parsed
            while len(self._texts) > _TEXTS:
                self._texts.popitem(last=False)
        return parsed

    def _version(self, number: int | None) -> IndexVersion:
        """The version that answers: resolved once for a query; another process's swap is seen a moment later."""
        now = time.monotonic()
        cached = self._live
        if number is None and cached is not None and now - cached[0] < _ALIAS_SECONDS:
            return cached[1]
        wanted = self.manifest.live(self.shape.name) if number is None else number
        if wanted is None:
            raise UsageError(
                f"index {self.shape.name!r} has no version that answers yet",
                code="MS-2434",
                why="it was never built",
                fix=f"mainspring run index/{self.shape.name}",
            )
        version = next((item for item in self.manifest.versions(self.shape.name) if item.version == wanted), None)
        # What the alias leads to answers whatever its state: that is written a moment after the alias.
        if version is None or (number is not None and version.state not in ("live", "retired", "evaluating")):
            raise UsageError(
                f"index {self.shape.name!r} has no version {wanted} that can be asked",
                code="MS-2433",
                fix=f"mainspring show index/{self.shape.name} lists its versions",
            )
        if number is None:
            self._live = (now, version)
        return version

    def _reranked(self, request: SearchRequest, hits: list[Hit]) -> tuple[list[Hit], list[Note]]:
        if self.reranker is None:
            return hits, [Note("rerank_skipped", "no reranker is configured")]
        deadline = None if request.deadline_ms is None else request.deadline_ms / 1000
        try:
            scores = self.reranker.rerank(request.query, [hit.text for hit in hits], deadline)
        except MainspringError as error:
            return hits, [Note("rerank_skipped", error.what)]
        if scores is None:
            return hits, [Note("rerank_skipped", f"no answer within {request.deadline_ms} ms")]
        order = sorted(range(len(hits)), key=lambda place: -scores[place])
        return [msgspec.structs.replace(hits[place], score=scores[place]) for place in order], []


def _sound(request: SearchRequest) -> None:
    if not 1 <= request.k <= MOST:
        raise UsageError(
            f"k is {request.k}", code="MS-2431", why=f"it lies between 1 and {MOST:,}", fix="ask for fewer, or for one"
        )
    if not request.query.strip():
        raise UsageError("the query is empty", code="MS-2432", fix="say what is searched for")


def _allowed(given: Mapping[str, object] | None, caller: Identity) -> Filter:
    """What the caller may see, and of that what it asks for; nothing that it asks for can widen the first."""
    rights: tuple[Filter, ...] = (Any(ACL, caller.principals), In(TENANT, _tenants(caller)))
    return And(rights) if given is None else And((*rights, filter_from_json(given)))


def _tenants(caller: Identity) -> tuple[str, ...]:
    """Whose documents it may see: its tenant's, and those that are no tenant's."""
    return ("", caller.tenant) if caller.tenant else ("",)


def _newest(points: Sequence[Point]) -> list[Point]:
    """While a document is being written again, only its newest chunks."""
    payloads: list[_Payload] = [point.payload for point in points]
    newest: dict[str, int] = {}
    for payload in payloads:
        newest[payload[DOCUMENT]] = max(newest.get(payload[DOCUMENT], 0), payload[VERSION])
    return [
        point for point, payload in zip(points, payloads, strict=True) if payload[VERSION] == newest[payload[DOCUMENT]]
    ]


def _hit(point: Point) -> Hit:
    payload: _Payload = point.payload
    pages = (payload["page_first"], payload["page_last"]) if payload.get("page_first") is not None else None
    return Hit(
        chunk_id=payload["chunk"],
        document_id=payload[DOCUMENT],
        document_version=int(payload[VERSION]),
        score=point.score,
        ranks=Ranks(point.ranks.get("dense"), point.ranks.get("text")),
        text=payload["text"],
        title=payload["title"],
        uri=payload["uri"],
        path=tuple(payload["path"]),
        pages=pages,
        span=(int(payload["start"]), int(payload["end"])),
        metadata={key[len(META) :]: payload[key] for key in payload if key not in OWN and key.startswith(META)},
    )


def _completeness(found: Hits, got: int, k: int, notes: list[Note]) -> tuple[bool, list[Note]]:
    if got >= k:
        return True, [note for note in notes if note.code != "fewer_than_k"]
    if not any(note.code == "fewer_than_k" for note in notes):
        notes = [*notes, Note("fewer_than_k", f"{got} of {k}: no more chunks fit the query, the filter and the caller")]
    return False, notes
