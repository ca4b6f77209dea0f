"""Clients of gRPC that mean ill, by frames of HTTP/2 (RFC 9113) written by hand: refused, and nobody else suffers."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from mainspring.protocols.grpc.service import GrpcCall, GrpcService
from mainspring.server.grpc.host import GrpcHost, GrpcLimits
from unit.server.test_grpc_compression import SCHEMA, both, many, once

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
DATA, HEADERS, RESET, GOAWAY, CONTINUATION = 0, 1, 3, 7, 9
END_STREAM, END_HEADERS = 1, 4
GRPC = (
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/test.Test/Both"), (b":authority", b"x"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers"),
)  # fmt: skip
Test = Callable[[int], Awaitable[None]]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes, *, kept: bool = False) -> bytes:
    """A field as HPACK writes it (RFC 7541, section 6.2), kept in the table or not."""
    return bytes([0x40 if kept else 0]) + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    size, head = len(text), bytearray()
    if size < 127:
        return bytes([size]) + text
    head.append(127)
    size -= 127
    while size >= 128:
        head.append(size % 128 + 128)
        size //= 128
    head.append(size)
    return bytes(head) + text


def fields() -> bytes:
    return b"".join(literal(name, value) for name, value in GRPC)


def run(test: Test, megabytes: int = 64) -> list[tuple[str, str]]:
    """Run a test against a host, which may not grow by more than that, and answers others meanwhile.

    Returns:
        Calls that ended, and with what; of ``Both`` also "a message" for each that reached it.
    """
    ended: list[tuple[str, str]] = []

    async def noted(asked: AsyncIterator[Any], call: GrpcCall) -> AsyncIterator[Any]:
        async for answer in both(asked, call):
            ended.append(("Both", "a message"))
            yield answer

    async def main() -> None:
        host = GrpcHost(
            [GrpcService("test.Test", SCHEMA, {"Once": once, "Many": many, "Both": noted})],
            GrpcLimits(1 << 20, 100, 30.0),
            lambda request: None,
            lambda path, code, seconds: ended.append((path.rpartition("/")[2], code)),
            lambda error: None,
        )
        port = await host.start("127.0.0.1", 0)
        try:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await test(port)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                assert await channel.unary_unary("/test.Test/Once")(b"") == b""  # others are answered
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes * 1024
            end = asyncio.get_running_loop().time() + 30
            while host.open:
                assert asyncio.get_running_loop().time() < end, "a call is left behind"
                await asyncio.sleep(0.02)
        finally:
            await host.stop(5)

    asyncio.run(main())
    return ended


async def said(reader: asyncio.StreamReader, *kinds: int) -> int:
    """The first frame of some kinds, or that the connection has ended: -1."""
    try:
        while True:
            head = await asyncio.wait_for(reader.readexactly(9), 60)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] in kinds:
                return head[3]
    except (asyncio.IncompleteReadError, ConnectionError):
        return -1


async def sent(port: int, data: bytes) -> int:
    """What is answered to bytes: a reset, a farewell, an end, or trailers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(PREFACE + data)
        return await said(reader, RESET, GOAWAY, HEADERS)
    finally:
        writer.close()


def test_a_header_bomb_costs_no_memory() -> None:
    """4 kB that are kept in the table, and then named 4,000 times: 16 MB of headers in 8 kB."""

    async def test(port: int) -> None:
        bomb = fields() + literal(b"x-bomb", bytes([97]) * 3900, kept=True) + bytes([0x80 | 62]) * 4000
        for _ in range(5):
            assert await sent(port, frame(HEADERS, END_HEADERS, 1, bomb)) in (RESET, GOAWAY, HEADERS, -1)

    assert all(code != "OK" for name, code in run(test) if name == "Both")


def test_headers_that_never_end_take_no_memory_and_hold_nobody_up() -> None:
    """They are dropped as they come, or the connection is ended; what is read and not yet looked at is bounded.

    grpcio reads in larger pieces when it comes to them late, so that a loaded machine sees up to 100 MB of them.
    """

    async def test(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + frame(HEADERS, 0, 1, fields()))
        part = frame(CONTINUATION, 0, 1, literal(b"x-more", bytes([97]) * 8000))
        try:
            for _ in range(50_000):  # 400 MB
                writer.write(part)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    run(test, megabytes=200)


