"""ASGI to the seam: bodies read within limits, responses written, every request counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from mainspring.ports.trace import Trace
from mainspring.protocols.http import (
    Bears,
    Errors,
    Fault,
    NotAllowed,
    Request,
    Response,
    Route,
    Router,
    check_once,
    error_response,
)
from mainspring.server.http.cors import Cors
from mainspring.server.http.deadlines import Deadline, Deadlines
from mainspring.server.http.exchange import Exchange
from mainspring.server.http.messages import Messages, Receive, Send
from mainspring.server.http.streams import Leaving, Leavings, leaving_of, send_stream
from mainspring.serving.calls import Rejected
from mainspring.serving.together import Turn
from mainspring.serving.tracing import Tracing

__all__ = ["AsgiApp", "Limits", "Listener"]

Scope = MutableMapping[str, Any]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Watch = Callable[[Request | None, str, int, float, int], None]

_TEXT = b"content-type"
_LENGTH = b"content-length"
_BODILESS = frozenset({204, 304})
_NO_ROUTE = "none"
_PREFLIGHT = "preflight"
_NOWHERE = frozenset({_NO_ROUTE, _PREFLIGHT})
"""What requests are called that come to no route."""
_PROBES = frozenset({"live", "server_ready", "ping", "alive"})
"""Routes that platforms ask every few seconds: they become no spans."""
_FAILED = 500
"""The least status of a request that has failed by our fault."""
_LEFT = 499
"""The status under which a request is counted whose client left before its answer was whole."""


class Limits(msgspec.Struct, frozen=True):
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
        cors: which pages of other sites may ask; None is none.
        watch: told of every finished request: the request, its route's name, the status, seconds.
        on_error: told of unexpected exceptions.
        tracing: makes spans of requests; None makes none.
        turn: of the event loop; it is told of every request.
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
        cors: Cors | None = None,
        watch: Watch | None = None,
        on_error: Callable[[Exception], None] | None = None,
        tracing: Tracing | None = None,
        turn: Turn | None = None,
    ) -> None:
        self.turn = turn or Turn()
        self._tracing = tracing
        self._router = router
        self._limits = limits
        self._mounts = sorted(mounts, key=lambda mount: -len(mount[0]))
        self._owned = owned
        self._changed = changed
        self._guard = guard
        self._cors = cors
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
        """Answer one ASGI connection scope, of whatever host."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self.serve(Messages(scope, receive, send))

    async def serve(self, exchange: Exchange | Messages) -> None:
        """Answer one request."""
        self.turn.begun(exchange)
        self.open += 1
        asked = _Asked(time.perf_counter())
        try:
            if self._mounts and (app := self._mounted(exchange.method, exchange.path)) is not None:
                await self._pass_on(app, exchange)
                return
            try:
                route = self._found(exchange, asked)
                body = exchange.whole_body()
                if body is None:
                    body = await self._body(asked.headers, exchange.receive)
                response = await route.handler(self._begun(exchange, asked, route, body))
            except BaseException as error:
                response = self._failed(asked, error)
                if asked.request is None and asked.name not in _NOWHERE:
                    asked.request = _without_body(exchange, asked)
            if asked.trace is not None or self._cors is not None or asked.bears is not None:
                response = self._marked(asked, response)
            if response.stream is not None or not exchange.answer(response, close=self.draining):
                await self._write(response, exchange)
            status, sent = response.status, len(response.body)
        except asyncio.CancelledError:
            if not asked.left():
                raise
            status, sent = _LEFT, 0
        finally:
            self.open -= 1
            asked.end()
        self._told(asked, exchange.method, status, sent)

    def _found(self, exchange: Exchange | Messages, asked: _Asked) -> Route:
        """Who answers."""
        asked.headers = _headers(exchange)
        if self._cors is not None and (answer := self._cors.preflight(exchange.method, asked.headers)) is not None:
            asked.name = _PREFLIGHT
            raise _Answered(answer)
        route, asked.path, asked.stars = self._router.route(exchange.method, exchange.raw_path)
        asked.name, asked.errors, asked.bears = route.name, route.errors, route.bears
        if self._tracing is not None and route.name not in _PROBES:
            asked.trace = self._tracing.begin(asked.headers.get(b"traceparent"))
        exchange.taken, exchange.patient = True, not route.long
        return route

    def _marked(self, asked: _Asked, response: Response) -> Response:
        """An answer with what its wire's replies bear, which trace it belongs to, and which pages may read it."""
        if asked.bears is not None:
            response = asked.bears(asked.headers, response)
        if asked.trace is not None:
            passed_on = (b"traceresponse", asked.trace.traceparent().encode())
            response = msgspec.structs.replace(response, headers=(*response.headers, passed_on))
        if self._cors is not None and asked.name != _PREFLIGHT:
            response = self._cors.marked(asked.headers, response)
        return response

    def _told(self, asked: _Asked, method: str, status: int, sent: int) -> None:
        """A request is over: it is counted, and becomes a span, of no more names than there are routes."""
        if self._watch is not None:
            self._watch(asked.request, asked.name, status, time.perf_counter() - asked.started, sent)
        trace, tracing = asked.trace, self._tracing
        if trace is None or tracing is None:
            return
        facts: dict[str, object] = {
            "http.request.method": method,
            "http.route": asked.name,
            "http.response.status_code": status,
            "url.path": asked.path,
        }
        tracing.end(trace, f"{method} {asked.name}", facts, str(status) if status >= _FAILED else "")

    def _begun(self, exchange: Exchange | Messages, asked: _Asked, route: Route, body: bytes) -> Request:
        """The request, let in, and its time begun."""
        if len(body) > self._limits.body:
            raise self._too_large()
        asked.request = request = Request(
            exchange.method, asked.path, exchange.query, asked.headers, body, asked.stars, exchange.client
        )
        if self._guard is not None:
            self._guard(request)
        if not route.long:
            task = exchange.task if isinstance(exchange, Exchange) else None
            asked.deadline = self._deadlines.begin(self._limits.timeout, task)
            if route.asks and isinstance(exchange, Exchange):
                asked.leaving = leaving_of(exchange)
        elif isinstance(exchange, Messages):
            asked.leaving = self._leavings.watch(exchange.receive)
        else:
            asked.leaving = leaving_of(exchange)
        return request

    def _failed(self, asked: _Asked, error: BaseException) -> Response:
        """What is answered instead; a cancellation that is not for its time goes on."""
        if isinstance(error, asyncio.CancelledError) and asked.deadline is not None and asked.deadline.passed():
            return asked.errors(Fault(504, "the answer took too long"))
        if isinstance(error, _Answered):
            return error.response
        if isinstance(error, NotAllowed):
            asked.bears = error.route.bears
        if not isinstance(error, Exception):
            raise error
        if self._on_error is not None and not isinstance(error, (Fault, Rejected)):
            self._on_error(error)
        return asked.errors(error)

    def _mounted(self, method: str, path: str) -> AsgiApp | None:
        """The application that owns a path."""
        if self._owned and path.startswith(self._owned):
            return None
        if self._changed and method not in ("GET", "HEAD") and path.startswith(self._changed):
            return None
        return next((app for prefix, app in self._mounts if path.startswith(prefix)), None)

    async def _pass_on(self, app: AsgiApp, exchange: Exchange | Messages) -> None:
        """Let another application answer what the guard lets through."""
        exchange.taken = True

        async def closing(message: MutableMapping[str, Any]) -> None:
            if self.draining and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await exchange.send(message)

        try:
            if self._guard is not None:
                headers = _headers(exchange)
                self._guard(Request(exchange.method, exchange.path, exchange.query, headers, b""))
        except Fault as fault:
            await self._write(error_response(fault), exchange)
            return
        await app(exchange.scope, exchange.receive, closing)

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        declared = headers.get(_LENGTH)
        if declared is not None and int(declared) > self._limits.body:
            raise self._too_large()
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Fault(_LEFT, "the client left")
        body: bytes = message.get("body", b"")
        parts, size = [body], len(body)
        while message.get("more_body") and size <= self._limits.body:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Fault(_LEFT, "the client left")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        if size > self._limits.body:
            raise self._too_large()
        return b"".join(parts)  # of one part it is that part, and no copy

    def _too_large(self) -> Fault:
        return Fault(413, f"the body is larger than {self._limits.body} bytes")

    async def _write(self, response: Response, exchange: Exchange | Messages) -> None:
        headers = [*response.headers]
        if response.status not in _BODILESS:
            headers.append((_TEXT, response.content_type))
            if response.stream is None:
                headers.append((_LENGTH, b"%d" % len(response.body)))
        if self.draining:
            headers.append((b"connection", b"close"))
        start = {"type": "http.response.start", "status": response.status, "headers": headers}
        if response.stream is not None:
            await send_stream(response, start, exchange)
            return
        await exchange.send(start)
        body = b"" if exchange.method == "HEAD" else response.body
        await exchange.send({"type": "http.response.body", "body": body})


