"""A server in a process of its own, with short bounds, for tests that treat it badly; or uvicorn as it comes beside it.

Its first argument is ``ours`` or ``uvicorn``. Prints its port.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import orjson
import uvicorn
import uvloop

from mainspring.protocols.http import Long, Request, Response, Router
from mainspring.server.http.asgi import Limits, Listener
from mainspring.server.http.bounds import Bounds
from mainspring.server.http.host import bind, run_listeners

BOUNDS = Bounds(
    body=1 << 22, head=16_384, headers=64, chunks=1000, stall=1.0, rate=1000.0, idle=1.5, lingering=0.5, pipeline=16
)
LIMITS = Limits(body=1 << 20, timeout=1.5)
PART = b"x" * 65_536


class Counts:
    """What the routes have seen."""

    left = begun = parts = 0


async def echo(request: Request) -> Response:
    """What was asked, so that both sides of a comparison can be held beside each other."""
    told = {
        "method": request.method,
        "path": request.path,
        "query": request.query.decode("latin-1"),
        "headers": sorted([name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers.items()),
        "body": hashlib.sha256(request.body).hexdigest(),
        "length": len(request.body),
    }
    return Response(200, orjson.dumps(told), headers=((b"x-told", b"yes"),))


async def nothing(request: Request) -> Response:
    """No content."""
    return Response(204)


async def slow(request: Request) -> Response:
    """Longer than a request may take."""
    await asyncio.sleep(60)
    return Response(200)


async def soon(request: Request) -> Response:
    """After a moment."""
    await asyncio.sleep(0.2)
    return Response(200, b'"soon"')


async def waits(request: Request) -> Response:
    """As a language model does: until its client leaves."""
    Counts.begun += 1
    try:
        await asyncio.sleep(60)
    finally:
        Counts.left += 1
    return Response(200)


async def splits(request: Request) -> Response:
    """A header that would be two."""
    return Response(200, b"{}", headers=((b"x-name", b"a\r\nx-other: b"),))


async def large(request: Request) -> Response:
    """More than a socket's buffers hold."""
    return Response(200, b"y" * (16 << 20), b"text/plain")


async def stream(request: Request) -> Response:
    """Without end, or three parts."""

    async def parts() -> AsyncIterator[bytes]:
        Counts.begun += 1
        try:
            if request.query == b"short":
                for part in (b"one ", b"two ", b"three"):
                    await asyncio.sleep(0.01)
                    yield part
                return
            while True:
                Counts.parts += 1
                yield PART
        finally:
            Counts.left += 1

    return Response(200, content_type=b"text/plain", stream=parts())


async def counts(request: Request) -> Response:
    """What has been seen, and how much memory that takes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    resident = pages * os.sysconf("SC_PAGESIZE")
    told = {"left": Counts.left, "begun": Counts.begun, "parts": Counts.parts, "resident": resident}
    return Response(200, orjson.dumps(told))


async def mounted(scope: Any, receive: Any, send: Any) -> None:
    """An application of ASGI beside the router, as the console is: its body is what it was sent."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body[:10], "more_body": True})
    await send({"type": "http.response.body", "body": body[10:]})


def listener() -> Listener:
    """The routes."""
    router = Router()
    for method in ("GET", "POST", "PUT", "DELETE"):
        router.add(method, "/echo", echo)
        router.add(method, "/echo/*", echo)
    for path, handler in (
        ("/nothing", nothing),
        ("/slow", slow),
        ("/soon", soon),
        ("/splits", splits),
        ("/large", large),
        ("/counts", counts),
    ):
        router.add("GET", path, handler)
    router.add("GET", "/waits", waits, long=Long())
    router.add("GET", "/stream", stream, long=Long())
    return Listener(router, LIMITS, mounts=(("/mounted", mounted),))


async def nobody() -> None:
    """Nothing is to be done."""


def main() -> None:
    """Serve until SIGTERM."""
    bound = bind("server", listener(), "127.0.0.1", 0, "here", BOUNDS)
    print(bound.port, flush=True)
    if sys.argv[1] == "ours":
        uvloop.run(run_listeners([bound], 5.0, nobody, nobody))
        return
    config = uvicorn.Config(
        bound.listener, loop="none", http="httptools", ws="none", lifespan="off", log_config=None, log_level="critical",
        access_log=False, proxy_headers=False, server_header=False, date_header=False,
    )  # fmt: skip
    uvloop.run(uvicorn.Server(config).serve(sockets=[bound.socket]))


if __name__ == "__main__":
    main()
