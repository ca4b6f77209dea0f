"""The metrics in Prometheus's protobuf, the one form in which it takes native histograms, for who asks for it.

The messages are those of ``io.prometheus.client`` (client_model's ``metrics.proto``), each behind its length. A native
histogram has a bucket for every eighth of a doubling that something fell into, beside the buckets of the text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import msgspec

from mainspring.serving.telemetry import NOT_FINE, PER_DOUBLING, Labels, Series, described

__all__ = ["PROTOBUF", "protobuf_page", "wants_protobuf"]

PROTOBUF = b"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
_ASKED = b"application/vnd.google.protobuf"
_KINDS = {"counter": 0, "gauge": 1, "untyped": 3, "histogram": 4}
_FIELDS = {"gauge": 2, "counter": 3, "untyped": 5}
_SCHEMA = PER_DOUBLING.bit_length() - 1
"""Prometheus's number of a resolution: buckets grow by the 2 ** schema-th root of 2."""


class _Histogram(msgspec.Struct):
    """What is known of one series."""

    buckets: list[tuple[float, float]] = msgspec.field(default_factory=list)
    sum: float = 0.0
    count: float = 0.0
    fine: dict[str, float] = msgspec.field(default_factory=dict)


def wants_protobuf(accept: bytes) -> bool:
    """Whether an Accept header prefers the delimited protobuf to every text."""
    best, wanted = 0.0, False
    for item in accept.split(b","):
        kind, *parameters = (part.strip().lower() for part in item.split(b";"))
        quality = next((part[2:] for part in parameters if part.startswith(b"q=")), b"1")
        try:
            weight = float(quality)
        except ValueError:
            weight = 0.0
        if weight > best:
            best, wanted = weight, kind == _ASKED and b"encoding=delimited" in parameters
    return wanted


def protobuf_page(numbers: Mapping[Series, float], fine: Mapping[Series, float]) -> tuple[bytes, bytes]:
    """The page: content type and messages.

    Args:
        numbers: every number by its name and labels, buckets apart and not cumulated.
        fine: what fell into each fine bucket of a histogram, by the histogram's name, its labels and ``index``.
    """
    families: dict[str, tuple[str, str, list[bytes]]] = {}
    histograms: dict[Series, _Histogram] = {}
    for (name, labels), value in sorted(numbers.items()):
        family, kind, text = described(name)
        kept = families.setdefault(family, (kind, text, []))
        if kind != "histogram":
            plain = kind if kind in _FIELDS else "untyped"
            kept[2].append(_metric(labels, _FIELDS[plain], _double(1, value)))
            continue
        own = tuple(pair for pair in labels if pair[0] != "le")
        _add(histograms.setdefault((family, own), _Histogram()), name, labels, value)
    for (name, labels), value in fine.items():
        own = tuple(pair for pair in labels if pair[0] != "index")
        if (found := histograms.get((name, own))) is not None:
            found.fine[dict(labels)["index"]] = value
    for (family, labels), histogram in histograms.items():
        families[family][2].append(_metric(labels, 7, _written(histogram)))
    return PROTOBUF, b"".join(_family(name, *parts) for name, parts in sorted(families.items()))


def _add(histogram: _Histogram, name: str, labels: Labels, value: float) -> None:
    if name.endswith("_bucket"):
        histogram.buckets.append((float(dict(labels)["le"].replace("+Inf", "inf")), value))
    elif name.endswith("_sum"):
        histogram.sum = value
    else:
        histogram.count = value


def _written(histogram: _Histogram) -> bytes:
    """A Histogram; with fine buckets where all that was observed is in them, for Prometheus refuses others."""
    fine = {index: round(count) for index, count in histogram.fine.items() if index != NOT_FINE and count}
    native = bool(fine) and not histogram.fine.get(NOT_FINE)
    count = sum(fine.values()) if native else round(histogram.count)
    parts = [_whole(1, count), _double(2, histogram.sum)]
    total = 0.0
    for bound, value in sorted(histogram.buckets):
        total += value
        parts.append(_message(3, _whole(1, round(total)) + _double(2, bound)))
    if native:
        zero = fine.pop("", 0)
        parts += [_whole(5, _zigzag(_SCHEMA)), _double(6, 0.0), _whole(7, zero), *_spans(fine)]
    return b"".join(parts)


def _spans(fine: Mapping[str, int]) -> Iterable[bytes]:
    """Runs of buckets that are next to each other, and the differences of their counts, each from the one before."""
    spans: list[list[int]] = []
    deltas, following, before = bytearray(), 0, 0
    for index, count in sorted((int(index), count) for index, count in fine.items()):
        if spans and index == following:
            spans[-1][1] += 1
        else:
            spans.append([index - following, 1])
        following = index + 1
        deltas += _varint(_zigzag(count - before))
        before = count
    for offset, length in spans:
        yield _message(12, _whole(1, _zigzag(offset)) + _whole(2, length))
    if deltas:
        yield _message(13, bytes(deltas))


def _family(name: str, kind: str, text: str, metrics: Iterable[bytes]) -> bytes:
    head = _message(1, name.encode()) + _message(2, text.encode()) + _whole(3, _KINDS.get(kind, _KINDS["untyped"]))
    body = head + b"".join(_message(4, metric) for metric in metrics)
    return _varint(len(body)) + body


def _metric(labels: Labels, number: int, value: bytes) -> bytes:
    pairs = (_message(1, _message(1, key.encode()) + _message(2, text.encode())) for key, text in labels)
    return b"".join(pairs) + _message(number, value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _whole(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _message(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value
