"""``/passthrough/{name}/...``: an upstream's own wire, behind our keys, limits and records."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from urllib.parse import parse_qsl

from mainspring.llm.gateway import Gateway
from mainspring.llm.passing import Passed, Passing
from mainspring.llm.refused import Refused
from mainspring.protocols.http import Long, Request, Response, Router
from mainspring.protocols.llm.asking import authorised, request_headers, trace_of
from mainspring.protocols.llm.faults import LLMFault, as_fault, bad, limit_headers
from mainspring.protocols.openai.errors import error_chunk, openai_error
from mainspring.upstream.faults import BrokenError

__all__ = ["add_passthrough_routes"]

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SEGMENT = re.compile(r"[A-Za-z0-9._~:@!$&'()*+,;=-]+")
_QUERY = re.compile(rb"[!-\"$-~]*")
_LONGEST = 2048
_SECRET = re.compile(r"(^|[-_])(key|token|secret|signature|sig|password|authorization)$|^(apikey|accesstoken)$", re.I)
_SENT = frozenset(
    {
        b"accept", b"content-type", b"content-encoding", b"idempotency-key", b"if-match", b"if-none-match", b"prefer",
        b"range", b"anthropic-version", b"anthropic-beta", b"openai-beta",
    }
)  # fmt: skip
"""Headers of clients that go upstream; whatever may say who asks, or how the connection is, does not."""
_TOLD = frozenset(
    {
        "cache-control", "content-disposition", "content-encoding", "content-range", "accept-ranges", "etag",
        "last-modified", "retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms", "openai-version",
    }
)  # fmt: skip
"""Headers of upstreams that go back; whatever is of our account there, or of the connection, does not."""
_EMPTY = frozenset({204, 205, 304})


def add_passthrough_routes(router: Router, gateway: Gateway) -> None:
    """Serve what the settings ``llms.NAME.passthrough`` allow, under the names that clients use for models.

    Args:
        router: where the routes go.
        gateway: whose keys, limits and records these are.
    """

    async def passthrough(request: Request) -> Response:
        return await _passed(gateway, request)

    for method in _METHODS:
        router.add(method, "/passthrough/*/**", passthrough, long=Long(openai_error))


async def _passed(gateway: Gateway, request: Request) -> Response:
    caller = authorised(gateway, request)
    if request.method not in _METHODS:
        raise LLMFault(405, f"{request.method} is not passed on")
    name, rest = request.parameters
    asked = Passing(
        gateway.new_id(),
        name,
        request.method,
        _path(rest),
        _query(request.query),
        _headers(request.headers),
        request.body,
        trace_of(request.headers),
    )
    found = await gateway.pass_on(asked, caller)
    if isinstance(found, Refused):
        raise as_fault(found, asked.id)
    headers = (
        *request_headers(asked.id),
        *limit_headers(found.left),
        *((key.encode(), value.encode("latin-1")) for key, value in found.headers.items() if key in _TOLD),
    )
    if found.status in _EMPTY:
        await _read_out(found, asked.id)
        return Response(found.status, headers=headers)
    kind = found.headers.get("content-type", "application/octet-stream").encode("latin-1")
    return Response(found.status, content_type=kind, headers=headers, stream=_parts(found), closed=found.close)


async def _read_out(found: Passed, id: str) -> None:
    """The end of an answer without a body."""
    try:
        async for _ in found:
            pass
    except BrokenError as broken:
        raise as_fault(Refused(broken.event), id) from None
    finally:
        await found.close()


async def _parts(found: Passed) -> AsyncIterator[bytes]:
    """The bytes; where the upstream breaks off, a stream of events has one more, and others break off as well."""
    try:
        async for piece in found:
            yield piece
    except BrokenError as broken:
        if "event-stream" not in found.headers.get("content-type", ""):
            raise
        yield b"\n\n" + error_chunk(broken.event)


def _path(rest: str) -> str:
    """The path below the upstream's own: whole segments of harmless signs, none of which leads up or elsewhere.

    Raises:
        LLMFault: 400.
    """
    segments = rest.split("/")
    if len(rest) > _LONGEST or not all(_SEGMENT.fullmatch(one) and one.strip(".") for one in segments):
        raise bad("the path cannot be passed on: its parts are letters, digits and -._~:@!$&'()*+,;=")
    return f"/{rest}"


def _query(query: bytes) -> str:
    """The query, without anybody's credentials.

    Raises:
        LLMFault: 400.
    """
    if len(query) > _LONGEST or not _QUERY.fullmatch(query):
        raise bad("the query cannot be passed on")
    text = query.decode("ascii")
    for name, _ in parse_qsl(text, keep_blank_values=True):
        if _SECRET.search(name):
            raise bad(f"the query has {name!r}: keys are not passed on", name[:80])
    return text


def _headers(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """The headers that go upstream."""
    return {name.decode(): headers[name].decode("latin-1") for name in _SENT if name in headers}
