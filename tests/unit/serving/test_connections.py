"""Connections: their answers leave in one write where they can, and are those of uvicorn's own, however bytes come."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from mainspring.protocols.http import Response
from mainspring.server.http.bounds import Bounds
from mainspring.server.http.connections import Connection
from mainspring.server.http.exchange import Exchange

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from host_server import listener

HI = Response(200, b"hi", b"text/plain")
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that notes every write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def configured(app: Any) -> uvicorn.Config:
    """As `run_listeners` configures it."""
    return uvicorn.Config(
        app, lifespan="off", log_config=None, server_header=False, date_header=False, proxy_headers=False
    )


async def answered(
    app: Any, *requests: bytes, protocol: Callable[..., HttpToolsProtocol] = Connection, late: bool = False
) -> Wire:
    """What a connection writes that is sent these bytes; `late` lets it work between the parts."""
    config = configured(app)
    connection, wire = protocol(config, ServerState(), {}), Wire()
    connection.connection_made(wire)
    for request in requests or (REQUEST,):
        if not wire.closed:
            connection.data_received(request)
        if late:
            await asyncio.sleep(0)
    while connection.tasks:
        await asyncio.sleep(0.001 if late else 0)
    return wire


def start(length: int | None) -> dict[str, Any]:
    headers = [] if length is None else [(b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def test_a_head_and_its_body_are_one_write() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(2))
        await send({"type": "http.response.body", "body": b"hi"})

    assert asyncio.run(answered(app)).writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"]


def test_a_head_does_not_wait_for_a_body_that_is_late() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for part in (b"HTTP/1.1 is", b" a text"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert asyncio.run(answered(app)).writes == [head, b"b\r\nHTTP/1.1 is\r\n", b"7\r\n a text\r\n", b"0\r\n\r\n"]


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", b"no HTTP\r\n\r\n"])
def test_what_was_kept_is_sent_before_the_end(request_: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(0))
        await send({"type": "http.response.body", "body": b""})

    wire = asyncio.run(answered(app, request_))
    assert b"".join(wire.writes).startswith(b"HTTP/1.1 ")
    assert b"connection: close" in b"".join(wire.writes)
    assert wire.closed


def test_an_answer_that_is_whole_is_one_write_with_its_head() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange: Exchange = scope[Exchange.KEY]
        assert exchange.whole_body() == b"abc"
        assert exchange.answer(Response(200, b"hi", b"text/plain", ((b"x-a", b"b"),)))

    request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
    wire = asyncio.run(answered(app, request, request))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\nx-a: b\r\n\r\n"
    assert wire.writes == [head + b"hi"] * 2


def test_an_answer_is_given_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange: Exchange = scope[Exchange.KEY]
        exchange.answer(HI)
        with pytest.raises(RuntimeError, match="already"):
            exchange.answer(HI)

    assert len(asyncio.run(answered(app)).writes) == 1


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_that_would_end_its_line_is_refused(value: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(RuntimeError, match="line"):
            scope[Exchange.KEY].answer(Response(200, b"hi", b"text/plain", ((b"x-a", value),)))
        with pytest.raises(RuntimeError, match="line"):
            scope[Exchange.KEY].answer(Response(200, b"hi", value))
        scope[Exchange.KEY].answer(HI)

    assert asyncio.run(answered(app)).writes[0].endswith(b"\r\n\r\nhi")


def test_a_connection_too_many_is_told_so() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope[Exchange.KEY].answer(HI)

    async def scenario() -> list[Wire]:
        config = configured(app)
        state, wires = ServerState(), [Wire(), Wire(), Wire()]
        first, second, third = (Connection(config, state, {}, bounds=Bounds(1 << 20, connections=1)) for _ in wires)
        first.connection_made(wires[0])
        second.connection_made(wires[1])
        second.data_received(REQUEST)
        second.connection_lost(None)
        first.data_received(REQUEST)
        while state.tasks:
            await asyncio.sleep(0)
        first.connection_lost(None)
        third.connection_made(wires[2])
        return wires

    served, refused, later = asyncio.run(scenario())
    assert [write[:12] for write in served.writes] == [b"HTTP/1.1 200"]
    assert [write[:12] for write in refused.writes] == [b"HTTP/1.1 503"]
    assert refused.closed
    assert not later.closed  # the first one's place is free again


def test_no_more_connections_than_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 4096))
    assert Bounds(1).connections_at_most() == 896
    assert Bounds(1, connections=100).connections_at_most() == 100
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert Bounds(1).connections_at_most() == 8192


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("fault", [None, ValueError("no"), asyncio.CancelledError()])
def test_whoever_gives_no_answer_is_answered_for(
    begun: bool, fault: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    class Careless:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("a listener is given the exchange")

        async def serve(self, exchange: Exchange) -> None:
            if begun:
                await exchange.send(start(2))
                await asyncio.sleep(0.01)
            if fault is not None:
                raise fault

    wire = asyncio.run(answered(Careless(), late=True))
    written = b"".join(wire.writes)
    assert wire.closed
    assert written.startswith(b"HTTP/1.1 200" if begun else b"HTTP/1.1 500")
    assert b"Internal" not in written if begun else b"connection: close" in written
    assert "not answered" in caplog.text


# -- beside uvicorn's own ----------------------------------------------------------------------------------------------

token = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda text: f"x-{text}".encode())
value = st.binary(max_size=40).map(lambda data: bytes(byte for byte in data if byte > 32 and byte != 127))
segment = st.text("abc/%2F%20é?&=+;:@!$'()*,~_.-", max_size=12).map(lambda text: text.encode("ascii", "ignore"))
PATHS = [b"/echo", b"/echo/", b"/nothing", b"/mounted/x", b"/stream?short", b"/missing", b"/soon", b"/echo/%C3%A9/x"]


@st.composite
def one_request(draw: st.DrawFn) -> bytes:
    """A valid request, its body with a length or in chunks."""
    path = draw(st.one_of(st.sampled_from(PATHS), segment.map(lambda text: b"/echo/" + text.replace(b"%", b"%25"))))
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS"]))
    headers = dict(draw(st.lists(st.tuples(token, value), max_size=6)))
    head = b"%s %s HTTP/1.1\r\nHost: x\r\n" % (method, path)
    head += b"".join(b"%s: %s\r\n" % header for header in headers.items())
    if draw(st.booleans()):
        head += b"Expect: 100-continue\r\n"
    body = draw(st.binary(max_size=200))
    if draw(st.booleans()):
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if not body or draw(st.booleans()):
        return head + b"\r\n"
    chunks = draw(st.lists(st.integers(0, len(body)), max_size=5).map(sorted))
    ends = [*chunks, len(body)]
    parts = [body[begin:end] for begin, end in zip([0, *chunks], ends, strict=True) if end > begin]
    sent = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + sent + b"0\r\n\r\n"


def split(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Bytes in parts that end at these places."""
    ends = [*sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False) if end > begin]


