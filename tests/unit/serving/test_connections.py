"""The head of a response leaves with its body where the body is there, and by itself at the loop's next turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from mainspring.server.http.connections import Connection

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

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def answered(app: Any, request: bytes = REQUEST) -> Wire:
    config = uvicorn.Config(app, lifespan="off", log_config=None, server_header=False, date_header=False)
    connection, wire = Connection(config, ServerState(), {}), Wire()
    connection.connection_made(wire)
    connection.data_received(request)
    while connection.tasks:
        await asyncio.sleep(0)
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
