"""HTTP/1.1 to one upstream on the event loop: pooled connections on httptools, over TCP or a Unix socket."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mainspring.lazy import lazy
from mainspring.ports.llm import Error
from mainspring.ports.trace import CURRENT
from mainspring.upstream.faults import BrokenError, crashed, late
from mainspring.upstream.reply import PlainReply

if TYPE_CHECKING:
    import httptools
else:
    httptools = lazy("httptools")

__all__ = ["Client", "Place", "place_of", "sendable"]

_IDLE_SECONDS = 60.0
_MOST_HEADERS = 64 << 10


@dataclass(frozen=True, slots=True)
class Place:
    """Where an upstream is, and what every request to it carries.

    Attributes:
        host: name or address.
        port: TCP port.
        socket: path of a Unix socket, instead of both; empty for TCP.
        tls: whether to speak TLS.
        path: prefix of every path, without a slash at its end.
        query: what is appended to every path: ``api-version=2026-05-01``.
        headers: of every request; may hold the key, so it is not shown.
        connect: seconds a connection may take.
        idle: most connections that are kept for later.
    """

    host: str = "localhost"
    port: int = 80
    socket: str = ""
    tls: bool = False
    path: str = ""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect: float = 5.0
    idle: int = 64

    def target(self, path: str) -> str:
        """The request target for a path below the prefix; one that begins with ``//`` is from the root."""
        whole = path[1:] if path.startswith("//") else self.path + path
        if not self.query:
            return whole
        return f"{whole}{'&' if '?' in whole else '?'}{self.query}"

    @property
    def authority(self) -> str:
        """What the ``Host`` header says."""
        if self.port == (443 if self.tls else 80):
            return self.host
        return f"{self.host}:{self.port}"


def place_of(url: str, **more: object) -> Place:
    """The place that an ``http`` or ``https`` URL names.

    Raises:
        ValueError: it is no such URL, or it holds a user's name, a query or a fragment.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it is no http or https URL")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("it may hold neither a user's name nor a query")
    tls = parts.scheme == "https"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = parts.port or (443 if tls else 80)
    return Place(host=host, port=port, tls=tls, path=parts.path.rstrip("/"), **more)  # type: ignore[arg-type]


def sendable(text: str) -> bool:
    """Whether a text may stand in a header: Latin-1 without line ends and other controls."""
    return all(" " <= sign <= "\u00ff" and sign != "\u007f" for sign in text)


class _Connection(asyncio.Protocol):
    """One connection, with one exchange at a time."""

    __slots__ = (
        "_again",
        "_head_size",
        "_parser",
        "_reply",
        "_reused",
        "_to_end",
        "_transport",
        "client",
        "loop",
        "parked",
    )

    def __init__(self, client: Client) -> None:
        self.client = client
        self.loop = asyncio.get_running_loop()
        self.parked = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._reply: PlainReply | None = None
        self._again: Callable[[], None] | None = None
        self._reused = False
        self._head_size = 0
        self._to_end = False

    @property
    def alive(self) -> bool:
        """Whether a request may be sent over it."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and self.loop is asyncio.get_running_loop()

    def begin(self, reply: PlainReply, data: bytes, again: Callable[[], None] | None) -> None:
        """Send a request; `again` is called instead of a failure if the connection turns out to be dead already."""
        assert self._transport is not None
        self._reply, self._again = reply, again
        self._parser = httptools.HttpResponseParser(self)
        self._head_size, self._to_end = 0, False
        reply.attach(self)
        self._transport.write(data)

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    def abort(self) -> None:
        """Close at once."""
        self._reply = None
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.client.opened(self)

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        if reply is None or self._parser is None:
            self.abort()  # nobody has asked for anything
            return
        if reply.fresh:
            reply.fresh = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(BrokenError(Error("upstream", "the upstream's answer is no HTTP", retryable=True)))
            return
        if self._head_size > _MOST_HEADERS:
            self._fail(BrokenError(Error("upstream", "the upstream's headers are too large")))

    def connection_lost(self, error: Exception | None) -> None:
        self.client.forget(self)
        reply, self._reply, self._transport = self._reply, None, None
        if reply is None:
            return
        if reply.fresh and self._again is not None:
            self._again()
        elif reply.head_done and self._to_end and error is None:
            reply.finish()
        else:
            reply.fail(self.client.lost())

    def _fail(self, error: BrokenError) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.fail(error)
        if self._transport is not None:
            self._transport.abort()

    # -- httptools ----------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._reply is not None:
            self._reply.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        reply, parser = self._reply, self._parser
        if reply is None or parser is None:
            return
        status = parser.get_status_code()
        if status < 200:  # 100 Continue and its like are no answer
            reply.headers.clear()
            return
        reply.status = status
        self._to_end = "content-length" not in reply.headers and "chunked" not in reply.headers.get(
            "transfer-encoding", ""
        )
        reply.headed()

    def on_body(self, body: bytes) -> None:
        if self._reply is not None:
            self._reply.take(body)

    def on_message_complete(self) -> None:
        reply, parser = self._reply, self._parser
        if reply is None or parser is None or not reply.head_done:
            return
        keep = parser.should_keep_alive()
        self._reply = self._again = None
        reply.finish()
        if keep and not (self._transport is None or self._transport.is_closing()):
            self._transport.resume_reading()
            self.client.park(self)
        elif self._transport is not None:
            self._transport.close()


