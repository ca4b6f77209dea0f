"""Bodies on the wire: JSON with bare NaN and Infinity, gzip and deflate both ways, pages of other sites kept out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec
import orjson

from mainspring.protocols.http import Fault, Handler, Request, Response

__all__ = [
    "coded",
    "decode_json",
    "decode_object",
    "decoded",
    "encode_json",
    "id_headers",
    "inflated",
    "is_small",
    "query_pairs",
    "refuse_other_sites",
]

T = TypeVar("T")

_LARGE = 1 << 18
"""Bytes of a body beyond which it is decoded off the event loop; smaller ones cost less than a thread would."""
_MOST_IDS = 100
_MOST_FIELDS = 4096
_LEAST = 1024
"""Smaller answers are not compressed: it would cost more than it spares."""
_BARE = (b"NaN", b"Infinity")
_WINDOW_GZIP, _WINDOW_ZLIB, _WINDOW_RAW = 31, 15, -15


def is_small(size: int) -> bool:
    """Whether a body of so many bytes is decoded where it is asked."""
    return size <= _LARGE


async def decoded(size: int, read: Callable[..., T], *arguments: Any) -> T:
    """What a function makes of a body of so many bytes; a large one holds up no other request.

    Raises:
        Exception: as the function raises.
    """
    if is_small(size):
        return read(*arguments)
    return await asyncio.to_thread(read, *arguments)


def decode_json(body: bytes) -> Any:
    """A JSON document; bare NaN and Infinity are let in.

    Raises:
        Fault: 400, it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if any(word in body for word in _BARE):
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(body)
        raise Fault(400, f"the body is not JSON: {error.msg} at byte {error.pos}") from None


def decode_object(body: bytes, shape: str) -> dict[str, Any]:
    """A JSON object; bare NaN and Infinity are let in.

    Args:
        body: the bytes.
        shape: how it should look, for the fault.

    Raises:
        Fault: 400, it is no JSON object.
    """
    found = decode_json(body)
    if not isinstance(found, dict):
        raise Fault(400, f"the body is no JSON object: {shape}")
    return found


def encode_json(value: Any, *, finite: bool) -> bytes:
    """A JSON document; with `finite` False non-finite numbers are written bare, which orjson would make null."""
    return orjson.dumps(value) if finite else json.dumps(value, separators=(",", ":")).encode()


def query_pairs(request: Request) -> list[tuple[str, str]]:
    """The names and values of a request's query, in their order.

    Raises:
        Fault: 400, there are too many.
    """
    try:
        return parse_qsl(request.query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Fault(400, "the query has too many fields") from None


def id_headers(ids: Sequence[str]) -> tuple[tuple[bytes, bytes], ...]:
    """The prediction ids of an answer's rows as a header, for wires whose bodies have no room for them.

    Beyond 100 rows there is none: clients bound the size of headers.
    """
    if not ids or len(ids) > _MOST_IDS:
        return ()
    return ((b"x-mainspring-prediction-ids", ",".join(ids).encode()),)


def coded(handler: Handler, most: int) -> Handler:
    """A handler that also takes compressed bodies, and compresses its answers for clients that ask for that.

    Args:
        handler: who answers.
        most: greatest body in bytes, compressed or not.
    """

    @functools.wraps(handler)
    def answer(request: Request) -> Awaitable[Response]:
        headers = request.headers
        if b"content-encoding" in headers or b"accept-encoding" in headers:
            return recoded(request)
        return handler(request)

    async def recoded(request: Request) -> Response:
        coding = request.headers.get(b"content-encoding")
        if coding is not None:
            request = msgspec.structs.replace(request, body=inflated(request.body, coding, most))
        response = await handler(request)
        accepted = request.headers.get(b"accept-encoding")
        if accepted is None or len(response.body) < _LEAST or response.stream is not None:
            return response
        return _deflated(response, accepted)

    return answer


def inflated(body: bytes, coding: bytes, most: int) -> bytes:
    """A body without its coding, at most `most` bytes of it.

    Raises:
        Fault: 413, it is larger; 415, the coding is unknown; 400, it is not in that coding.
    """
    name = coding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name in (b"gzip", b"x-gzip"):
        return _members(body, most)
    if name == b"deflate":
        with contextlib.suppress(zlib.error):
            return _one(body, _WINDOW_ZLIB, most)[0]
        try:
            return _one(body, _WINDOW_RAW, most)[0]  # what some clients call deflate
        except zlib.error:
            raise Fault(400, "the body is not in deflate") from None
    raise Fault(415, f"the body's coding is none of gzip, deflate and identity: {name.decode('latin-1')[:40]}")


def _members(body: bytes, most: int) -> bytes:
    parts, size = [], 0
    try:
        while body:
            part, body = _one(body, _WINDOW_GZIP, most - size)
            parts.append(part)
            size += len(part)
            if len(parts) > _LEAST:
                raise Fault(413, "the body has too many members of gzip")
    except zlib.error:
        raise Fault(400, "the body is not in gzip") from None
    return b"".join(parts)


def _one(body: bytes, window: int, most: int) -> tuple[bytes, bytes]:
    """One stream of a body, and what follows it."""
    stream = zlib.decompressobj(window)
    found = stream.decompress(body, most + 1)
    if len(found) > most:
        raise Fault(413, "the body is larger than what is taken, when it is inflated")
    if not stream.eof:
        raise zlib.error
    return found, stream.unused_data


def _deflated(response: Response, accepted: bytes) -> Response:
    names = {part.partition(b";")[0].strip().lower() for part in accepted.split(b",") if b"q=0" not in part}
    if b"gzip" in names:
        body, name = gzip.compress(response.body, 1, mtime=0), b"gzip"
    elif b"deflate" in names:
        body, name = zlib.compress(response.body, 1), b"deflate"
    else:
        return response
    headers = (*response.headers, (b"content-encoding", name), (b"vary", b"accept-encoding"))
    return msgspec.structs.replace(response, body=body, headers=headers)


def refuse_other_sites(request: Request) -> None:
    """Refuse a request that a page of another site has made a browser send.

    Raises:
        Fault: 403.
    """
    site, origin = request.headers.get(b"sec-fetch-site"), request.headers.get(b"origin")
    if site is not None:
        own = site in (b"same-origin", b"none")
    else:
        host = request.headers.get(b"host", b"").decode("latin-1")
        own = origin is None or urlsplit(origin.decode("latin-1")).netloc == host
    if not own:
        raise Fault(403, "the request was sent by a page of another site")
