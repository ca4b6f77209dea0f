"""What the server offers: ``search_{index}``, ``ask_{assistant}``, and documents at ``mainspring://{index}/{document}``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from mainspring.assistants.events import Citation, Folded, fold
from mainspring.assistants.service import Asked, AssistantService
from mainspring.declare.identity import Identity
from mainspring.errors import MainspringError
from mainspring.ports.llm import Message
from mainspring.protocols.mcp.messages import INVALID_PARAMS, NOT_FOUND, RpcError
from mainspring.rag.search import SearchAnswer, Searcher, SearchRequest

__all__ = ["Offer", "Spoken"]

Json = dict[str, Any]


class _Question(msgspec.Struct, forbid_unknown_fields=True):
    question: str
    thread: str = ""


class Spoken(msgspec.Struct, frozen=True):
    """What an assistant has answered.

    Attributes:
        answer: the text.
        citations: the passages it stands on.
        refused: whether it says that it does not know.
        thread_id: where it goes on, or None.
        interrupt: what a person must decide first, or None.
    """

    answer: str
    citations: tuple[Citation, ...]
    refused: bool
    thread_id: str | None = None
    interrupt: Mapping[str, Any] | None = None


class Offer(msgspec.Struct, frozen=True):
    """What is served now.

    Attributes:
        indexes: searchable, by name.
        assistants: that answer, by name.
    """

    indexes: Callable[[], Mapping[str, Searcher]]
    assistants: Callable[[], Mapping[str, AssistantService]]

    def tools(self) -> list[Json]:
        """All tools, as ``tools/list`` tells them."""
        return [
            *(_search_tool(name) for name in self.indexes()),
            *(_ask_tool(name, service) for name, service in self.assistants().items()),
        ]

    def templates(self) -> list[Json]:
        """How documents are addressed, as ``resources/templates/list`` tells it."""
        return [
            {
                "uriTemplate": f"mainspring://{quote(name, safe='')}/{{document_id}}",
                "name": f"{name} document",
                "title": f"A document of {name}",
                "description": "The text of a document that a search has found; ?version= names one of its versions.",
                "mimeType": "text/plain",
            }
            for name in self.indexes()
        ]

    async def call(self, name: str, arguments: Mapping[str, Any], caller: Identity) -> Json:
        """Carry a tool out; what it cannot do is an answer with ``isError``.

        Raises:
            RpcError: there is no such tool.
        """
        kind, _, rest = name.partition("_")
        searcher = self.indexes().get(rest) if kind == "search" else None
        service = self.assistants().get(rest) if kind == "ask" else None
        try:
            if searcher is not None:
                return await _search(rest, searcher, arguments, caller)
            if service is not None:
                return await _ask(service, arguments, caller)
        except msgspec.ValidationError as error:
            return _failed(f"The arguments do not fit: {error}")
        except MainspringError as error:
            return _failed(f"{error.what}. {error.fix}" if error.exit_status in (1, 2, 5) else "It cannot answer now.")
        raise RpcError(INVALID_PARAMS, f"there is no tool {name!r}")

    async def read(self, uri: str, caller: Identity) -> Json:
        """A document's text, as ``resources/read`` tells it.

        Raises:
            RpcError: there is none, or the caller may not see it.
        """
        index, document, version = _address(uri)
        searcher = self.indexes().get(index)
        found = None
        if searcher is not None:
            found = await asyncio.to_thread(searcher.passage, document, version, caller)
        if found is None:
            raise RpcError(NOT_FOUND, f"there is no resource {uri}")
        return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": found.text}]}


def _address(uri: str) -> tuple[str, str, int | None]:
    parts = urlsplit(uri)
    version = parse_qs(parts.query).get("version", [""])[0]
    if parts.scheme != "mainspring" or not parts.path.strip("/") or (version and not version.isdecimal()):
        raise RpcError(NOT_FOUND, f"there is no resource {uri}")
    return unquote(parts.netloc), unquote(parts.path.strip("/")), int(version) if version else None


async def _search(name: str, searcher: Searcher, arguments: Mapping[str, Any], caller: Identity) -> Json:
    request = msgspec.convert(arguments, SearchRequest)
    answer = await asyncio.to_thread(searcher.search, request, caller)
    links = {
        (hit.document_id, hit.document_version): {
            "type": "resource_link",
            "uri": f"mainspring://{quote(name, safe='')}/{hit.document_id}?version={hit.document_version}",
            "name": hit.title or hit.uri,
            "mimeType": "text/plain",
        }
        for hit in answer.hits
    }
    return _done(msgspec.to_builtins(answer), list(links.values()))


async def _ask(service: AssistantService, arguments: Mapping[str, Any], caller: Identity) -> Json:
    question = msgspec.convert(arguments, _Question)
    asked = Asked((Message("user", (question.question,)),), question.thread)
    folded = fold([event async for event in service.run(asked, caller)])
    if folded.error is not None:
        return _failed(f"The assistant has failed: {folded.error.message}.")
    return _done(msgspec.to_builtins(_spoken(folded)), [])


def _spoken(folded: Folded) -> Spoken:
    waiting = folded.interrupt
    return Spoken(
        folded.text,
        tuple(cited.citation for cited in folded.citations),
        folded.end is not None and folded.end.refused,
        folded.thread or None,
        None if waiting is None else {"id": waiting.id, "action_requests": list(waiting.action_requests)},
    )


def _done(structured: Json, more: list[Json]) -> Json:
    text = msgspec.json.encode(structured).decode()
    return {"content": [{"type": "text", "text": text}, *more], "structuredContent": structured, "isError": False}


def _failed(text: str) -> Json:
    return {"content": [{"type": "text", "text": text}], "isError": True}


def _search_tool(name: str) -> Json:
    return {
        "name": f"search_{name}",
        "title": f"Search {name}",
        "description": f"Search the documents of {name}; answers passages with where they come from.",
        "inputSchema": _schema(SearchRequest),
        "outputSchema": _schema(SearchAnswer),
        "annotations": {"readOnlyHint": True, "idempotentHint": True, "openWorldHint": False},
    }


def _ask_tool(name: str, service: AssistantService) -> Json:
    knows = ", ".join(service.indexes)
    return {
        "name": f"ask_{name}",
        "title": f"Ask {name}",
        "description": f"Ask the assistant {name}" + (f", which answers from {knows}." if knows else "."),
        "inputSchema": _schema(_Question),
        "outputSchema": _schema(Spoken),
        "annotations": {"readOnlyHint": False, "destructiveHint": True, "openWorldHint": False},
    }


def _anything(kind: type) -> Json:
    """The schema of what may be any JSON value."""
    if kind is object:
        return {"description": "any JSON value"}  # msgspec takes an empty schema for none
    raise NotImplementedError


def _schema(kind: type[msgspec.Struct]) -> Json:
    """The JSON schema of a struct, an object at its root as MCP demands."""
    schema = msgspec.json.schema(kind, schema_hook=_anything)
    definitions = dict(schema["$defs"])
    own: Json = dict(definitions.pop(kind.__name__))
    own.pop("title", None)
    return own | ({"$defs": definitions} if definitions else {})
