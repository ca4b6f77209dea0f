"""The gRPC listener: messages read within limits, every call guarded, timed and counted, drained on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.errors import ConfigError
from mainspring.lazy import lazy
from mainspring.ports.trace import Trace
from mainspring.protocols.grpc.compression import LEAST, plain
from mainspring.protocols.grpc.faults import is_ours, status_of
from mainspring.protocols.grpc.service import GrpcCall, GrpcService, read_message
from mainspring.protocols.http import Fault, Request
from mainspring.serving.counts import ANSWERING
from mainspring.serving.tracing import Tracing

if TYPE_CHECKING:
    import grpc
else:
    grpc = lazy("grpc")

__all__ = ["GrpcHost", "GrpcLimits", "Guard", "Watch"]

_Stream = Callable[[Any, GrpcCall], AsyncGenerator[Any, None]]
_Trailing = tuple[tuple[str, str], ...]

Guard = Callable[[Request], None]
Watch = Callable[[str, str, float], None]

_CODINGS = 0b111
"""The bit set of the compressions that are taken: none, deflate and gzip."""
_LOW = 1
"""The level that answers are compressed at, by a coding that the client reads; with none where it reads none."""
_MOST_METADATA = 16_384
_IDLE_MS = 900_000
_PING_MS, _PONG_MS = 60_000, 20_000
_TICK_S = 0.05
"""How long a call may be late before it is ended."""
_OURS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The statuses of a server's faults (OpenTelemetry's conventions for gRPC)."""
_PROBES = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)
"""Calls that platforms make every few seconds: they become no spans."""
_LEAST_PING_MS = 10_000
"""Clients that ping more often are cut off."""


class GrpcLimits(msgspec.Struct, frozen=True):
    """What a call may cost.

    Attributes:
        message: greatest message in bytes.
        calls: most calls under way at once, and streams of one connection.
        timeout: seconds until a call of one answer is over.
    """

    message: int
    calls: int
    timeout: float


