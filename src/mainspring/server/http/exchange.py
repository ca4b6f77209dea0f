"""A request and its answer on a connection: uvicorn's cycle, with a short way for bodies and answers that are whole."""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from mainspring.protocols.http import Response

__all__ = ["Exchange", "Joining", "Line"]

_LOGGER = logging.getLogger("uvicorn.error")
_SMALL = 16_384
"""Bodies up to this size are copied behind their head; longer ones are handed to the transport beside it."""
_BODILESS = frozenset({204, 304})
_TOO_LARGE = 413
_STARTS: dict[tuple[int, bytes], bytes] = {}
"""The first lines of answers by status and content type, up to the length."""
_MOST_STARTS = 256


class Joining:
    """A transport that keeps a response's head until its body's first part is there, at most to the loop's next turn.

    Each write is a system call, and wakes the client up.

    Args:
        transport: of the connection.
        loop: the running loop.
    """

    __slots__ = ("_head", "_loop", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send bytes, or keep them when they are a head."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self.let_go)
            return
        self._transport.write(data)

    def write_now(self, data: bytes, body: bytes = b"") -> None:
        """Send bytes, and a long body behind them that is not copied; nothing is kept."""
        if self._head:
            data, self._head = self._head + data, b""
        if body:
            self._transport.writelines((data, body))
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close when everything is sent."""
        self.let_go()
        self._transport.close()

    def let_go(self) -> None:
        """Send what is kept."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Line(Protocol):
    """The connection of an exchange, as far as it knows it."""

    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: Any
    asgi_version: Any
    tasks: set[asyncio.Task[None]]

    def on_response_complete(self) -> None:
        """The answer is whole."""

    def linger(self) -> None:
        """Close, when the client has had the time to read what was said."""

    def fail(self, exchange: Exchange, error: BaseException | None) -> None:
        """Whoever answers has ended without a whole answer."""


class Exchange(RequestResponseCycle):
    """One request and its answer.

    A listener that is given one may take a body that has come whole, and give an answer that is whole, without a
    message and a turn of the loop for each. Everything else goes by the messages of ASGI: `scope`, `receive`, `send`.

    Args:
        line: the connection.
        transport: where answers are written.
        flow: whether the client takes more.
        version: of HTTP.
        method: upper case.
        target: path and query, as they were sent.
        headers: names in lower case.
        keep_alive: whether the client may ask again.
        expects: whether it waits for ``100 Continue`` before it sends its body.

    Attributes:
        raw_path: as it was sent.
        query: of the target.
        left: called when the client closes the connection before its answer is whole; None where nobody wants to know.
        task: in which it is answered.
        taken: whether somebody answers it.
        patient: whether it is answered although the client has closed its side.
    """

    KEY = "mainspring.exchange"
    """Where applications of ASGI find it in their scope."""

    logger = _LOGGER
    access_logger = _LOGGER
    access_log = False
    default_headers: list[tuple[bytes, bytes]] = []  # noqa: RUF012 - uvicorn's own, and never changed
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    left: Callable[[], None] | None = None
    task: asyncio.Task[None] | None = None
    taken = False
    patient = False
    _open_ended = False
    _come = False
    _event: asyncio.Event | None = None
    _scope: dict[str, Any] | None = None

    def __init__(
        self,
        line: Line,
        transport: Joining,
        flow: FlowControl,
        version: str,
        method: str,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        keep_alive: bool,
        expects: bool,
    ) -> None:
        self.line = line
        self.transport = transport  # type: ignore[assignment]
        self.flow = flow
        self.version = version
        self.method = method
        self.headers = headers
        if target[:1] == b"/" and b"#" not in target:
            self.raw_path, _, self.query = target.partition(b"?")
        else:
            parsed = httptools.parse_url(target)
            if parsed.schema is not None and parsed.schema.lower() not in (b"http", b"https"):
                raise ValueError("a target of another scheme")  # refused with 400, as what is no target at all
            self.raw_path, self.query = parsed.path or b"/", parsed.query or b""
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects
        self.body = bytearray()

    @property
    def client(self) -> str:
        """The peer's address, for logs."""
        return self.line.client[0] if self.line.client else ""

    @property
    def path(self) -> str:
        """The decoded path."""
        path = self.raw_path.decode("ascii")
        return urllib.parse.unquote(path) if "%" in path else path

    @property
    def scope(self) -> dict[str, Any]:  # type: ignore[override]
        """What ASGI tells of it."""
        if self._scope is None:
            line = self.line
            self._scope = {
                "type": "http",
                "asgi": {"version": line.asgi_version, "spec_version": "2.3"},
                "http_version": self.version,
                "server": line.server,
                "client": line.client,
                "scheme": line.scheme,
                "root_path": "",
                "headers": self.headers,
                "state": {},
                "method": self.method,
                "path": self.path,
                "raw_path": self.raw_path,
                "query_string": self.query,
                Exchange.KEY: self,
            }
        return self._scope

    # -- the event that something has come, which is seldom waited for -------------------------------------------------

    @property
    def message_event(self) -> Exchange:  # type: ignore[override]
        """The event of uvicorn's cycle: itself."""
        return self

    def set(self) -> None:
        """Something has come: whoever waits for it goes on."""
        self._come = True
        if self._event is not None:
            self._event.set()

    def clear(self) -> None:
        """It is taken."""
        self._come = False
        if self._event is not None:
            self._event.clear()

    async def wait(self) -> None:
        """Wait until something has come."""
        if self._come:
            return
        if self._event is None:
            self._event = asyncio.Event()
        await self._event.wait()

    # -- uvicorn's calls -----------------------------------------------------------------------------------------------

    def on_response(self) -> None:
        """The answer is whole."""
        self.line.on_response_complete()

    def done(self, task: asyncio.Task[None]) -> None:
        """Whoever answers has ended."""
        self.line.tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not self.response_complete and not self.disconnected:
            self.line.fail(self, error)

    # -- what is whole -------------------------------------------------------------------------------------------------

    def whole_body(self) -> bytes | None:
        """The body, where all of it has come; None where it has to be waited for."""
        if self.more_body or self.disconnected:
            return None
        body, self.body = bytes(self.body), bytearray()
        self._come = False
        return body

    def answer(self, response: Response, *, close: bool = False) -> bool:
        """Send a whole answer at once; False where the client takes no more now, and it has to be sent in messages.

        Args:
            response: no stream; ``content-length`` and ``connection`` are not among its headers.
            close: whether the connection is closed behind it.

        Raises:
            RuntimeError: a header would end its line, or there is an answer already.
        """
        if self.response_started:
            raise RuntimeError("there is an answer already")
        if self.disconnected:
            return True
        if self.flow.write_paused:
            return False
        written, body = _written(response)
        unread = self.more_body and (self.waiting_for_100_continue or response.status == _TOO_LARGE)
        if close or unread:  # what comes of a body that nobody wants is read on, within its bounds, but not of these
            self.keep_alive = False
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        if self.method == "HEAD":
            body = b""
        if len(body) <= _SMALL:
            self.transport.write_now(b"".join((written, end, body)))  # type: ignore[attr-defined]
        else:
            self.transport.write_now(written + end, body)  # type: ignore[attr-defined]
        if self._event is not None:
            self._event.set()
        if unread:
            self.line.linger()
        elif not self.keep_alive:
            self.transport.close()
        self.line.on_response_complete()
        return True

    def part(self, data: bytes) -> bool:
        """Send the next part of an answer in chunks; False where the client takes no more now, as `answer`."""
        if self.disconnected or not data:
            return True
        if self.flow.write_paused or not self.chunked_encoding or self.method == "HEAD":
            return False
        self.transport.write_now(b"%x\r\n%b\r\n" % (len(data), data))  # type: ignore[attr-defined]
        return True

    async def receive(self) -> Any:
        """The next of ASGI's messages."""
        return await super().receive()

    async def send(self, message: Any) -> None:
        """Send one of ASGI's messages; to a client of HTTP/1.0 a body without length ends with the connection."""
        if self.response_started and not self._open_ended:
            await super().send(message)
            return
        if self.version != "1.0" or (
            not self._open_ended and any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
        ):
            await super().send(message)
            return
        await self._send_until_close(message)

    async def _send_until_close(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected or self.response_complete:
            return
        if not self.response_started:
            self.response_started = self._open_ended = True
            self.waiting_for_100_continue = self.keep_alive = False
            headers = [header for header in message.get("headers", ()) if header[0].lower() != b"connection"]
            self.transport.write_now(  # type: ignore[attr-defined]
                STATUS_LINE[message["status"]] + _lines(headers) + b"connection: close\r\n\r\n"
            )
            return
        if message.get("body") and self.method != "HEAD":
            self.transport.write_now(  # type: ignore[attr-defined]
                message["body"]
            )
        if not message.get("more_body", False):
            self.response_complete = True
            self.message_event.set()
            self.transport.close()
            self.on_response()


def _written(response: Response) -> tuple[bytes, bytes]:
    """An answer's head without its end, and its body."""
    status, body = response.status, response.body
    if status in _BODILESS:
        return STATUS_LINE[status] + _lines(response.headers), b""
    start = _STARTS.get((status, response.content_type)) or _start(status, response.content_type)
    return b"%s%d\r\n%s" % (start, len(body), _lines(response.headers)), body


def _start(status: int, content_type: bytes) -> bytes:
    found = STATUS_LINE[status] + _lines(((b"content-type", content_type),)) + b"content-length: "
    if len(_STARTS) < _MOST_STARTS:
        _STARTS[status, content_type] = found
    return found


def _lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are written, each one on a line of its own."""
    if not headers:
        return b""
    written = [b": ".join(header) for header in headers]
    lines = len(written)
    written.append(b"")
    found = b"\r\n".join(written)
    if found.count(b"\n") != lines or found.count(b"\r") != lines or b"\0" in found:
        raise RuntimeError("a header would end its line")
    return found
