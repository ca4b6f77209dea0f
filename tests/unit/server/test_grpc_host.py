"""The gRPC listener in this process, with services made for the tests: limits, deadlines, cancelling, stopping, TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop

from certificates import signed_certificate
from mainspring.config.settings import load_settings
from mainspring.errors import ConfigError, DataError
from mainspring.protocols.grpc.health import health_service
from mainspring.protocols.grpc.schema import ProtoFile, Schema
from mainspring.protocols.grpc.service import GrpcCall, GrpcService
from mainspring.protocols.http import Fault, Request
from mainspring.server.grpc.host import GrpcHost, GrpcLimits
from mainspring.server.grpc.tls import credentials_of
from mainspring.server.http.callers import Callers
from mainspring.server.http.guard import guard

TEXT = """
    message Asked { int64 number = 1; bytes data = 2; }
    message Answered { int64 number = 1; bytes data = 2; }
    service Test {
      rpc Once (Asked) returns (Answered);
      rpc Many (Asked) returns (stream Answered);
      rpc Both (stream Asked) returns (stream Answered);
    }
"""
SCHEMA = Schema(ProtoFile("test.proto", "test", TEXT))
ASKED, ANSWERED = SCHEMA.message("test.Asked"), SCHEMA.message("test.Answered")


class Answers:
    """The service under test, and what has come to it."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended: list[str] = []
        self.deadlines: list[float | None] = []
        self.produced = 0
        self.release = asyncio.Event()
        self.port = 0

    async def once(self, asked: Any, call: GrpcCall) -> Any:
        self.deadlines.append(call.deadline)
        self.begun.set()
        try:
            if asked.number == 1:
                await self.release.wait()
            if asked.number == 2:
                raise ZeroDivisionError("secret")
            if asked.number == 3:
                raise Fault(429, "too many", retry_after=2)
            if asked.number == 4:
                raise DataError("a column is missing", code="MS-2301", fix="send it")
            return ANSWERED(number=asked.number).SerializeToString()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise

    async def many(self, asked: Any, call: GrpcCall) -> AsyncIterator[Any]:
        try:
            for number in range(asked.number):
                self.produced += 1
                yield ANSWERED(number=number, data=bytes(65_536))
        finally:
            self.ended.append("closed")

    async def both(self, asked: AsyncIterator[Any], call: GrpcCall) -> AsyncIterator[Any]:
        async for message in asked:
            yield ANSWERED(number=message.number)
        self.ended.append("end")


Test = Callable[[Answers, GrpcHost, grpc.aio.Channel], Awaitable[None]]


def run(
    test: Test,
    *,
    loop: Any = None,
    let_in: Any = None,
    told: list[Any] | None = None,
    addressed: bool = False,
    **limits: Any,
) -> list[Any]:
    """Run a test against a host; what the host has counted."""
    counted: list[Any] = []

    async def main() -> None:
        answers = Answers()
        handlers = {"Once": answers.once, "Many": answers.many, "Both": answers.both}
        services = [GrpcService("test.Test", SCHEMA, handlers), health_service(lambda: True, lambda: ["test.Test"])]
        host = GrpcHost(
            services,
            GrpcLimits(**{"message": 65_536, "calls": 100, "timeout": 30.0, **limits}),
            let_in or (lambda request: None),
            lambda path, code, seconds: counted.append((path.rpartition("/")[2], code)),
            (told if told is not None else []).append,
            addressed=addressed,
        )
        answers.port = port = await host.start("127.0.0.1", 0)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await test(answers, host, channel)
        finally:
            await host.stop(5)
        assert host.open == 0

    (loop or uvloop).run(main())
    return counted