def read(written: bytes) -> list[tuple[bytes, dict[bytes, bytes], bytes]]:
    """Answers as what they mean: first line, headers, body."""
    found = []
    while written:
        head, _, written = written.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        if first.endswith(b"100 Continue"):  # whoever has sent its body already need not be told
            continue
        headers = dict(line.split(b": ", 1) for line in lines)
        body = b""
        if headers.get(b"transfer-encoding") == b"chunked":
            while True:
                size, _, written = written.partition(b"\r\n")
                body, written = body + written[: int(size, 16)], written[int(size, 16) + 2 :]
                if not int(size, 16):
                    break
        elif not written.startswith(b"HTTP/1.1 "):
            length = int(headers.get(b"content-length", b"0"))
            body, written = written[:length], written[length:]
        found.append((first, headers, body))
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(one_request(), min_size=1, max_size=5), st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_answers_are_those_of_uvicorn_however_the_bytes_come(
    requests: list[bytes], places: list[int], late: bool
) -> None:
    if b"Expect: " in b"".join(requests):  # who is answered before its body has come may never send it: ours closes
        places = []

    async def both() -> tuple[Wire, Wire]:
        whole = b"".join(requests)
        ours = answered(listener(), *split(whole, places), late=late)
        return await ours, await answered(listener(), whole, protocol=HttpToolsProtocol)

    ours, theirs = asyncio.run(both())
    found = read(b"".join(ours.writes))
    assert found == read(b"".join(theirs.writes))
    assert len(found) == len(requests)
    assert ours.closed == theirs.closed