class GrpcHost:
    """A gRPC server of services.

    Args:
        services: what is served.
        limits: what a call may cost.
        guard: called with each call, before its message is read; raises `Fault` to refuse.
        watch: told of every finished call: the method's path, the status, seconds.
        on_error: told of unexpected exceptions.
        addressed: whether the guard asks for clients' addresses.
        tracing: makes spans of calls; None makes none.

    Attributes:
        open: calls under way.
        stopping: set when no more is taken.
    """

    def __init__(
        self,
        services: Sequence[GrpcService],
        limits: GrpcLimits,
        guard: Guard,
        watch: Watch,
        on_error: Callable[[Exception], object],
        *,
        addressed: bool = False,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._services = services
        self._addressed = addressed
        self._limits = limits
        self._guard = guard
        self._watch = watch
        self._told = on_error
        self._server: Any = None
        self._streams: set[_Incoming] = set()
        self._overdue = _Overdue()
        self._ended: asyncio.Task[None] | None = None
        self.open = 0
        self.stopping = asyncio.Event()

    async def start(self, host: str, port: int, credentials: Any = None, *, shared: bool = False) -> int:
        """Listen; the port, which is a free one where 0 is asked for.

        Args:
            host: the address.
            port: its port.
            credentials: grpcio's, for TLS; None is plain text.
            shared: whether other processes listen at the same port.

        Raises:
            ConfigError: MS-3104, the address is taken.
        """
        if port and not shared and (why := _unbindable(host, port)):
            raise _taken(host, port, why)
        self._server = grpc.aio.server(options=self._options(shared))
        for service in self._services:
            handlers = {name: self._handler(service, name) for name in service.answers}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            bound = 0
        if not bound:
            self._server = None
            raise _taken(host, port, "it cannot be bound")
        await self._server.start()
        return int(bound)

    def drain(self, seconds: float) -> None:
        """Begin to stop: no new call is taken, streams end after what they were asked, open calls have so long."""
        if self._ended is None and self._server is not None:
            self.stopping.set()
            for stream in tuple(self._streams):
                stream.end()
            self._ended = asyncio.get_running_loop().create_task(self._server.stop(seconds))

    async def stop(self, seconds: float) -> None:
        """Stop, and wait until no call is under way."""
        self.drain(seconds)
        if self._ended is not None:
            await self._ended
            # grpcio's server shuts itself down once more when it is freed, and needs the loop for that.
            self._server = self._ended = None
            await asyncio.sleep(0)

    def _options(self, shared: bool) -> tuple[tuple[str, int], ...]:
        return (
            ("grpc.max_receive_message_length", self._limits.message),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(shared)),
            ("grpc.max_concurrent_streams", self._limits.calls),
            ("grpc.max_metadata_size", _MOST_METADATA),
            ("grpc.absolute_max_metadata_size", _MOST_METADATA),
            ("grpc.compression_enabled_algorithms_bitset", _CODINGS),
            ("grpc.per_message_decompression", 0),
            ("grpc.default_compression_level", _LOW),
            ("grpc.max_connection_idle_ms", _IDLE_MS),
            ("grpc.keepalive_time_ms", _PING_MS),
            ("grpc.keepalive_timeout_ms", _PONG_MS),
            ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_MS),
        )

    def _handler(self, service: GrpcService, name: str) -> Any:
        method = service.schema.service(service.name).methods_by_name[name]
        kind = service.schema.message(method.input_type.full_name)
        path, answer = f"/{service.name}/{name}", service.answers[name]
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(self._streamed(path, kind, answer, both=True))
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streamed(path, kind, answer, both=False))
        return grpc.unary_unary_rpc_method_handler(self._unary(path, kind, answer))

    def _unary(self, path: str, kind: Any, answer: Callable[[Any, GrpcCall], Awaitable[Any]]) -> Any:
        limit, guard, watch, overdue, clock, stopping = (
            self._limits.timeout, self._guard, self._watch, self._overdue, time.monotonic, self.stopping,
        )  # fmt: skip

        addressed, tracing, most = self._addressed, self._tracing, self._limits.message

        async def handle(data: bytes, context: Any) -> bytes:
            begun, code, sent = clock(), "OK", 0
            trace = _begin(tracing, path, context)
            trailing: _Trailing = ()
            self.open += 1
            left = context.time_remaining()
            deadline = begun + (limit if left is None or left > limit else left)
            task = overdue.watch(deadline)
            try:
                call = GrpcCall(
                    path,
                    context.invocation_metadata,
                    deadline,
                    stopping,
                    context.set_trailing_metadata,
                    context.peer if addressed else None,
                )
                guard(call.request)
                message, compressed = plain(data, most)
                found = _sent(await answer(read_message(kind, message), call), compressed, context)
                sent = len(found)
                return found
            except asyncio.CancelledError:
                if not overdue.forgive(task):
                    code = "CANCELLED"
                    raise
                code, text = "DEADLINE_EXCEEDED", "the answer took too long"
            except Exception as error:
                code, text, trailing = self._failed(error)
            finally:
                overdue.forget(task)
                self.open -= 1
                _carried(len(data), sent)
                watch(path, code, clock() - begun)
                _end(tracing, trace, path, code)
            # Not in the clause above: the fault would be kept, with every frame that it has passed and what they hold.
            await context.abort(getattr(grpc.StatusCode, code), text, trailing)
            raise AssertionError  # it never comes here

        return handle

    def _streamed(self, path: str, kind: Any, answer: _Stream, *, both: bool) -> Any:
        async def handle(asked: Any, context: Any) -> AsyncIterator[bytes]:
            begun, code, failed = time.monotonic(), "OK", None
            trace = _begin(self._tracing, path, context)
            incoming = _Incoming(context, kind, self._limits.message) if both else None
            compressed, received = False, 0 if both else len(asked)
            self.open += 1
            try:
                left = context.time_remaining()
                deadline = None if left is None else time.monotonic() + left
                call = GrpcCall(
                    path,
                    context.invocation_metadata,
                    deadline,
                    self.stopping,
                    context.set_trailing_metadata,
                    context.peer if self._addressed else None,
                )
                self._guard(call.request)
                if incoming is not None:
                    self._streams.add(incoming)
                    if self.stopping.is_set():
                        incoming.end()
                else:
                    data, compressed = plain(asked, self._limits.message)
                    asked = read_message(kind, data)
                async with contextlib.aclosing(answer(incoming or asked, call)) as answers:
                    async for found in answers:
                        written = _sent(found, incoming.compressed if incoming else compressed, context)
                        _carried(received if incoming is None else incoming.taken(), len(written))
                        received = 0
                        yield written
                if incoming is not None and incoming.ended:
                    raise Fault(503, "the server is stopping")
            except (asyncio.CancelledError, GeneratorExit):
                code = "CANCELLED"
                raise
            except Exception as error:
                code, *failed = self._failed(error)
            finally:
                self.open -= 1
                if incoming is not None:
                    self._streams.discard(incoming)
                self._watch(path, code, time.monotonic() - begun)
                _end(self._tracing, trace, path, code)
            if failed is not None:
                await context.abort(getattr(grpc.StatusCode, code), *failed)

        return handle

    def _failed(self, error: Exception) -> tuple[str, str, _Trailing]:
        """The status of a failed call, its text, and when to try again."""
        if is_ours(error):
            self._told(error)
        code, text, later = status_of(error)
        return code, text, () if later is None else (("grpc-retry-pushback-ms", str(later * 1000)),)