def once(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary("/test.Test/Once", ASKED.SerializeToString, ANSWERED.FromString)


async def code(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


@pytest.mark.parametrize("loop", [uvloop, asyncio])
def test_faults_have_their_status_and_no_internals(loop: Any) -> None:
    told: list[Any] = []

    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        call = once(channel)
        assert (await call(ASKED(number=7))).number == 7
        assert await code(call(ASKED(number=2))) == ("INTERNAL", "internal error")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(ASKED(number=3))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "2000"
        assert await code(call(ASKED(number=4))) == ("INVALID_ARGUMENT", "a column is missing; send it")
        assert (await code(call(ASKED(data=bytes(70_000)))))[0] == "RESOURCE_EXHAUSTED"

    counted = run(test, loop=loop, told=told)
    assert counted == [("Once", name) for name in ("OK", "INTERNAL", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")]
    assert [type(error) for error in told] == [ZeroDivisionError, DataError]


def test_a_caller_that_leaves_ends_its_call() -> None:
    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        call = once(channel)(ASKED(number=1))
        waiting = asyncio.create_task(code(call))
        await answers.begun.wait()
        waiting.cancel()
        call.cancel()
        while host.open:
            await asyncio.sleep(0.01)
        assert answers.ended == ["cancelled"]

    assert run(test) == [("Once", "CANCELLED")]


def test_a_callers_deadline_is_known_and_kept() -> None:
    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        assert (await code(once(channel)(ASKED(number=1), timeout=0.2)))[0] == "DEADLINE_EXCEEDED"
        while host.open:
            await asyncio.sleep(0.01)
        await once(channel)(ASKED(number=0))
        first, second = answers.deadlines
        assert first is not None
        assert second is not None
        assert second > first + 20

    run(test)


def test_the_servers_own_limit_of_time_is_kept() -> None:
    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        assert await code(once(channel)(ASKED(number=1))) == ("DEADLINE_EXCEEDED", "the answer took too long")
        assert answers.ended == ["cancelled"]
        assert (await once(channel)(ASKED(number=5))).number == 5

    assert run(test, timeout=0.1) == [("Once", "DEADLINE_EXCEEDED"), ("Once", "OK")]


def test_too_many_calls_at_once_are_refused_and_the_rest_answered() -> None:
    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        hosts.append(host)
        waiting = [asyncio.create_task(coroutine(once(channel)(ASKED(number=1)))) for _ in range(3)]
        while host.open < 3:
            await asyncio.sleep(0.01)
        assert (await code(once(channel)(ASKED(number=0))))[0] == "RESOURCE_EXHAUSTED"
        answers.release.set()
        assert [found.number for found in await asyncio.gather(*waiting)] == [1, 1, 1]

    hosts: list[GrpcHost] = []
    let_in = guard(Callers(), 3, lambda: hosts[0].open)
    assert sorted(run(test, let_in=let_in)) == [("Once", "OK")] * 3 + [("Once", "RESOURCE_EXHAUSTED")]


async def coroutine(call: Any) -> Any:
    return await call


def test_the_guard_sees_path_and_metadata() -> None:
    seen: list[Request] = []

    def let_in(request: Request) -> None:
        seen.append(request)
        if request.headers.get(b"x-api-key") != b"k":
            raise Fault(401, "a key is needed")

    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        assert (await code(once(channel)(ASKED())))[0] == "UNAUTHENTICATED"
        assert (await once(channel)(ASKED(), metadata=(("x-api-key", "k"),))).number == 0
        twice = once(channel)(ASKED(), metadata=(("x-api-key", "j"), ("x-api-key", "k")))
        assert (await code(twice))[0] == "INVALID_ARGUMENT", "a proxy may have looked at the other one"
        assert (await once(channel)(ASKED(), metadata=(("x-a", "1"), ("x-a", "2"), ("x-api-key", "k")))).number == 0
        both = channel.stream_stream("/test.Test/Both", ASKED.SerializeToString, ANSWERED.FromString)()
        assert (await code(both.read()))[0] == "UNAUTHENTICATED"

    run(test, let_in=let_in)
    assert [request.path for request in seen] == [*["/test.Test/Once"] * 4, "/test.Test/Both"]


def test_a_guard_may_ask_for_addresses() -> None:
    seen: list[Request] = []

    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        await once(channel)(ASKED())
        both = channel.stream_stream("/test.Test/Both", ASKED.SerializeToString, ANSWERED.FromString)()
        await both.done_writing()
        assert await both.read() is grpc.aio.EOF

    run(test, let_in=seen.append, addressed=True)
    run(test, let_in=seen.append)
    assert [request.client for request in seen] == ["127.0.0.1", "127.0.0.1", "", ""]


def test_a_client_that_never_reads_stops_what_it_is_sent() -> None:
    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        call = channel.unary_stream("/test.Test/Many", ASKED.SerializeToString)(ASKED(number=100_000))
        seen = -1
        while seen < answers.produced:  # until it stands still
            seen = answers.produced
            await asyncio.sleep(0.3)
        assert 0 < seen < 1_000
        call.cancel()
        while host.open:
            await asyncio.sleep(0.01)
        assert answers.ended == ["closed"]

    assert run(test) == [("Many", "CANCELLED")]


def test_streams_end_when_the_host_stops() -> None:
    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        stream = channel.stream_stream("/test.Test/Both", ASKED.SerializeToString, ANSWERED.FromString)()
        await stream.write(ASKED(number=1))
        assert (await stream.read()).number == 1
        waiting = asyncio.create_task(coroutine(once(channel)(ASKED(number=1))))
        await answers.begun.wait()
        host.drain(20)
        assert await code(stream.read()) == ("UNAVAILABLE", "the server is stopping")
        assert answers.ended == ["end"]
        answers.release.set()
        assert (await waiting).number == 1

    assert run(test) == [("Both", "UNAVAILABLE"), ("Once", "OK")]


def test_a_client_that_pings_too_often_is_cut_off_and_others_are_not() -> None:
    """By frames of HTTP/2 (RFC 9113, 6.7 and 6.8): GOAWAY, ENHANCE_YOUR_CALM."""
    settings, ping = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + b"too many"

    async def goodbye(reader: asyncio.StreamReader) -> tuple[int, bytes]:
        while True:
            head = await reader.readexactly(9)
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == 7:
                return int.from_bytes(body[4:8], "big"), body[8:]

    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", answers.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + ping * 10)
        assert await asyncio.wait_for(goodbye(reader), 60) == (11, b"too_many_pings")
        writer.close()
        assert (await once(channel)(ASKED(number=7))).number == 7

    run(test)


def test_a_half_closed_stream_is_answered_to_its_end() -> None:
    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        stream = channel.stream_stream("/test.Test/Both", ASKED.SerializeToString, ANSWERED.FromString)()
        for number in range(50):
            await stream.write(ASKED(number=number))
        await stream.done_writing()
        assert [found.number async for found in stream] == list(range(50))
        assert await stream.code() is grpc.StatusCode.OK

    assert run(test) == [("Both", "OK")]


def test_bytes_that_are_no_message_end_a_stream() -> None:
    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        stream = channel.stream_stream("/test.Test/Both")()
        await stream.write(b"\xff\xff")
        assert await code(stream.read()) == ("INVALID_ARGUMENT", "the message is no test.Asked")

    assert run(test) == [("Both", "INVALID_ARGUMENT")]


def test_a_port_is_taken_once() -> None:
    async def test(answers: Answers, host: GrpcHost, channel: grpc.aio.Channel) -> None:
        services = [GrpcService("test.Test", SCHEMA, {"Once": answers.once})]
        limits = GrpcLimits(65_536, 10, 1.0)
        hosts = [GrpcHost(services, limits, lambda r: None, lambda p, c, s: None, lambda e: None) for _ in range(2)]
        port = await hosts[0].start("127.0.0.1", 0)
        with pytest.raises(ConfigError) as caught:
            await hosts[1].start("127.0.0.1", port)
        assert caught.value.code == "MS-3104"
        await hosts[0].stop(1)

    run(test)


# -- TLS --------------------------------------------------------------------------------------------------------------


def settings_of(folder: Path, **values: str) -> Any:
    (folder / "mainspring.toml").write_text('app = "shop:app"\n')
    return load_settings(folder, flags={f"grpc.{name}": value for name, value in values.items()})


def test_a_client_needs_a_certificate_where_one_is_asked_for(tmp_path: Path) -> None:
    certificate, key = signed_certificate("localhost")
    own, own_key = signed_certificate("client")
    old, old_key = signed_certificate("client", days=-1)
    other, other_key = signed_certificate("client")
    for name, data in (("a.crt", certificate), ("a.key", key), ("ca.crt", own + old)):
        (tmp_path / name).write_bytes(data)
    settings = settings_of(tmp_path, certificate="a.crt", private_key="a.key", client_ca="ca.crt")

    async def main() -> None:
        answers = Answers()
        services = [GrpcService("test.Test", SCHEMA, {"Once": answers.once})]
        host = GrpcHost(services, GrpcLimits(65_536, 10, 9.0), lambda r: None, lambda p, c, s: None, lambda e: None)
        port = await host.start("127.0.0.1", 0, credentials_of(settings))
        for credentials, wanted in (
            (grpc.ssl_channel_credentials(certificate, own_key, own), None),
            (grpc.ssl_channel_credentials(certificate), "UNAVAILABLE"),
            (grpc.ssl_channel_credentials(certificate, old_key, old), "UNAVAILABLE"),
            (grpc.ssl_channel_credentials(certificate, other_key, other), "UNAVAILABLE"),
        ):
            async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
                call = once(channel)(ASKED(number=5), timeout=20)
                if wanted is None:
                    assert (await call).number == 5
                else:
                    assert (await code(call))[0] == wanted
        await host.stop(1)

    uvloop.run(main())


def test_no_certificate_is_plain_text(tmp_path: Path) -> None:
    assert credentials_of(settings_of(tmp_path)) is None


def test_what_is_wrong_with_certificates_is_said_at_the_start(tmp_path: Path) -> None:
    certificate, key = signed_certificate("localhost")
    _, other = signed_certificate("localhost")
    for name, data in (("a.crt", certificate), ("a.key", key), ("b.key", other), ("text", b"text")):
        (tmp_path / name).write_bytes(data)
    for values, wanted in (
        ({"certificate": "a.crt"}, "MS-4331"),
        ({"private_key": "a.key"}, "MS-4331"),
        ({"client_ca": "a.crt"}, "MS-4331"),
        ({"certificate": "no.crt", "private_key": "a.key"}, "MS-4330"),
        ({"certificate": "a.crt", "private_key": "b.key"}, "MS-4332"),
        ({"certificate": "text", "private_key": "a.key"}, "MS-4332"),
        ({"certificate": "a.crt", "private_key": "a.key", "client_ca": "text"}, "MS-4332"),
    ):
        with pytest.raises(ConfigError) as caught:
            credentials_of(settings_of(tmp_path, **values))
        assert caught.value.code == wanted, values
        assert caught.value.fix
