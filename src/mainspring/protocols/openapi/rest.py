"""``GET /openapi.json``: what this process serves, for generators of clients and for people."""

from __future__ import annotations

from collections.abc import Callable

from mainspring.protocols.http import Request, Response, Router, json_response
from mainspring.protocols.openapi.document import Limits, Shapes, document

__all__ = ["add_openapi_route"]


def add_openapi_route(router: Router, shapes: Callable[[], Shapes], limits: Limits) -> None:
    """Serve the description on a router.

    Args:
        router: where the route goes.
        shapes: what is served now.
        limits: what the settings allow.
    """

    async def described(request: Request) -> Response:
        return json_response(document(shapes(), limits))

    router.add("GET", "/openapi.json", described)