class Client:
    """Requests to one place. All on one event loop at a time; redirects are never followed.

    Args:
        place: where it is, with the headers of every request.
        lost: what a lost connection means; by default that the upstream hung up.
    """

    def __init__(self, place: Place, lost: Callable[[], BrokenError] = crashed) -> None:
        self.place = place
        self.lost = lost
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._headers = {"host": place.authority, **{k.lower(): v for k, v in place.headers.items()}}
        self._fixed = _lines(self._headers, {"accept": "*/*"})

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> PlainReply:
        """Send a request; its `PlainReply` comes at once and fills as the answer comes.

        Args:
            method: of HTTP.
            path: below the place's.
            body: whole; JSON where `headers` do not say what it is.
            headers: by lower-case name, and `sendable`; the place's own stay as they are.
        """
        length = "" if body is None else f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        trace = CURRENT.get()
        traced = "" if trace is None else f"traceparent: {trace.traceparent()}\r\n"
        fixed = self._fixed
        if headers is not None:
            fixed = _lines(self._headers, headers)
            length = "" if body is None else f"content-length: {len(body)}\r\n"
        data = f"{method} {self.place.target(path)} HTTP/1.1\r\n{fixed}{traced}{length}\r\n".encode("latin-1")
        data += body or b""
        reply = PlainReply()
        connection = self._parked()
        if connection is None:
            self._connect(reply, data)
        else:
            connection.begin(reply, data, lambda: self._connect(reply, data))
        return reply

    def _parked(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.alive and time.monotonic() - connection.parked < _IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    def _connect(self, reply: PlainReply, data: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._connected(reply, data))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        reply.on_close(functools.partial(_stop, task))

    async def _connected(self, reply: PlainReply, data: bytes) -> None:
        loop, place = asyncio.get_running_loop(), self.place
        connection = _Connection(self)
        try:
            async with asyncio.timeout(place.connect):
                if place.socket:
                    await loop.create_unix_connection(lambda: connection, place.socket)
                else:
                    await loop.create_connection(lambda: connection, place.host.strip("[]"), place.port)
        except TimeoutError:
            reply.fail(late("connecting to the upstream", place.connect))
            return
        except OSError:
            reply.fail(self.lost() if place.socket else crashed("the upstream cannot be reached"))
            return
        if reply.closed:
            connection.abort()
        else:
            connection.begin(reply, data, None)

    def park(self, connection: _Connection) -> None:
        """Keep a connection for the next request."""
        if len(self._idle) < self.place.idle:
            connection.parked = time.monotonic()
            self._idle.append(connection)
        else:
            connection.abort()

    def opened(self, connection: _Connection) -> None:
        """It stands."""
        self._open.add(connection)

    def forget(self, connection: _Connection) -> None:
        """It is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def aclose(self) -> None:
        """Close every connection."""
        for connection in list(self._open):
            connection.abort()
        for task in list(self._connecting):
            task.cancel()
        await asyncio.sleep(0)  # they are closed in the loop's next turn


def _lines(own: Mapping[str, str], further: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in {**further, **own}.items())


def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