def _headers(exchange: Exchange | Messages) -> dict[bytes, bytes]:
    """The headers by their names; of one that is there twice the last, where that is harmless.

    Raises:
        Fault: 400, it is not.
    """
    given = exchange.headers
    found = dict(given)
    if len(found) != len(given):
        check_once(name for name, _ in given)
    return found


def _without_body(exchange: Exchange | Messages, asked: _Asked) -> Request:
    """A request that came to a route and whose body was not taken, as it is counted."""
    return Request(exchange.method, asked.path, exchange.query, asked.headers, b"", asked.stars, exchange.client)


class _Answered(Exception):  # noqa: N818 - it is an answer
    """Ends a request before anybody is asked for it."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class _Asked:
    """What is known of a request so far."""

    __slots__ = (
        "bears", "deadline", "errors", "headers", "leaving", "name", "path", "request", "stars", "started", "trace",
    )  # fmt: skip

    headers: dict[bytes, bytes]
    path: str
    stars: tuple[str, ...]

    def __init__(self, started: float) -> None:
        self.started = started
        self.request: Request | None = None
        self.headers = {}
        self.name = _NO_ROUTE
        self.errors: Errors = error_response
        self.bears: Bears | None = None
        self.deadline: Deadline | None = None
        self.leaving: Leaving | None = None
        self.trace: Trace | None = None

    def left(self) -> bool:
        """Whether the client has, and the task was cancelled for it."""
        return self.leaving is not None and self.leaving.happened

    def end(self) -> None:
        """Nobody has to look after it any more."""
        if self.deadline is not None:
            self.deadline.end()
        if self.leaving is not None:
            self.leaving.forget()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
