"""What is kept of a chunk of window rows, so that a window which covers it need not read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.declare.aggregate import Function
from mainspring.features.online.rows import WindowRows
from mainspring.features.online.windows import WindowLayout
from mainspring.features.windows.sketch import (
    EXACT,
    RANKS,
    REGISTERS,
    bucket_values,
    buckets,
    estimate,
    number_hashes,
    place_of,
    registers,
)
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = [
    "Numbers",
    "Sketch",
    "compared",
    "count_different",
    "find_quantile",
    "merged_sketches",
    "numbers_of",
    "read_sketches",
    "sketch_of",
    "sketches_of",
    "values_of",
    "write_sketches",
]

_LOW = (1 << 32) - 1
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Numbers(msgspec.Struct, frozen=True):
    """Of a numeric column: one element a chunk.

    Attributes:
        n: (chunks,) int64, how many are not null.
        high: the sum: of integers the upper 32 bits, int64; of others the sum itself, float64.
        low: of integers the lower 32 bits, int64; of others what the sum lost by rounding, float64.
        least: the least value; 0 where there is none.
        most: the greatest one.
        spread: (chunks,) float64, the squares of the distances from the mean.
    """

    n: NDArray[np.int64]
    high: NDArray[Any]
    low: NDArray[Any]
    least: NDArray[Any]
    most: NDArray[Any]
    spread: NDArray[np.float64]

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The attributes in order."""
        return self.n, self.high, self.low, self.least, self.most, self.spread

    @property
    def means(self) -> NDArray[Any]:
        """(chunks,) longdouble; 0 where there is no value."""
        scale = 1 << 32 if self.high.dtype.kind == "i" else 1
        sums: NDArray[Any] = self.high.astype(np.longdouble) * scale + self.low
        return sums / np.maximum(self.n, 1)


def values_of(rows: WindowRows, place: int, start: int, stop: int) -> NDArray[Any]:
    """The non-null values of a numeric column in some rows."""
    nulls = rows.nulls[place][start:stop]
    values = rows.columns[place][start:stop]
    return values[nulls == 0] if np.count_nonzero(nulls) else values


def numbers_of(values: NDArray[Any]) -> Numbers:
    """Of the non-null values of one chunk."""
    n = np.array([len(values)])
    if not len(values):
        zero = np.zeros(1, values.dtype)
        return Numbers(n, zero, zero, zero, zero, np.zeros(1))
    wide = values.astype(np.longdouble)
    with np.errstate(invalid="ignore", over="ignore"):  # infinity and NaN are answers
        away = wide - wide.sum() / len(values)
        spread = np.array([(away * away).sum()]).astype(np.float64)
        if values.dtype.kind == "i":
            high, low = (np.array([part.sum()]) for part in (values >> 32, values & _LOW))
        else:
            total = wide.sum()
            high = np.array([total]).astype(np.float64)
            low = np.array([total - high[0]]).astype(np.float64) if np.isfinite(high[0]) else np.zeros(1)
        return Numbers(n, high, low, values.min(keepdims=True), values.max(keepdims=True), spread)


Sketch = tuple[Any, ...]
"""Of `distinct`: the different hashes, and nothing or, beyond `EXACT` of them, no hashes and the registers of
HyperLogLog. Of `quantile`: the buckets, how many values are in each, and how many NaN there are. Of `lowest` and
`highest` of texts: the values, one at most."""


def sketch_of(use: tuple[Function, str], layout: WindowLayout, rows: WindowRows, start: int, stop: int) -> Sketch:
    """What one function needs of a column in some rows."""
    function, column = use
    if function in (Function.LOWEST, Function.HIGHEST):
        texts = [text for text in rows.texts[layout.texts.index(column)][start:stop] if text is not None]
        return ([compared(function, column, layout, texts)] if texts else [],)
    place = layout.hashes(column) if column in layout.texts else layout.numbers.index(column)
    values = values_of(rows, place, start, stop)
    if function is Function.DISTINCT:
        # The hash of a number is one to one: it tells different ones as well.
        return np.unique(values if column in layout.texts else number_hashes(values)), None
    data = values.astype(np.float64)
    nan = np.isnan(data)
    keys, counts = np.unique(buckets(data[~nan]), return_counts=True)
    return keys.astype(np.int32), counts.astype(np.int32), int(nan.sum())


