"""What driver, zygote and workers say to each other over sockets of this machine."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from mainspring.errors import InternalError

__all__ = [
    "Computed",
    "Done",
    "Exited",
    "Failed",
    "Fault",
    "Frames",
    "Hello",
    "Kill",
    "Launch",
    "Measured",
    "Moved",
    "Noted",
    "Order",
    "Reply",
    "StoredResult",
    "decode_command",
    "decode_notice",
    "decode_order",
    "encode",
    "frame",
]

_LENGTH = struct.Struct("<I")


class StoredResult(msgspec.Struct, frozen=True):
    """A result in the object store: its content, how to read it, and what helps to restore it."""

    digest: str
    kind: str
    size: int
    media_type: str = "application/octet-stream"
    meta: dict[str, object] = {}


class Order(msgspec.Struct, frozen=True):
    """One attempt, as the driver asks a worker for it.

    Attributes:
        task: its name in the graph.
        title: the attempt as people read it: ``fit[3]``.
        inputs: parameter name to stored result.
        item: the pickled item of a map, or None; `item_input` instead when the item is a stored result.
        work_dir: a folder of its own, removed afterwards.
        declared: the files that it may read, as absolute paths.
        log: the file that its output goes to; empty when a pipe comes with the order.
        crowded: whether others wait for the core, so that it is worth saying when the function has returned.
        named: files that the step's code names as text and may read unseen, as absolute paths, each with the place.
        forced: whether kept results of the task were not to be used.
    """

    task: str
    title: str
    run_id: str
    attempt: int
    inputs: dict[str, StoredResult]
    work_dir: str
    item: bytes | None = None
    item_input: StoredResult | None = None
    declared: tuple[str, ...] = ()
    log: str = ""
    crowded: bool = False
    named: dict[str, str] = {}
    forced: bool = False


class Launch(msgspec.Struct, frozen=True, tag="launch"):
    """Driver to zygote: fork a worker, which waits for its order on the socket that comes along."""

    number: int


class Kill(msgspec.Struct, frozen=True, tag="kill"):
    """Driver to zygote: end a worker and everything it started."""

    number: int


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Zygote to driver: the app is loaded; `hazard` says why it must not fork, if so."""

    hazard: str = ""
    error: Fault | None = None


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """Zygote to driver: a worker is gone, and all it started with it.

    Attributes:
        status: its exit status, or minus the signal.
        peak_bytes: the largest memory it had resident.
    """

    number: int
    status: int
    peak_bytes: int


class Fault(msgspec.Struct, frozen=True):
    """An error as plain data: a `MainspringError` of class `kind`, or any exception of the user's."""

    kind: str
    what: str
    code: str = ""
    why: str = ""
    origin: str = ""
    fix: str = ""
    traceback: str = ""


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """Worker to driver: a metric."""

    name: str
    value: float
    step: int
    at: int


class Moved(msgspec.Struct, frozen=True, tag="moved"):
    """Worker to driver: how far it is."""

    done: float
    total: float


class Noted(msgspec.Struct, frozen=True, tag="noted"):
    """Worker to driver: what the step wants said of this attempt, in its line and its row."""

    text: str


class Computed(msgspec.Struct, frozen=True, tag="computed"):
    """Worker to driver: the function has returned; what remains is to store its result, which waits for the disk."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Worker to driver: the result is stored; `undeclared` names what it read without saying so."""

    result: StoredResult
    undeclared: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Worker to driver: it failed."""

    fault: Fault


Reply = Measured | Moved | Noted | Computed | Done | Failed
_REPLY = msgspec.msgpack.Decoder(Reply)
_ORDER = msgspec.msgpack.Decoder(Order)
_COMMAND = msgspec.msgpack.Decoder(Launch | Kill)
_NOTICE = msgspec.msgpack.Decoder(Hello | Exited)
encode = msgspec.msgpack.Encoder().encode
decode_order = _ORDER.decode
decode_command = _COMMAND.decode
decode_notice = _NOTICE.decode


def frame(message: object) -> bytes:
    """A message with its length before it, for a stream."""
    data = encode(message)
    return _LENGTH.pack(len(data)) + data


class Frames:
    """Cuts a stream into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add what was received; the whole frames it completes."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            whole = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield whole

    def replies(self, data: bytes) -> Iterator[Reply]:
        """Add what a worker sent; its whole messages.

        Raises:
            InternalError: MS-7020, it is no message of ours.
        """
        for whole in self.feed(data):
            try:
                yield _REPLY.decode(whole)
            except msgspec.DecodeError as error:
                raise InternalError("a worker's message cannot be read", code="MS-7020", why=str(error)) from error
