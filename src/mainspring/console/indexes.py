"""What the pages of documents and indexes show: versions, moves, files put aside, and a search by anybody's rights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from mainspring.console.asking import identity_of, identity_row
from mainspring.console.evaluations import of_target
from mainspring.console.health import health_of
from mainspring.console.pages import Page, object_page
from mainspring.console.state import ConsoleState
from mainspring.declare.documents import Documents
from mainspring.errors import MainspringError
from mainspring.plan.graph import Node
from mainspring.ports.manifest import DocumentRow, IndexVersion
from mainspring.rag.search import Hit, SearchAnswer, SearchRequest
from mainspring.rag.steps import folder_of

__all__ = ["documents", "index"]

_SHOWN = 100
"""The most files that are put aside and shown."""
_MODES = ("hybrid", "dense", "text")
_MOST = 100


def index(state: ConsoleState, name: str, asked: Mapping[str, str]) -> Page | None:
    """One index: documents, chunks, versions, moves of its alias, files put aside, and what a search finds.

    Args:
        state: the console's view of the process.
        name: the index.
        asked: of the search form: ``q``, ``k``, ``mode``; and by whose rights: ``user``, ``groups``, ``tenant``.
    """
    node = state.plan().node(f"/index/{name}")
    if node is None:
        return None
    manifest = state.services.manifest
    live, versions, rows = manifest.live(name), manifest.versions(name), manifest.documents(name)
    answering = next((version for version in versions if version.version == live), None)
    word, why = health_of(state, [node], ())[node.url]
    return {
        **object_page(state, node),
        "state": word,
        "why": why,
        "live": live,
        "documents": sum(1 for row in rows if row.parsed),
        "chunks": 0 if answering is None else answering.rows,
        "aside": _aside(rows),
        "versions": [_version(item, live) for item in versions],
        "moves": [
            {"version": move.version, "by": move.by, "at": move.at_us, "reason": move.reason}
            for move in manifest.moves(name)
        ],
        "evaluations": of_target(state, node.url),
        "modes": _MODES,
        "who": identity_row(identity_of(asked)),
        "search": _search(state, name, asked),
    }


def documents(state: ConsoleState, name: str) -> Page | None:
    """Declared documents: where they are, and what became of them in each index."""
    node = state.plan().node(f"/documents/{name}")
    if node is None:
        return None
    word, why = health_of(state, [node], ())[node.url]
    indexes = [other for other in state.plan().of_kind("index") if node.url in other.inputs]
    return {
        **object_page(state, node),
        "state": word,
        "why": why,
        "folder": _folder(state, node),
        "indexes": [_in_index(state, other, name) for other in indexes],
    }


def _folder(state: ConsoleState, node: Node) -> str:
    try:
        folder = folder_of(cast(Documents, node.declaration), state.services.settings).folder
    except MainspringError:
        return ""
    project = state.services.project
    return str(folder.relative_to(project)) if folder.is_relative_to(project) else str(folder)


def _in_index(state: ConsoleState, node: Node, documents: str) -> dict[str, object]:
    rows = [row for row in state.services.manifest.documents(node.name) if row.source == documents]
    return {
        "name": node.name,
        "url": node.url,
        "documents": sum(1 for row in rows if row.parsed),
        "bytes": sum(row.size for row in rows),
        "synced": max((row.synced_us for row in rows), default=None),
        "aside": _aside(rows),
    }


def _aside(rows: Sequence[DocumentRow]) -> dict[str, object]:
    """Files that cannot be read, with the reason; the last good content of one may still be in the index."""
    aside = [row for row in rows if row.status == "quarantined"]
    return {
        "count": len(aside),
        "files": [
            {"source": row.source, "uri": row.uri, "size": row.size, "why": row.error, "older": bool(row.parsed)}
            for row in aside[:_SHOWN]
        ],
    }


def _version(item: IndexVersion, live: int | None) -> dict[str, object]:
    return {
        "version": item.version,
        "state": item.state,
        "answers": item.version == live,
        "rows": item.rows,
        "embedder": item.embedder_id,
        "dims": item.dims,
        "created": item.created_us,
        "live": item.live_us,
        "retired": item.retired_us,
        "scores": dict(item.scores),
        "writing": item.writing,
        "spec": dict(item.spec),
    }


def _search(state: ConsoleState, name: str, asked: Mapping[str, str]) -> dict[str, object]:
    """The form as it was filled in, and the answer to it, or why there is none."""
    query, size = asked.get("q", "").strip(), asked.get("k", "5")
    mode = asked.get("mode", "")
    form: dict[str, object] = {
        "q": query,
        "k": size,
        "mode": mode if mode in _MODES else "",
        "answer": None,
        "fault": "",
    }
    searcher = state.answering.searcher(name)
    if not query or searcher is None:
        return form
    try:
        k = max(1, min(int(size), _MOST)) if size.isdecimal() else 5
        request = SearchRequest(query=query, k=k, mode=cast(Any, mode) if mode in _MODES else None)
        answer = searcher.search(request, identity_of(asked))
    except MainspringError as error:
        return form | {"fault": f"{error.what}. {error.fix}" if error.fix else error.what}
    return form | {"k": str(k), "answer": _answer(answer)}


def _answer(answer: SearchAnswer) -> dict[str, object]:
    return {
        "version": answer.version,
        "complete": answer.complete,
        "notes": [{"code": note.code, "detail": note.detail} for note in answer.notes],
        "took_us": {"embed": answer.took_us.embed, "search": answer.took_us.search, "rerank": answer.took_us.rerank},
        "hits": [_hit(hit) for hit in answer.hits],
    }


def _hit(hit: Hit) -> dict[str, object]:
    return {
        "title": hit.title,
        "uri": hit.uri,
        "path": list(hit.path),
        "pages": None if hit.pages is None else list(hit.pages),
        "score": hit.score,
        "ranks": {"dense": hit.ranks.dense, "text": hit.ranks.text},
        "text": hit.text,
        "chunk_id": hit.chunk_id,
        "document_version": hit.document_version,
        "span": list(hit.span),
        "metadata": dict(hit.metadata),
    }
