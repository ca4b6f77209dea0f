"""Spans as the messages of OTLP (opentelemetry/proto/trace/v1), written by hand: five messages need no library."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

__all__ = ["CLIENT", "INTERNAL", "SERVER", "OtlpSpan", "otlp_request", "rejected_of"]

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""The kinds of span."""

_VARINT, _FIXED, _BYTES, _FIXED32 = 0, 1, 2, 5
_LAST_SHIFT = 63
"""Of the tenth byte of a number, after which there is none."""
_ERROR = 2
"""The status of a failed span."""
_INT64 = 1 << 63


class OtlpSpan(msgspec.Struct, frozen=True):
    """A span as it leaves.

    Attributes:
        trace: the trace's id, 32 hexadecimal digits.
        span: its own, 16 digits.
        parent: the span of who asked, 16 digits or nothing.
        name: of few values.
        kind: `INTERNAL`, `SERVER` or `CLIENT`.
        begun: nanoseconds since 1970.
        ended: the same.
        facts: its attributes: texts, booleans, whole numbers, floats, and lists of them; others leave as their text.
        fault: why it failed, or nothing.
    """

    trace: str
    span: str
    parent: str
    name: str
    kind: int
    begun: int
    ended: int
    facts: Mapping[str, object]
    fault: str = ""


def otlp_request(service: str, scope: str, spans: Iterable[OtlpSpan]) -> bytes:
    """An ``ExportTraceServiceRequest``.

    Args:
        service: ``service.name`` of the resource.
        scope: what has made the spans.
        spans: these.
    """
    resource = _pairs(1, {"service.name": service})
    scoped = _nested(1, _text(1, scope)) + b"".join(_nested(2, _span(span)) for span in spans)
    return _nested(1, _nested(1, resource) + _nested(2, scoped))


def rejected_of(answer: bytes) -> tuple[int, str]:
    """What an ``ExportTraceServiceResponse`` says was not taken: so many spans, and why; nothing of what is none."""
    spans, why = 0, ""
    try:
        for field, partial in _fields(answer):
            for inner, value in _fields(partial) if field == 1 and isinstance(partial, bytes) else ():
                if inner == 1 and isinstance(value, int):
                    spans = value if value < _INT64 else 0
                elif inner == 2 and isinstance(value, bytes):
                    why = value.decode("utf-8", "replace")
    except (IndexError, ValueError):
        return 0, ""
    return spans, why


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message, numbers and nested bytes, without knowing what they mean.

    Raises:
        IndexError, ValueError: it is no message.
    """
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        size, at = _read_varint(data, at) if kind == _BYTES else ({_FIXED: 8, _FIXED32: 4}.get(kind, -1), at)
        if size < 0 or at + size > len(data):
            raise ValueError
        yield key >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > _LAST_SHIFT:
            raise ValueError


def _span(span: OtlpSpan) -> bytes:
    parts = [
        _nested(1, bytes.fromhex(span.trace)),
        _nested(2, bytes.fromhex(span.span)),
        _nested(4, bytes.fromhex(span.parent)) if span.parent else b"",
        _text(5, span.name),
        _number(6, span.kind),
        _key(7, _FIXED) + struct.pack("<Q", span.begun),
        _key(8, _FIXED) + struct.pack("<Q", span.ended),
        _pairs(9, span.facts),
        _nested(15, _text(2, span.fault) + _number(3, _ERROR)) if span.fault else b"",
    ]
    return b"".join(parts)


def _pairs(field: int, facts: Mapping[str, object]) -> bytes:
    return b"".join(_nested(field, _text(1, key) + _nested(2, _value(value))) for key, value in facts.items())


def _value(value: object) -> bytes:
    """An ``AnyValue``; what the protocol has no kind for leaves as its text."""
    if isinstance(value, bool):
        return _number(2, int(value))
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return _number(3, value)
    if isinstance(value, float):
        return _key(4, _FIXED) + struct.pack("<d", value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return _nested(5, b"".join(_nested(1, _value(part)) for part in value))
    return _text(1, str(value))


def _text(field: int, text: str) -> bytes:
    return _nested(field, text.encode("utf-8", "replace"))


def _nested(field: int, data: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(data)) + data


def _number(field: int, value: int) -> bytes:
    return _key(field, _VARINT) + _varint(value)


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the least first; a negative number is its complement to 2**64."""
    value &= 2 * _INT64 - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
