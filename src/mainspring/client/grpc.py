"""The clients over gRPC, for threads and for asyncio, on grpcio: the Open Inference Protocol's service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import orjson

from mainspring.client.answers import Inference
from mainspring.client.messages import read_index, read_infer, write_index, write_infer
from mainspring.client.tensors import Arrays
from mainspring.client.trying import Attempts
from mainspring.client.wire import Asked, Received
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import grpc
else:
    grpc = lazy("grpc")

__all__ = ["AsyncGrpcClient", "GrpcClient"]

T = TypeVar("T")

_SERVICE = "/inference.GRPCInferenceService/"
_STATUSES = {
    "INVALID_ARGUMENT": 400, "OUT_OF_RANGE": 400, "FAILED_PRECONDITION": 409, "ALREADY_EXISTS": 409, "ABORTED": 409,
    "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429, "CANCELLED": 499,
    "UNIMPLEMENTED": 405, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
"""The statuses of HTTP that errors are told by; what is not here is the server's fault."""
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
)
"""As large as what HTTP carries; who tries again is `Attempts` alone."""


def _infer(
    model: str, inputs: Arrays, version: str | None, outputs: Sequence[str], timeout_us: int | None
) -> Asked[Inference]:
    body = write_infer(model, inputs, version, outputs, timeout_us)
    return Asked("POST", f"{_SERVICE}ModelInfer", lambda got: read_infer(got.body), body)


def _models() -> Asked[list[str]]:
    return Asked("POST", f"{_SERVICE}RepositoryIndex", lambda got: read_index(got.body), write_index())


def _failed(code: str, text: str, trailing: Sequence[tuple[str, str | bytes]]) -> Received:
    """A status of gRPC as an answer over HTTP, so that both are judged by one rule."""
    later = dict(trailing).get("grpc-retry-pushback-ms")
    headers = {"retry-after": str(int(later) // 1000)} if isinstance(later, str) and later.isdigit() else {}
    return Received(_STATUSES.get(code, 500), headers, orjson.dumps({"error": text}))


def _credentials(*, tls: bool, ca: str | None) -> Any:
    if not tls and ca is None:
        return None
    return grpc.ssl_channel_credentials(None if ca is None else Path(ca).read_bytes())


class GrpcClient:
    """Asks the models of a server over gRPC. It may be used by many threads at once; one connection is kept open.

    Args:
        address: where the server's gRPC is: ``localhost:9000``.
        key: one of its ``server.keys``.
        timeout: the most seconds of a call, all its tries together.
        tries: how often a call is sent at most: again after RESOURCE_EXHAUSTED and UNAVAILABLE.
        tls: whether the connection is secured; it is where `ca` is given.
        ca: a file of certificates to trust in place of the system's.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        timeout: float = 10.0,
        tries: int = 3,
        tls: bool = False,
        ca: str | None = None,
    ) -> None:
        self.address = address
        self._timeout = timeout
        self._tries = tries
        self._metadata = () if key is None else (("authorization", f"Bearer {key}"),)
        credentials = _credentials(tls=tls, ca=ca)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, _OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credentials, _OPTIONS)

    def infer(
        self,
        model: str,
        inputs: Arrays,
        *,
        version: str | None = None,
        outputs: Sequence[str] = (),
        timeout_us: int | None = None,
    ) -> Inference:
        """As `Client.infer`."""
        return self._call(_infer(model, inputs, version, outputs, timeout_us))

    def models(self) -> list[str]:
        """The names of the models that are ready; raises as `Client.predict`."""
        return self._call(_models())

    def _call(self, asked: Asked[T]) -> T:
        attempts = Attempts(self._timeout, self._tries)
        while True:
            received = self._send(asked, attempts.left())
            pause = attempts.pause(received)
            if pause is None:
                return attempts.answer(asked, self.address, received, "")
            time.sleep(pause)

    def _send(self, asked: Asked[T], seconds: float) -> Received:
        try:
            body = self._channel.unary_unary(asked.path)(asked.body, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            found: Any = error
            return _failed(found.code().name, found.details() or "", found.trailing_metadata() or ())
        return Received(200, {}, body)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncGrpcClient:
    """Asks the models of a server over gRPC from an event loop; as `GrpcClient` in its arguments, answers and errors.

    It is used as ``async with AsyncGrpcClient(address) as client``, or closed by `close`.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        timeout: float = 10.0,
        tries: int = 3,
        tls: bool = False,
        ca: str | None = None,
    ) -> None:
        self.address = address
        self._timeout = timeout
        self._tries = tries
        self._metadata = () if key is None else (("authorization", f"Bearer {key}"),)
        self._credentials = _credentials(tls=tls, ca=ca)
        self._channel: grpc.aio.Channel | None = None

    async def infer(
        self,
        model: str,
        inputs: Arrays,
        *,
        version: str | None = None,
        outputs: Sequence[str] = (),
        timeout_us: int | None = None,
    ) -> Inference:
        """As `Client.infer`."""
        return await self._call(_infer(model, inputs, version, outputs, timeout_us))

    async def models(self) -> list[str]:
        """As `GrpcClient.models`."""
        return await self._call(_models())

    async def _call(self, asked: Asked[T]) -> T:
        attempts = Attempts(self._timeout, self._tries)
        while True:
            received = await self._send(asked, attempts.left())
            pause = attempts.pause(received)
            if pause is None:
                return attempts.answer(asked, self.address, received, "")
            await asyncio.sleep(pause)

    async def _send(self, asked: Asked[T], seconds: float) -> Received:
        call = self._open().unary_unary(asked.path)
        try:
            body = await call(asked.body, timeout=seconds, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            return _failed(error.code().name, error.details() or "", tuple(error.trailing_metadata() or ()))
        return Received(200, {}, body)

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self.address, _OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(self.address, self._credentials, _OPTIONS)
        return self._channel

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
