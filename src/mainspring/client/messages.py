"""The messages of the Open Inference Protocol over gRPC that a client needs, to and from their bytes.

Source of the format: Protocol Buffers, "Encoding", and the protocol's ``grpc_service.proto``. Writing the few fields
here keeps protobuf, and its one pool of names for every library of a process, out of the client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mainspring.client.answers import Inference
from mainspring.client.tensors import Arrays, array_of, written
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["read_index", "read_infer", "write_index", "write_infer"]

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_MOST_SHIFT = 63
_IDS = b"prediction_ids"


def write_infer(
    model: str, inputs: Arrays, version: str | None, outputs: Sequence[str], timeout_us: int | None
) -> bytes:
    """A ModelInferRequest with raw contents.

    Raises:
        DataError: MS-2791, an array is of no type that tensors have.
    """
    parts = [_field(1, model.encode())]
    if version is not None:
        parts.append(_field(2, version.encode()))
    if timeout_us is not None:
        parts.append(_field(4, _field(1, b"timeout") + _field(2, b"\x10" + _varint(timeout_us))))
    raw = []
    for name, given in inputs.items():
        array = np.asarray(given)
        datatype, data = written(name, array)
        shape = b"".join(map(_varint, array.shape))
        parts.append(_field(5, _field(1, name.encode()) + _field(2, datatype.encode()) + _field(3, shape)))
        raw.append(_field(7, data))
    parts += [_field(6, _field(1, name.encode())) for name in outputs]
    return b"".join(parts + raw)


def read_infer(data: bytes) -> Inference:
    """A ModelInferResponse with raw contents.

    Raises:
        ValueError: it is none.
    """
    texts, tensors, raw, ids = {1: "", 2: ""}, [], [], ""
    for number, value in _fields(data):
        if number in texts:
            texts[number] = bytes(_sized(value)).decode()
        elif number == 4:
            ids = _ids(_sized(value)) or ids
        elif number == 5:
            tensors.append(_tensor(_sized(value)))
        elif number == 6:
            raw.append(_sized(value))
    outputs = {
        name: array_of(datatype, contents, shape)
        for (name, datatype, shape), contents in zip(tensors, raw, strict=True)
    }
    return Inference(texts[1], texts[2], outputs, tuple(ids.split(",")) if ids else ())


def write_index() -> bytes:
    """A RepositoryIndexRequest for what is ready."""
    return b"\x10\x01"


def read_index(data: bytes) -> list[str]:
    """The names of a RepositoryIndexResponse's models, each once.

    Raises:
        ValueError: it is none.
    """
    names = [
        bytes(_sized(name)).decode()
        for number, model in _fields(data)
        if number == 1
        for field, name in _fields(_sized(model))
        if field == 1
    ]
    return list(dict.fromkeys(names))


def _tensor(data: memoryview) -> tuple[str, str, tuple[int, ...]]:
    """An output's name, datatype and shape."""
    texts: dict[int, str] = {1: "", 2: ""}
    shape: list[int] = []
    for number, value in _fields(data):
        if number in texts:
            texts[number] = bytes(_sized(value)).decode()
        elif number == 3 and isinstance(value, int):
            shape.append(value)
        elif number == 3:
            packed, at = _sized(value), 0
            while at < len(packed):
                size, at = _read_varint(packed, at)
                shape.append(size)
    return texts[1], texts[2], tuple(shape)


def _ids(entry: memoryview) -> str:
    """The prediction ids of an entry of the parameters; empty of any other."""
    found = dict(_fields(entry))
    if bytes(_sized(found.get(1, memoryview(b"")))) != _IDS:
        return ""
    held = dict(_fields(_sized(found.get(2, memoryview(b"")))))
    return bytes(_sized(held.get(3, memoryview(b"")))).decode()


def _varint(value: int) -> bytes:
    found = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _field(number: int, data: bytes) -> bytes:
    return b"".join((_varint(number << 3 | _BYTES), _varint(len(data)), data))


def _sized(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a field of the answer is a number where it has a length")
    return value


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _MOST_SHIFT + 1, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("the answer ends within a number")


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message in their order: numbers as they are, all else as bytes."""
    view, at = memoryview(data), 0
    while at < len(view):
        tag, at = _read_varint(view, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(view, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(view, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"the answer has a field of kind {kind}")
        if size > len(view) - at:
            raise ValueError("the answer ends within a field")
        yield tag >> 3, view[at : at + size]
        at += size


_FIXED: Mapping[int, int] = {_EIGHT: 8, _FOUR: 4}
