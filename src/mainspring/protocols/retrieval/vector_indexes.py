"""Vector indexes over features, in JSON.

``POST /v1/vector-indexes/{name}/search``: a `NearestRequest`, answered by a `NearestAnswer`
``GET /v1/vector-indexes`` and ``GET /v1/vector-indexes/{name}``: what there is
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from mainspring.errors import MainspringError
from mainspring.features.vector_index.search import NearestRequest, VectorIndexSearcher
from mainspring.protocols.http import Fault, Request, Response, Router, json_response

__all__ = ["add_vector_index_routes"]

Describe = Callable[[str], Mapping[str, object]]
RunBlocking = Callable[..., Awaitable[object]]

_request = msgspec.json.Decoder(NearestRequest).decode
_encode = msgspec.json.Encoder().encode
_STATUS = {"MS-2452": 404, "MS-2654": 422}
"""Of errors whose class says less: an entity that has no vector, a vector that is none of the index."""


def add_vector_index_routes(
    router: Router,
    indexes: Mapping[str, VectorIndexSearcher],
    describe: Describe,
    run_blocking: RunBlocking,
) -> None:
    """Serve vector indexes on a router.

    Args:
        router: where the routes go.
        indexes: by name.
        describe: what is told of an index.
        run_blocking: awaits a function run in a thread.
    """
    routes = _Routes(indexes, describe, run_blocking)
    router.add("GET", "/v1/vector-indexes", routes.names)
    router.add("GET", "/v1/vector-indexes/*", routes.described)
    router.add("POST", "/v1/vector-indexes/*/search", routes.search)


class _Routes:
    def __init__(
        self, indexes: Mapping[str, VectorIndexSearcher], describe: Describe, run_blocking: RunBlocking
    ) -> None:
        self._indexes = indexes
        self._describe = describe
        self._run = run_blocking

    async def names(self, request: Request) -> Response:
        """Every index."""
        return json_response({"vector_indexes": [await self._run(self._describe, name) for name in self._indexes]})

    async def described(self, request: Request) -> Response:
        """One index."""
        name, _ = self._named(request)
        return json_response(await self._run(self._describe, name))

    async def search(self, request: Request) -> Response:
        """The nearest entities, with their features."""
        _, searcher = self._named(request)
        try:
            asked = _request(request.body)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise Fault(400, f"the body is no search: {error}") from None
        try:
            answer = await self._run(searcher.search, asked)
        except MainspringError as error:
            if error.code in _STATUS:
                told = {"error": error.what, "code": error.code, "why": error.why, "fix": error.fix}
                return json_response(told, _STATUS[error.code])
            raise
        return Response(200, _encode(answer))

    def _named(self, request: Request) -> tuple[str, VectorIndexSearcher]:
        name = request.parameters[0]
        searcher = self._indexes.get(name)
        if searcher is None:
            raise Fault(404, f"no vector index is called {name!r}")
        return name, searcher
