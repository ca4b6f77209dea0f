"""Compressed messages of gRPC: taken within a bound, and answered in a coding that the client reads."""

from __future__ import annotations

import asyncio
import gzip
import resource
import zlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.protocols.grpc.compression import LEAST, plain
from mainspring.protocols.grpc.schema import ProtoFile, Schema
from mainspring.protocols.grpc.service import GrpcCall, GrpcService
from mainspring.protocols.http import Fault
from mainspring.protocols.oip import messages as oip
from mainspring.server.grpc.host import GrpcHost, GrpcLimits

TEXT = """
    message Asked { bytes data = 1; int64 last = 15; }
    message Answered { bytes data = 1; int64 last = 15; }
    service Test {
      rpc Once (Asked) returns (Answered);
      rpc Many (Asked) returns (stream Answered);
      rpc Both (stream Asked) returns (stream Answered);
    }
"""
SCHEMA = Schema(ProtoFile("test.proto", "test", TEXT))
ASKED, ANSWERED = SCHEMA.message("test.Asked"), SCHEMA.message("test.Answered")
MOST = 1 << 20
AS_SENT = ("grpc.per_message_decompression", 0)
"""Lets a client see an answer's bytes as they came."""


def reads(codings: int) -> tuple[str, int]:
    """What a client says that it reads: bit 1 is deflate, bit 2 gzip."""
    return "grpc.compression_enabled_algorithms_bitset", 1 | codings


async def once(asked: Any, call: GrpcCall) -> Any:
    return ANSWERED(data=asked.data, last=asked.last)


async def many(asked: Any, call: GrpcCall) -> AsyncIterator[Any]:
    for _ in range(3):
        yield ANSWERED(data=asked.data)


async def both(asked: AsyncIterator[Any], call: GrpcCall) -> AsyncIterator[Any]:
    async for message in asked:
        yield ANSWERED(data=message.data)


def run(test: Any) -> None:
    async def main() -> None:
        services = [GrpcService("test.Test", SCHEMA, {"Once": once, "Many": many, "Both": both})]
        limits = GrpcLimits(MOST, 100, 30.0)
        host = GrpcHost(services, limits, lambda request: None, lambda path, code, seconds: None, lambda error: None)
        port = await host.start("127.0.0.1", 0)
        try:
            await test(f"127.0.0.1:{port}")
        finally:
            await host.stop(5)
        assert host.open == 0

    asyncio.run(main())


@pytest.mark.parametrize("coding", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_message_is_read_in_every_coding(coding: grpc.Compression) -> None:
    async def test(address: str) -> None:
        async with grpc.aio.insecure_channel(address, compression=coding) as channel:
            asked = ASKED(data=b"the same" * 10_000, last=28)
            call = channel.unary_unary("/test.Test/Once", ASKED.SerializeToString, ANSWERED.FromString)
            assert await call(asked) == ANSWERED(data=asked.data, last=28)
            stream = channel.stream_stream("/test.Test/Both", ASKED.SerializeToString, ANSWERED.FromString)
            answers = stream(iter([asked, ASKED(), asked]))
            assert [len(found.data) async for found in answers] == [80_000, 0, 80_000]

    run(test)


@pytest.mark.parametrize(
    ("asked_in", "codings", "begins"),
    [
        (grpc.Compression.Gzip, 0b110, b"\x1f\x8b"),
        (grpc.Compression.Deflate, 0b010, b"\x78"),
        (grpc.Compression.Gzip, 0b100, b"\x1f\x8b"),
        (grpc.Compression.NoCompression, 0b110, b"\x0a"),
    ],
)
def test_who_compresses_is_answered_in_a_coding_that_it_reads(
    asked_in: grpc.Compression, codings: int, begins: bytes
) -> None:
    async def test(address: str) -> None:
        options = (AS_SENT, reads(codings))
        async with grpc.aio.insecure_channel(address, options, compression=asked_in) as channel:
            large, small = (ASKED(data=bytes(size)).SerializeToString() for size in (50_000, LEAST // 2))
            answer = await channel.unary_unary("/test.Test/Once")(large)
            assert answer.startswith(begins)
            assert plain(answer, MOST)[0] == large
            assert await channel.unary_unary("/test.Test/Once")(small) == small
            async for found in channel.unary_stream("/test.Test/Many")(large):
                assert found.startswith(begins)
            stream = channel.stream_stream("/test.Test/Both")(iter([large, small]))
            first, second = [found async for found in stream]
            assert first.startswith(begins)
            assert second == small

    run(test)


def test_who_reads_no_coding_is_answered_in_none() -> None:
    """Whose own message says that it is compressed, by hand: grpcio sends in no coding that it would not read."""

    async def test(address: str) -> None:
        asked = ASKED(data=bytes(50_000)).SerializeToString()
        async with grpc.aio.insecure_channel(address, (AS_SENT, reads(0))) as channel:
            assert await channel.unary_unary("/test.Test/Once")(gzip.compress(asked)) == asked

    run(test)


@pytest.mark.parametrize("coding", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_message_that_is_small_until_it_is_inflated_is_refused(coding: grpc.Compression) -> None:
    """400 MB in 400 kB: no more than the limit is inflated of it."""
    write = gzip.compress if coding is grpc.Compression.Gzip else zlib.compress
    bomb = write(bytes(400 << 20), 6)
    assert len(bomb) < MOST

    async def test(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for call in (
                channel.unary_unary("/test.Test/Once")(bomb),
                channel.unary_stream("/test.Test/Many")(bomb).read(),
                channel.stream_stream("/test.Test/Both")(iter([bomb])).read(),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024

    run(test)


def test_what_is_broken_is_the_clients_fault() -> None:
    async def test(address: str) -> None:
        whole = gzip.compress(ASKED(data=bytes(5000)).SerializeToString())
        async with grpc.aio.insecure_channel(address) as channel:
            for broken in (whole[:-1], whole[:20], whole + b"more", b"\x1f\x8b", b"\x1f"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/test.Test/Once")(broken)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(test)


@given(last=st.integers(-(2**63), 2**63 - 1), data=st.binary(max_size=40), first=st.booleans())
def test_no_message_is_taken_for_a_compressed_one(last: int, data: bytes, first: bool) -> None:
    """One whose first field is number 15 begins like zlib's format, and does not end like it."""
    parts = [ASKED(last=last).SerializeToString(), ASKED(data=data).SerializeToString()]
    written = b"".join(parts if first else parts[::-1])
    assert plain(written, MOST) == (written, False)
    for packed in (gzip.compress(written), zlib.compress(written)):
        assert plain(packed, MOST) == (written, True)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_fault(data: bytes) -> None:
    try:
        found, compressed = plain(data, 100)
    except Fault as fault:
        status = fault.status
    else:
        status = 0 if compressed or found == data else 500
    assert status in (0, 400, 413)


def test_no_message_of_a_protocol_begins_like_gzip() -> None:
    """Wire type 7 is none, whatever a field's number is."""
    assert 0x1F & 7 == 7
    kind = oip.schema().message("inference.ModelInferRequest")
    with pytest.raises(Exception, match="parsing"):
        kind.FromString(b"\x1f\x8b\x08\x00")