START = frame(HEADERS, END_HEADERS, 1, fields())
MESSAGE = bytes([0]) + (2).to_bytes(4, "big") + b"\x08\x01"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(4, 0, 0, bytes(5)), id="settings of five bytes"),
        pytest.param(frame(4, 1, 0, bytes(6)), id="settings that acknowledge and say something"),
        pytest.param(frame(4, 0, 0, bytes([0, 4, 255, 255, 255, 255])), id="a window beyond 2^31"),
        pytest.param(frame(6, 0, 0, bytes(7)), id="a ping of seven bytes"),
        pytest.param(frame(8, 0, 0, bytes(3)), id="a window update of three bytes"),
        pytest.param(frame(HEADERS, END_HEADERS, 0, fields()), id="headers of no stream"),
        pytest.param(frame(HEADERS, END_HEADERS, 2, fields()), id="headers of a server's stream"),
        pytest.param(frame(DATA, 0, 0, MESSAGE), id="data of no stream"),
        pytest.param(frame(CONTINUATION, END_HEADERS, 1, fields()), id="a continuation of nothing"),
        pytest.param(frame(HEADERS, 0, 1, fields()) + frame(DATA, 0, 1, MESSAGE), id="data amid headers"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, bytes([0x80])), id="a field of no index"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, bytes([0x3F]) + bytes([0xFF]) * 9), id="a number that never ends"),
        pytest.param(frame(HEADERS, END_HEADERS, 1, bytes([0, 0x7F, 0xFF])), id="a name that is cut off"),
        pytest.param(frame(HEADERS, END_HEADERS | 8, 1, bytes([255]) + fields()), id="more padding than frame"),
        pytest.param(START + frame(DATA, 8, 1, bytes([200]) + MESSAGE), id="more padding than data"),
        pytest.param(START + frame(RESET, 0, 1, bytes(3)), id="a reset of three bytes"),
        pytest.param(START + (0xFFFFFF).to_bytes(3, "big") + bytes([DATA, 0, 0, 0, 0, 1]), id="a frame of 16 MB"),
        pytest.param(START + frame(DATA, END_STREAM, 1, bytes([0, 255, 255, 255, 255])), id="a message of 4 GB"),
        pytest.param(START + frame(DATA, END_STREAM, 1, bytes([1]) + MESSAGE[1:]), id="compressed by nothing"),
        pytest.param(START + frame(DATA, END_STREAM, 1, bytes([9]) + MESSAGE[1:]), id="a flag that is none"),
        pytest.param(START + frame(DATA, END_STREAM, 1, bytes([0, 0, 0, 0, 9]) + b"x"), id="less than was said"),
        pytest.param(START + START, id="a stream twice"),
    ],
)
def test_frames_that_lie_end_their_stream_or_their_connection(data: bytes) -> None:
    """`run` looks at the memory, asks meanwhile, and at the end at what is still open."""

    async def test(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + data)
        writer.write_eof()
        while (kind := await said(reader, RESET, GOAWAY, HEADERS, DATA)) != -1:
            assert kind != DATA, "nothing of it is answered as if it were a message"
        writer.close()

    # One that is read as no message ends the stream of those that came: what its handler says then, nobody is sent.
    assert ("Both", "a message") not in run(test)


def test_metadata_beyond_the_limit_is_refused() -> None:
    async def test(port: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/test.Test/Once")(b"", metadata=(("x-much", "a" * 100_000),))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    run(test)


def test_a_stream_that_is_half_closed_in_the_middle_of_a_message_ends() -> None:
    """Five of a message's hundred bytes, and no more: the call is over, and holds nothing."""

    async def test(port: int) -> None:
        begun = bytes([0]) + (100).to_bytes(4, "big") + b"\x0a\x62abc"
        data = frame(HEADERS, END_HEADERS, 1, fields()) + frame(DATA, END_STREAM, 1, begun)
        assert await sent(port, data) in (RESET, HEADERS, GOAWAY)

    run(test)


def test_a_client_that_vanishes_in_the_middle_of_a_stream_leaves_nothing() -> None:
    async def test(port: int) -> None:
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(PREFACE + frame(HEADERS, END_HEADERS, 1, fields()) + frame(DATA, 0, 1, bytes([0, 0, 0, 0, 0])))
            await writer.drain()
            writer.transport.abort()

    run(test)


def test_streams_that_are_begun_and_reset_again_and_again_are_cut_off_or_cost_nothing() -> None:
    """Rapid reset (CVE-2023-44487)."""

    async def test(port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head, reset = fields(), (8).to_bytes(4, "big")
        writer.write(PREFACE)
        for number in range(1, 6001, 2):
            writer.write(frame(HEADERS, END_HEADERS, number, head) + frame(RESET, 0, number, reset))
            if number % 401 == 1:
                await writer.drain()
        writer.close()

    run(test)


@pytest.mark.parametrize(
    "part",
    [literal(b"x-more", b"a" * 8000), literal(b"a", b"") * 4000, bytes([0x82]) * 16_000, bytes([0x80 | 62]) * 16_000],
    ids=["long", "short", "indexed", "bomb"],
)
def test_a_byte_of_headers_that_never_end_costs_less_than_a_byte_of_honest_calls(part: bytes) -> None:
    """grpcio has no bound on them in time or number: a flood of them is to be no better weapon than calls are."""

    async def test(port: int) -> None:
        spent = time.process_time()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/test.Test/Once")
            for _ in range(300):
                await call(b"")
        honest = (time.process_time() - spent) / (300 * len(fields()))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        begin = fields() + literal(b"x-bomb", b"a" * 3900, kept=True)
        writer.write(PREFACE + frame(HEADERS, 0, 1, begin))
        spent, flood = time.process_time(), frame(CONTINUATION, 0, 1, part)
        for _ in range(4_000_000 // len(flood)):
            writer.write(flood)
            await writer.drain()
        assert (time.process_time() - spent) / 4_000_000 < honest
        writer.close()

    run(test, megabytes=200)


def test_empty_parts_of_headers_end_the_connection() -> None:
    async def test(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + frame(HEADERS, 0, 1, fields()) + frame(CONTINUATION, 0, 1, b"") * 1000)
        assert await said(reader) == -1
        writer.close()

    run(test)
