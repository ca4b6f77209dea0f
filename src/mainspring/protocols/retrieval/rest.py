"""Indexes, in JSON.

``POST /v1/indexes/{index}/search``: a `SearchRequest`, answered by a `SearchAnswer`
``GET /v1/indexes`` and ``GET /v1/indexes/{index}``: what there is
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from mainspring.declare.identity import Identity
from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.rag.search import Searcher, SearchRequest

__all__ = ["Describe", "RunBlocking", "add_retrieval_routes"]

Describe = Callable[[str], Mapping[str, object]]
"""What is told of an index: its version, its documents, its modes."""

T = TypeVar("T")
RunBlocking = Callable[..., Awaitable[object]]

_request = msgspec.json.Decoder(SearchRequest).decode
_encode = msgspec.json.Encoder().encode


def add_retrieval_routes(
    router: Router,
    indexes: Mapping[str, Searcher],
    describe: Describe,
    caller: Callable[[Request], Identity],
    run_blocking: RunBlocking,
) -> None:
    """Serve indexes on a router.

    Args:
        router: where the routes go.
        indexes: by name.
        describe: what is told of an index.
        caller: who asks, as the server has authenticated it.
        run_blocking: awaits a function run in a thread.
    """
    routes = _Routes(indexes, describe, caller, run_blocking)
    router.add("GET", "/v1/indexes", routes.names)
    router.add("GET", "/v1/indexes/*", routes.described)
    router.add("POST", "/v1/indexes/*/search", routes.search)


class _Routes:
    def __init__(
        self,
        indexes: Mapping[str, Searcher],
        describe: Describe,
        caller: Callable[[Request], Identity],
        run_blocking: RunBlocking,
    ) -> None:
        self._indexes = indexes
        self._describe = describe
        self._caller = caller
        self._run = run_blocking

    async def names(self, request: Request) -> Response:
        """Every index."""
        return json_response({"indexes": [dict(await self._told(name)) for name in self._indexes]})

    async def described(self, request: Request) -> Response:
        """One index."""
        name, _ = self._named(request)
        return json_response(dict(await self._told(name)))

    async def search(self, request: Request) -> Response:
        """What the caller may see of what fits best."""
        _, searcher = self._named(request)
        try:
            asked = _request(request.body)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise Fault(400, f"the body is no search: {error}") from None
        answer = await self._run(searcher.search, asked, self._caller(request))
        return Response(200, _encode(answer))

    async def _told(self, name: str) -> Mapping[str, object]:
        found = await self._run(self._describe, name)
        return msgspec.convert(found, dict[str, object])

    def _named(self, request: Request) -> tuple[str, Searcher]:
        name = request.parameters[0]
        searcher = self._indexes.get(name)
        if searcher is None:
            raise Fault(404, f"no index is called {name!r}")
        return name, searcher
