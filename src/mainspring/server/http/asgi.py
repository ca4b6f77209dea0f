"""ASGI to the seam: bodies read within limits, responses written, every request counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from mainspring.protocols.http import Fault, Request, Response, Router, error_response
from mainspring.server.http.deadlines import Deadlines, TimeIsUp
from mainspring.server.http.exchange import Exchange
from mainspring.server.http.streams import Leaving, Leavings, Receive, Send, leaving_of, send_stream
from mainspring.serving.calls import Rejected

__all__ = ["AsgiApp", "Limits", "Listener"]

Scope = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Watch = Callable[[Request | None, str, int, float], None]

_TEXT = b"content-type"
_LENGTH = b"content-length"
_BODILESS = frozenset({204, 304})
_LEFT = 499
"""The status under which a request is counted whose client left before its answer was whole."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost.

    Attributes:
        body: greatest body in bytes.
        timeout: seconds until the answer is 504.
    """

    body: int
    timeout: float


class Listener:
    """An ASGI application over a `Router`, with prefixes that other ASGI applications own.

    Args:
        router: paths to handlers.
        limits: what a request may cost.
        mounts: other applications by path prefix; the longest prefix wins.
        owned: path prefixes that stay the router's whatever is mounted.
        changed: further ones, for requests that change something: anything but GET and HEAD.
        guard: called with the request before its handler, or before the application that owns its path; raises `Fault`
            to refuse.
        watch: told of every finished request: the request, its route's name, the status, seconds.
        on_error: told of unexpected exceptions.
    """

    def __init__(
        self,
        router: Router,
        limits: Limits,
        *,
        mounts: tuple[tuple[str, AsgiApp], ...] = (),
        owned: tuple[str, ...] = (),
        changed: tuple[str, ...] = (),
        guard: Callable[[Request], None] | None = None,
        watch: Watch | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self._router = router
        self._limits = limits
        self._mounts = sorted(mounts, key=lambda mount: -len(mount[0]))
        self._owned = owned
        self._changed = changed
        self._guard = guard
        self._watch = watch
        self._on_error = on_error
        self._leavings = Leavings()
        self._deadlines = Deadlines()
        self.open = 0
        self.draining = False

    @property
    def body_as_sent(self) -> int:
        """The most bytes of a body with the heads of its chunks; a body of one byte a chunk has six for each."""
        return 2 * self._limits.body + (1 << 20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection scope."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        self.open += 1
        try:
            app = self._mounted(scope["method"], scope["path"]) if self._mounts else None
            if app is None:
                await self._answer(scope, receive, send)
            else:
                await self._pass_on(app, scope, receive, send)
        finally:
            self.open -= 1

    def _mounted(self, method: str, path: str) -> AsgiApp | None:
        """The application that owns a path."""
        if self._owned and path.startswith(self._owned):
            return None
        if self._changed and method not in ("GET", "HEAD") and path.startswith(self._changed):
            return None
        return next((app for prefix, app in self._mounts if path.startswith(prefix)), None)

    async def _pass_on(self, app: AsgiApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let another application answer what the guard lets through."""

        async def closing(message: MutableMapping[str, Any]) -> None:
            if self.draining and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        if (exchange := scope.get(Exchange.KEY)) is not None:
            exchange.taken = True
        headers = dict(scope["headers"])
        try:
            if self._guard is not None:
                self._guard(Request(scope["method"], scope["path"], scope["query_string"], headers, b""))
        except Fault as fault:
            await self._write(error_response(fault), send, head=scope["method"] == "HEAD")
            return
        await app(scope, receive, closing)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        asked = _Asked()
        exchange: Exchange | None = scope.get(Exchange.KEY)
        head = scope["method"] == "HEAD"
        try:
            response = await self._response(scope, receive, exchange, asked)
            if exchange is None or response.stream is not None or not _given(exchange, response, self.draining, head):
                await self._write(response, send, head=head)
            status = response.status
        except asyncio.CancelledError:
            if asked.leaving is None or not asked.leaving.happened:
                raise
            status = _LEFT
        finally:
            if asked.leaving is not None:
                asked.leaving.forget()
        if self._watch is not None:
            self._watch(asked.request, asked.name, status, time.perf_counter() - started)

    async def _response(self, scope: Scope, receive: Receive, exchange: Exchange | None, asked: _Asked) -> Response:
        """Find the handler, and let it answer."""
        errors: Callable[[Exception], Response] = error_response
        try:
            route, path, stars = self._router.route(scope["method"], scope["raw_path"])
            asked.name, errors = route.name, route.errors
            headers = dict(scope["headers"])
            if exchange is not None:
                exchange.taken, exchange.patient = True, not route.long
            body = exchange.whole_body() if exchange is not None else None
            if body is None:
                body = await self._body(headers, receive)
            elif len(body) > self._limits.body:
                self._fits(len(body))
            asked.request = request = Request(
                scope["method"], path, scope["query_string"], headers, body, stars, _peer(scope)
            )
            if self._guard is not None:
                self._guard(request)
            if route.long:
                asked.leaving = self._leavings.watch(receive) if exchange is None else leaving_of(exchange)
                return await route.handler(request)
            return await self._deadlines.within(self._limits.timeout, route.handler(request))
        except TimeIsUp:
            return errors(Fault(504, "the answer took too long"))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if self._on_error is not None and not isinstance(error, (Fault, Rejected)):
                self._on_error(error)
            return errors(error)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        declared = headers.get(_LENGTH)
        if declared is not None and int(declared) > self._limits.body:
            raise Fault(413, f"the body is larger than {self._limits.body} bytes")
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Fault(_LEFT, "the client left")
        body: bytes = message.get("body", b"")
        parts, size = [body], len(body)
        self._fits(size)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Fault(_LEFT, "the client left")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            self._fits(size)
        return b"".join(parts)  # of one part it is that part, and no copy

    def _fits(self, size: int) -> None:
        if size > self._limits.body:
            raise Fault(413, f"the body is larger than {self._limits.body} bytes")

    async def _write(self, response: Response, send: Send, *, head: bool) -> None:
        headers = [(_TEXT, response.content_type), *response.headers]
        if response.stream is None and response.status not in _BODILESS:
            headers.append((_LENGTH, b"%d" % len(response.body)))
        if self.draining:
            headers.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": response.status, "headers": headers}
        if response.stream is not None:
            await send_stream(response, start, send, head=head)
            return
        await send(start)
        await send({"type": "http.response.body", "body": b"" if head else response.body})


@dataclass(slots=True)
class _Asked:
    """What is known of a request so far."""

    request: Request | None = None
    name: str = "none"
    leaving: Leaving | None = None


def _given(exchange: Exchange, response: Response, close: bool, head: bool) -> bool:
    """Give a whole answer at once, where the client takes it."""
    return exchange.answer(
        response.status, response.content_type, response.headers, response.body, close=close, head=head
    )


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
