"""The seam between gRPC's services and their host: messages in, messages or their bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

from mainspring.lazy import lazy
from mainspring.protocols.grpc.schema import Schema
from mainspring.protocols.http import Fault, Request, check_once

if TYPE_CHECKING:
    from google.protobuf import message as protobuf
else:
    protobuf = lazy("google.protobuf.message")

__all__ = ["GrpcAsking", "GrpcCall", "GrpcService", "Metadata", "read_message"]

Metadata = Iterable[tuple[str, str | bytes]]


class GrpcCall:
    """One call, beside its messages.

    Args:
        path: of the method: ``/inference.GRPCInferenceService/ModelInfer``.
        metadata: what the client has sent beside.
        deadline: the moment of `time.monotonic` after which nobody waits for the answer; None is never.
        stopping: set when the server takes no more.
        trailing: sends metadata behind the answer.
        peer: tells the client's address, as grpcio writes it: ``ipv4:127.0.0.1:4711``; None where nobody asks.
    """

    __slots__ = ("_metadata", "_peer", "_request", "deadline", "path", "stopping", "trailing")

    def __init__(
        self,
        path: str,
        metadata: Callable[[], Metadata | None],
        deadline: float | None,
        stopping: asyncio.Event,
        trailing: Callable[[tuple[tuple[str, str], ...]], object],
        peer: Callable[[], str] | None = None,
    ) -> None:
        self.path = path
        self.deadline = deadline
        self.stopping = stopping
        self.trailing = trailing
        self._metadata = metadata
        self._peer = peer
        self._request: Request | None = None

    @property
    def request(self) -> Request:
        """The call as guards see one of HTTP: its path, and its metadata as headers."""
        found = self._request
        if found is None:
            found = self._request = Request(
                "POST",
                self.path,
                b"",
                _Headers(self._metadata),
                b"",
                client="" if self._peer is None else _address(self._peer()),
            )
        return found

    def identified(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send headers of HTTP, such as prediction ids, behind the answer."""
        found = tuple((name.decode(), value.decode("latin-1")) for name, value in headers)
        if found:
            self.trailing(found)


def _address(peer: str) -> str:
    """The address of a peer without its port."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


class GrpcAsking:
    """A message and its call's metadata, as what may serve as a caller's key (`mainspring.serving.rollout.split`).

    Args:
        call: the call.
        message: what is asked.
    """

    __slots__ = ("_call", "_message")

    def __init__(self, call: GrpcCall, message: Any) -> None:
        self._call = call
        self._message = message

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """The metadata."""
        return self._call.request.headers

    @property
    def body(self) -> bytes:
        """The message's bytes, the same for the same message."""
        found: bytes = self._message.SerializeToString(deterministic=True)
        return found


class _Headers(Mapping[bytes, bytes]):
    """A call's metadata as headers, made of it when the first is asked for; of a name that is there twice the last."""

    __slots__ = ("_found", "_metadata")

    def __init__(self, metadata: Callable[[], Metadata | None]) -> None:
        self._metadata = metadata
        self._found: dict[bytes, bytes] | None = None

    def _all(self) -> dict[bytes, bytes]:
        if self._found is None:
            pairs = [
                (name.encode(), value if isinstance(value, bytes) else value.encode())
                for name, value in self._metadata() or ()
            ]
            self._found = dict(pairs)
            if len(self._found) != len(pairs):
                check_once(name for name, _ in pairs)
        return self._found

    def __getitem__(self, name: bytes) -> bytes:
        return self._all()[name]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class GrpcService(msgspec.Struct, frozen=True):
    """A service of a schema with what answers its methods; those without are UNIMPLEMENTED.

    Attributes:
        name: its full name.
        schema: where it is described.
        answers: by a method's name. Of one answer ``async (message, call) -> message or bytes``; of a stream of answers
            ``(message, call) -> async iterator``, and of both streams ``(async iterator, call) -> async iterator``.
        changes: the methods that change the process.
    """

    name: str
    schema: Schema
    answers: Mapping[str, Callable[..., Any]]
    changes: frozenset[str] = frozenset()


def read_message(kind: Any, data: bytes) -> Any:
    """A message of its bytes.

    Raises:
        Fault: 400, they are none.
    """
    try:
        return kind.FromString(data)
    except protobuf.DecodeError:
        raise Fault(400, f"the message is no {kind.DESCRIPTOR.full_name}") from None