def compared(function: Function, column: str, layout: WindowLayout, texts: Iterable[Any]) -> object:
    """The least or greatest of texts, bytes, or decimals as they are written."""
    best = min if function is Function.LOWEST else max
    return best(texts, key=Decimal) if column in layout.decimals else best(texts)


def sketches_of(layout: WindowLayout, rows: WindowRows) -> list[Sketch]:
    """All sketches of a chunk, in the layout's order."""
    return [sketch_of(use, layout, rows, 0, len(rows.events)) for use in layout.sketches]


def merged_sketches(layout: WindowLayout, parts: Sequence[Sequence[Sketch]]) -> list[Sketch]:
    """The sketches of parts together."""
    found: list[Sketch] = []
    for use, sketches in zip(layout.sketches, zip(*parts, strict=True), strict=True):
        if use[0] is Function.DISTINCT:
            found.append(_different(sketches))
        elif use[0] is Function.QUANTILE:
            found.append(_histogram(sketches))
        else:
            texts = [text for (values,) in sketches for text in values]
            found.append(([compared(*use, layout, texts)] if texts else [],))
    return found


def write_sketches(sketches: Sequence[Sketch]) -> bytes:
    """Sketches as bytes."""
    return _pack([[part.tobytes() if hasattr(part, "tobytes") else part for part in sketch] for sketch in sketches])


def read_sketches(layout: WindowLayout, stored: bytes) -> list[Sketch]:
    """As `write_sketches` wrote them, in the layout's order."""
    found: list[Sketch] = []
    for (function, _), parts in zip(layout.sketches, _unpack(stored), strict=True):
        if function is Function.DISTINCT:
            ranks = None if parts[1] is None else np.frombuffer(parts[1], np.uint8)
            found.append((np.frombuffer(parts[0], np.uint64), ranks))
        elif function is Function.QUANTILE:
            found.append((np.frombuffer(parts[0], np.int32), np.frombuffer(parts[1], np.int32), parts[2]))
        else:
            found.append(tuple(parts))
    return found


def _different(sketches: Sequence[Sketch]) -> Sketch:
    hashes = np.concatenate([sketch[0] for sketch in sketches])
    greatest = [sketch[1] for sketch in sketches if sketch[1] is not None]
    if not greatest:
        hashes = np.unique(hashes) if len(sketches) > 1 else hashes
        if len(hashes) <= EXACT:
            return hashes, None
    ranks = np.zeros(REGISTERS, np.uint8)
    register, rank = registers(hashes)
    np.maximum.at(ranks, register, rank.astype(np.uint8))
    for other in greatest:
        np.maximum(ranks, other, out=ranks)
    return np.zeros(0, np.uint64), ranks


def _histogram(sketches: Sequence[Sketch]) -> Sketch:
    nans = sum(sketch[2] for sketch in sketches)
    keys = np.concatenate([sketch[0] for sketch in sketches])
    if not len(keys):
        return keys, keys, nans
    least = keys.min()
    counts = np.bincount(keys - least, weights=np.concatenate([sketch[1] for sketch in sketches]))
    filled = np.flatnonzero(counts)
    return (filled + least).astype(np.int32), counts[filled].astype(np.int32), nans


def count_different(sketches: Sequence[Sketch]) -> int | None:
    """How many different values there are in parts together; None if none."""
    hashes, ranks = _different(sketches)
    if ranks is None:
        return len(hashes) or None
    return int(estimate(np.bincount(ranks, minlength=RANKS)[None])[0])


def find_quantile(sketches: Sequence[Sketch], share: float) -> float | None:
    """A quantile of the values in parts together; None if there are none."""
    keys, counts, nans = _histogram(sketches)
    if nans:
        return float("nan")
    if not len(keys):
        return None
    done = np.cumsum(counts, dtype=np.int64)
    place = place_of(share, done[-1:])[0]
    return float(bucket_values(keys[np.searchsorted(done, place, "right")][None].astype(np.int64))[0])
