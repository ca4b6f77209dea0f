"""HTTP/1.1 connections: uvicorn's, with bounds on what a client may take, and fewer steps between it and a handler."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mainspring.server.http.bounds import Bounds
from mainspring.server.http.exchange import Exchange, Joining
from mainspring.serving.together import Turn

__all__ = ["Connection", "look_after"]

_BOUNDS = Bounds(1 << 24)
_WATCHED = frozenset({b"host", b"transfer-encoding", b"expect"})
_HOST = re.compile(rb"(?:\[[\w:.%~-]*\]|[\w.~!$&'()*+,;=%-]*)(?::[0-9]*)?")
"""A host with its port (RFC 3986, section 3.2.2): names, addresses, and nothing that another server could read on."""
_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})
"""The headers by which a client offers another protocol."""
_VERSIONS = frozenset({"1.1", "1.0"})
_IDLE, _HEAD, _BODY = 0, 1, 2
_MANY = 256
"""Methods whose names are kept; there are not so many."""
_METHODS: dict[bytes, str] = {}

Refusal = tuple[int, bytes]
_BAD: Refusal = (400, b"Invalid HTTP request received.")

_PATIENCE_S = 0.1
"""How long a question is still answered whose client has closed its side of the connection."""


class _Refused(Exception):  # noqa: N818 - an outcome
    """Ends the reading of a request; httptools turns it into an error of its own."""


class Connection(HttpToolsProtocol):
    """A client's connection.

    What a client may take is bounded: `look` is called again and again by `look_after`, and ends what takes too long. A
    request that cannot be read is refused after those before it are answered, and the connection is closed.

    Args:
        config, server_state, app_state, _loop: uvicorn's.
        bounds: what the client may take.
    """

    cycle: Exchange

    def __init__(
        self,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        bounds: Bounds = _BOUNDS,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds = bounds
        self._serve: Callable[[Exchange], Coroutine[Any, Any, None]] | None = getattr(self.app, "serve", None)
        self._turn: Turn = getattr(self.app, "turn", None) or Turn()
        self._wire: asyncio.Transport
        self._now = self.loop.time
        self._phase = _IDLE
        self._since = self._now()
        self._received = 0
        self._chunk = self._slack = 0
        self._chunks = 0
        self._hosts = 0
        self._coding: bytes | None = None
        self._refusal: Refusal | None = None
        self._waiting: Refusal | None = None
        self._deaf = self._offers = False
        self._half = False
        self._ended = False
        self._running: Exchange | None = None
        self._closing_since = 0.0
        self._unread_since = 0.0
        self._unread = 0

    # -- the transport's calls -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        self._wire = transport
        super().connection_made(cast(asyncio.Transport, Joining(transport, self.loop)))
        if len(self.connections) > self._bounds.connections_at_most():
            self._say(503, b"Too many connections are open.")
            self._deaf = self._ended = True
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client, or this side, has closed it: whoever answers is told."""
        running = [self._running, *(cycle for cycle, _ in self.pipeline)]
        self.pipeline.clear()
        super().connection_lost(exc)
        for cycle in running:
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
                if cycle.left is not None:  # type: ignore[attr-defined]
                    cycle.left()  # type: ignore[attr-defined]

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: what it has asked is answered, unless that may take long or is not whole.

        Nobody can tell whether it still listens. A question that only its asker wants an answer to is given a moment.
        """
        self._half = True
        running = self._running
        if self._ended or running is None or running.response_complete or self._phase != _IDLE:
            return False
        if running.taken and running.patient and running.left is not None:
            self.loop.call_later(_PATIENCE_S, self._wait_no_more, running)
        return not running.taken or running.patient

    def _wait_no_more(self, cycle: Exchange) -> None:
        if not cycle.response_complete and not cycle.disconnected:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Read what has come."""
        size = len(data)
        if self._deaf:
            self._received += size
            if self._received > self._bounds.body:
                self._wire.abort()
            return
        if self._phase == _IDLE:
            self._phase, self._received, self._since = _HEAD, 0, self._now()
        else:
            self._received += size
            if self._received > (self._bounds.head if self._phase == _HEAD else self._bounds.body):
                self._end(self._too_large())
                return
        self._chunk = size
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_plainly(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._end(self._refusal or _BAD)

    def _read_plainly(self, rest: memoryview) -> None:
        """Read a request that would rather go on in another protocol as if it had not said so (RFC 9110, section 7.8).

        The parser stops behind such a head; Java's client sends one with a body, as it offers HTTP/2 by default. So the
        head is read anew without the offer, and then what is behind it.
        """
        while not self._deaf:
            head = self._without_offer()
            self._offers = False
            self.parser = _parser(self)
            self._chunk = len(head) + len(rest)
            try:
                self.parser.feed_data(head)
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            except httptools.HttpParserError:
                self._end(self._refusal or _BAD)

    def _without_offer(self) -> bytes:
        """The head of the request, without the headers that offer another protocol."""
        kept = [one for one in self.headers if one[0] not in _OFFER]
        told = b",".join(value.lower() for name, value in self.headers if name == b"connection")
        if b"close" in [token.strip() for token in told.split(b",")]:
            kept.append((b"connection", b"close"))
        first = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        return b"\r\n".join([first, *(b"%s: %s" % one for one in kept), b"", b""])

    # -- the parser's calls --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._phase = _HEAD
        self._received = self._hosts = self._chunks = 0
        self._slack = self._chunk
        self._coding = None
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind a body are thrown away."""
        if self._phase == _BODY:
            return
        name = name.lower()
        if name in _WATCHED:
            self._watch(name, value)
        self.headers.append((name, value))

    def _watch(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1 if _HOST.fullmatch(value) else 2
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        else:
            self._coding = value if self._coding is None else self._coding + b"," + value

    def on_headers_complete(self) -> None:
        """Begin to answer, or wait for those before it."""
        parser, headers = self.parser, self.headers
        if parser.should_upgrade() and parser.get_method() != b"CONNECT":
            self._offers = True
            return
        version, method = parser.get_http_version(), parser.get_method()
        self._check_head(version, method)
        self._phase, self._received, self._since = _BODY, 0, self._now()
        before = self.cycle
        cycle = self.cycle = Exchange(
            self,
            cast(Joining, self.transport),
            self.flow,
            version,
            _METHODS.get(method) or _method(method),
            self.url,
            headers,
            version != "1.0" and parser.should_keep_alive(),
            self.expect_100_continue,
        )
        if before is None or before.response_complete:
            self._start(cycle, self.app)
            return
        if len(self.pipeline) >= self._bounds.pipeline:
            self.cycle = before
            self._refusal = (429, b"Too many requests wait for their turn.")
            raise _Refused
        self.pipeline.appendleft((cycle, self.app))
        if 2 * len(self.pipeline) >= self._bounds.pipeline:  # until then it is seen that the client leaves
            self.flow.pause_reading()

    def _check_head(self, version: str, method: bytes) -> None:
        """Refuse what is too large, and what two servers could read in two ways (RFC 9112, sections 3.2 and 6.1)."""
        headers, bounds = self.headers, self._bounds
        if len(headers) > bounds.headers:
            self._refusal = (431, b"There are too many headers.")
        elif self._received + self._slack > bounds.head and _size(self.url, headers) > bounds.head:
            self._refusal = (431, b"The request's line and headers are too long.")
        elif version not in _VERSIONS:
            self._refusal = (505, b"Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        elif self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            self._refusal = (400, b"A request names one host, as RFC 3986 writes one.")
        elif self._coding is not None and (self._coding.strip().lower() != b"chunked" or version == "1.0"):
            self._refusal = (501, b"No such transfer coding is served.")
        elif method == b"CONNECT":
            self._refusal = (501, b"This is no proxy.")
        if self._refusal is not None:
            raise _Refused

    def on_chunk_header(self) -> None:
        """Count a chunk."""
        self._chunks += 1
        if self._chunks > self._bounds.chunks:
            self._refusal = (400, b"The body has too many chunks.")
            raise _Refused

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.set()

    def on_message_complete(self) -> None:
        """The request is here."""
        if self._offers:
            return
        self._phase = _IDLE
        self._since = self._now()
        cycle = self.cycle
        cycle.more_body = False
        if not cycle.response_complete:
            cycle.set()

    def _start(self, cycle: Exchange, app: Any) -> None:
        self._running = self._turn.last = cycle
        work = cycle.run_asgi(app) if self._serve is None else self._serve(cycle)
        task = cycle.task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(cycle.done)

    # -- ends ----------------------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Go on with the next request of the connection, if there is one."""
        self.server_state.total_requests += 1
        if self._ended or self._wire.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            if not self.pipeline:
                self.flow.resume_reading()
            self._start(cast(Exchange, cycle), app)
            return
        self.flow.resume_reading()
        if self._waiting is not None:
            self._refuse(*self._waiting)
        elif self._half:
            self.transport.close()
        elif self._phase == _IDLE:
            self._since = self._now()

    def _end(self, refusal: Refusal) -> None:
        """Read no further: refuse, now or when what came before is answered."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self._refuse(*refusal)
        elif not cycle.more_body:
            self._keep_for_later(refusal)
        elif self.pipeline:  # the body of one that waits for its turn
            self.pipeline.popleft()
            self._keep_for_later(refusal)
        elif cycle.response_started or self._running is not cycle:
            self._wire.abort()
        else:
            self._refuse(*refusal)
            self._give_up(cycle)

    def _keep_for_later(self, refusal: Refusal) -> None:
        self._waiting = refusal
        self._deaf = True
        self.flow.pause_reading()

    def fail(self, exchange: Exchange, error: BaseException | None) -> None:
        """Whoever answers has ended without a whole answer: a fault of ours."""
        self.logger.error("a request was not answered", exc_info=error)
        if self._running is not exchange or self._ended or self._wire.is_closing():
            return
        if exchange.response_started:
            self._wire.abort()  # so that nobody takes what was sent for all of it
        else:
            self._refuse(500, b"Internal Server Error")

    def _give_up(self, cycle: Exchange) -> None:
        """Whoever reads a body that does not end well is told as if the client had left."""
        cycle.disconnected = True
        cycle.set()

    def _too_large(self) -> Refusal:
        if self._phase == _HEAD:
            return 431, b"The request's line and headers are too long."
        return 413, b"The request's body is too long."

    def _refuse(self, status: int, text: bytes) -> None:
        """Say why, and close."""
        self._say(status, text)
        self.linger()

    def _say(self, status: int, text: bytes) -> None:
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text)
        cast(Joining, self.transport).write_now(STATUS_LINE[status] + head + text)

    def linger(self) -> None:
        """Close, when the client has had the time to read what was said: at once it would be reset under its hands."""
        self._deaf = self._ended = True
        self._received = 0
        self.flow.resume_reading()
        if self._half or not self._wire.can_write_eof():
            self.transport.close()
            return
        cast(Joining, self.transport).let_go()
        self._wire.write_eof()
        self._closing_since = self._now() - self._bounds.stall + self._bounds.lingering

    def look(self, now: float) -> None:
        """End what takes too long.

        Args:
            now: on the loop's clock, in seconds.
        """
        bounds, wire = self._bounds, self._wire
        if self._ended or wire.is_closing():
            self._closing_since = self._closing_since or now
            if now - self._closing_since > bounds.stall:
                wire.abort()
        elif self.flow.write_paused:
            self._look_at_reading(now)
        elif self._phase == _HEAD and not self._deaf:
            if now - self._since > bounds.stall:
                self._end((408, b"The request took too long to come."))
        elif self._phase == _BODY and not self._deaf:
            self._look_at_body(now)
        elif (self._running is None or self._running.response_complete) and now - self._since > bounds.idle:
            self.transport.close()
        if not self.flow.write_paused:
            self._unread_since = 0.0

    def _look_at_reading(self, now: float) -> None:
        """Whether the client reads its answer at all."""
        left = self._wire.get_write_buffer_size()
        if not self._unread_since:
            self._unread_since, self._unread = now, left
        elif now - self._unread_since > self._bounds.stall + max(self._unread - left, 0) / self._bounds.rate:
            self._wire.abort()

    def _look_at_body(self, now: float) -> None:
        """Whether the client goes on with its body; while nobody takes it, it is not at fault."""
        if self.flow.read_paused:
            self._since = max(self._since, now - self._bounds.stall / 2)
        elif now - self._since > self._bounds.stall + self._received / self._bounds.rate:
            self._end((408, b"The request's body took too long to come."))


def look_after(connections: Iterable[object], now: float) -> None:
    """Look at each connection of a server once.

    Args:
        connections: all that are open.
        now: on the loop's clock, in seconds.
    """
    for connection in list(connections):
        if isinstance(connection, Connection):
            connection.look(now)


def _size(url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _method(name: bytes) -> str:
    found = name.decode("ascii")
    if len(_METHODS) < _MANY:
        _METHODS[name] = found
    return found


def _parser(connection: Connection) -> httptools.HttpRequestParser:
    """A parser that is set as uvicorn sets its own."""
    parser = httptools.HttpRequestParser(connection)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