def _begin(tracing: Tracing | None, path: str, context: Any) -> Trace | None:
    """The trace of a call, from its metadata."""
    if tracing is None or path in _PROBES:
        return None
    found = next((value for key, value in context.invocation_metadata() or () if key == "traceparent"), None)
    return tracing.begin(found.encode() if isinstance(found, str) else found)


def _end(tracing: Tracing | None, trace: Trace | None, path: str, code: str) -> None:
    """A call that is over becomes a span."""
    if tracing is None or trace is None:
        return
    _, service, method = path.split("/")
    facts: dict[str, object] = {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "rpc.grpc.status_code": getattr(grpc.StatusCode, code).value[0],
    }
    tracing.end(trace, path[1:], facts, code if code in _OURS else "")


def _sent(found: Any, compressed: bool, context: Any) -> bytes:
    """The bytes of an answer; who has asked without compression is answered without."""
    data: bytes = found if type(found) is bytes else found.SerializeToString()
    if not compressed or len(data) < LEAST:
        context.disable_next_message_compression()
    return data


def _carried(received: int, sent: int) -> None:
    """Count the bytes of messages, of the model that answers here."""
    if (counts := ANSWERING.get()) is not None:
        counts.carried(received, sent)


def _unbindable(host: str, port: int) -> str:
    """Why an address cannot be bound; grpcio itself only writes on stderr about it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return str(error.strerror)
    return ""


def _taken(host: str, port: int, why: str) -> ConfigError:
    return ConfigError(
        f"grpc.port {port} is taken",
        code="MS-3104",
        why=f"{host}:{port}: {why}",
        fix="stop the process that listens there, or set grpc.port to another port",
    )


class _Overdue:
    """Cancels calls that take too long: one timer for all of them, that runs while there are any."""

    def __init__(self) -> None:
        self._ends: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, end: float) -> asyncio.Task[Any]:
        """Cancel the task that calls this a little after `end`, a moment of `time.monotonic`."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.call_later(_TICK_S, self._tick)
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._ends[task] = end
        return task

    def forget(self, task: asyncio.Task[Any]) -> None:
        """It is over."""
        self._ends.pop(task, None)
        self._late.discard(task)

    def forgive(self, task: asyncio.Task[Any]) -> bool:
        """Whether a task was cancelled because it took too long; it goes on then, to say so."""
        late = task in self._late
        if late:
            task.uncancel()
        return late

    def _tick(self) -> None:
        now = time.monotonic()
        for task in [task for task, end in self._ends.items() if end <= now]:
            del self._ends[task]
            self._late.add(task)
            task.cancel()
        if self._ends and self._loop is not None:
            self._loop.call_later(_TICK_S, self._tick)
        else:
            self._loop = None


class _Incoming:
    """The messages of a stream, one asked for after the other, so that a client can send no more than is taken.

    Args:
        context: grpcio's.
        kind: the messages' class.
        most: greatest message in bytes.

    Attributes:
        ended: whether no more is taken, though the client may have more.
        compressed: whether the last one was.
    """

    __slots__ = ("_context", "_kind", "_most", "_reading", "_received", "compressed", "ended")

    def __init__(self, context: Any, kind: Any, most: int) -> None:
        self._context = context
        self._kind = kind
        self._most = most
        self._received = 0
        self.compressed = False
        self._reading: asyncio.Future[Any] | None = None
        self.ended = False

    def end(self) -> None:
        """Take no more."""
        self.ended = True
        if self._reading is not None:
            self._reading.cancel()

    def taken(self) -> int:
        """The bytes that have come since this was asked last."""
        received, self._received = self._received, 0
        return received

    def __aiter__(self) -> _Incoming:
        return self

    async def __anext__(self) -> Any:
        """The next message.

        Raises:
            Fault: 400, it is none; 413, it is too large when it is inflated.
        """
        if self.ended:
            raise StopAsyncIteration
        self._reading = asyncio.ensure_future(self._context.read())
        try:
            data = await self._reading
        except asyncio.CancelledError:
            if self.ended and self._reading.cancelled():
                raise StopAsyncIteration from None
            self._reading.cancel()
            raise
        finally:
            self._reading = None
        if not isinstance(data, bytes):  # grpcio's mark of the end
            raise StopAsyncIteration
        self._received += len(data)
        data, self.compressed = plain(data, self._most)
        return read_message(self._kind, data)
