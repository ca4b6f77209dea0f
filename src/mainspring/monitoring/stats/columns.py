"""Arrow columns as the arrays that are counted: numbers, or codes of categories.

Buffers are read directly. The convenient ways between Arrow and NumPy import pandas, which costs a serving process
more than a second, and turn nulls into NaN, which are two different faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mainspring.errors import DataError
from mainspring.lazy import lazy
from mainspring.monitoring.stats.hashes import hash_categories

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from mainspring.metrics.arrays import Floats, Ints

    Column: TypeAlias = pa.Array | pa.ChunkedArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

__all__ = [
    "Encoded",
    "FeatureKind",
    "Numbers",
    "Tally",
    "Vocabulary",
    "encoded",
    "infer_kind",
    "numbers",
    "tallied",
    "whole_numbers",
]

FeatureKind: TypeAlias = Literal["number", "category", "hash", "text"]
"""`number` by value, `category` by value, `hash` categories that are hashed already, `text` by its length."""

_DAY_US = 86_400_000_000.0


class Numbers(msgspec.Struct, frozen=True, eq=False):
    """A numeric column: its non-null values (float64, n), and how many nulls were left out."""

    values: Floats
    nulls: int


class Tally(msgspec.Struct, frozen=True, eq=False):
    """How often each category occurs: places in a vocabulary (m,), counts (m,), and the nulls beside them."""

    places: Ints
    counts: Ints
    nulls: int


class Vocabulary(msgspec.Struct, frozen=True, eq=False):
    """The distinct categories of a column: the hash of each, and the values themselves, unless they came as hashes."""

    hashes: NDArray[np.uint64]
    values: Sequence[object]


class Encoded(msgspec.Struct, frozen=True, eq=False):
    """A category column: its vocabulary, and each row's place in it; the place after the last one is null."""

    words: Vocabulary
    codes: NDArray[np.int32] | Ints

    def tally(self, start: int, stop: int) -> Tally:
        """How often each category occurs in the rows start..stop."""
        size, codes = len(self.words.hashes), self.codes[start:stop]
        if size > 4 * len(codes):
            # A short block of a key: counting every place of a long vocabulary would cost more than a sort.
            places, counts = np.unique(codes, return_counts=True)
            nulls = int(counts[-1]) if len(places) and places[-1] == size else 0
            kept = len(places) - (nulls > 0)
            return Tally(places[:kept].astype(np.int64), counts[:kept].astype(np.int64), nulls)
        counts = np.bincount(codes, minlength=size + 1)
        places = np.flatnonzero(counts[:-1])
        return Tally(places, counts[places], int(counts[-1]))


def infer_kind(name: str, kind: pa.DataType) -> FeatureKind:
    """How a column of an Arrow type is watched unless the user says otherwise.

    Raises:
        DataError: MS-2404, a list, struct or other nested type.
    """
    types = pa.types
    if types.is_dictionary(kind):
        return infer_kind(name, kind.value_type)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if text or types.is_boolean(kind) or types.is_binary(kind) or types.is_large_binary(kind) or types.is_null(kind):
        return "category"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_temporal(kind):
        return "number"
    raise DataError(
        f'column "{name}" of type {kind} cannot be watched',
        code="MS-2404",
        why="drift is measured on numbers, times, booleans and categories",
        fix="watch a number made from it, such as its length or a distance",
    )


def numbers(column: Column) -> Numbers:
    """The non-null values of a column as float64 (n,).

    Dates and timestamps are days since 1970 (UTC), decimals are float64, booleans 0 and 1, text its length in
    characters. A float64 column without nulls in one chunk is not copied.
    """
    parts = [_floats(chunk) for chunk in _chunks(column)]
    values = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0), *parts])
    return Numbers(values, column.null_count)


def whole_numbers(column: Column) -> Ints:
    """A timestamp, date or integer column as int64 (n,), times in microseconds since 1970 UTC.

    Raises:
        DataError: MS-2406, a null: a row without a time belongs to no block.
    """
    if column.null_count:
        raise DataError(
            f"{column.null_count} rows have no event time",
            code="MS-2406",
            why="a row is counted in the block of its event time",
            fix="drop those rows, or watch their share in the source",
        )
    return np.concatenate([np.empty(0, np.int64), *(_buffer(_whole(chunk), np.int64) for chunk in _chunks(column))])


def encoded(column: Column, kind: FeatureKind = "category") -> Encoded:
    """The column as places in its vocabulary; `hash` columns hold unsigned hashes already."""
    chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    if pa.types.is_null(chunked.type):
        return Encoded(Vocabulary(np.empty(0, np.uint64), ()), np.zeros(len(chunked), np.int64))
    if not pa.types.is_dictionary(chunked.type):
        chunked = chunked.dictionary_encode()
    chunks = [chunk for chunk in chunked.unify_dictionaries().chunks if len(chunk)]
    if not chunks:
        return Encoded(Vocabulary(np.empty(0, np.uint64), ()), np.empty(0, np.int64))
    words = _vocabulary(chunks[0].dictionary, kind)
    parts = [_codes(chunk.indices, len(words.hashes)) for chunk in chunks]
    codes: NDArray[np.int32] | Ints = parts[0] if len(parts) == 1 else np.concatenate(parts, dtype=np.int64)
    return Encoded(words, codes)


def tallied(column: Column, kind: FeatureKind = "category") -> tuple[Vocabulary, Tally]:
    """How often each category of a column occurs, all of it: faster than encoding each row."""
    if pa.types.is_dictionary(column.type) or pa.types.is_null(column.type):
        codes = encoded(column, kind)
        return codes.words, codes.tally(0, len(codes.codes))
    found = column.value_counts()
    words, counts = found.field(0), _buffer(found.field(1), np.int64)
    if words.null_count:
        some = _buffer(words.is_valid().cast(pa.uint8()), np.uint8) == 1
        words, counts = words.drop_null(), counts[some]
    return _vocabulary(words, kind), Tally(np.arange(len(words)), counts, column.null_count)


def _vocabulary(words: pa.Array, kind: FeatureKind) -> Vocabulary:
    if kind == "hash":
        return Vocabulary(_buffer(words.cast(pa.uint64()), np.uint64), ())
    values = words.to_pylist()
    return Vocabulary(hash_categories(values), values)


def _chunks(column: Column) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _codes(indices: pa.Array, null: int) -> NDArray[np.int32] | Ints:
    wide = not pa.types.is_int32(indices.type)
    codes: NDArray[np.int32] | Ints = (
        _buffer(indices.cast(pa.int64()), np.int64) if wide else _buffer(indices, np.int32)
    )
    if indices.null_count:
        # Not `fill_null`: making a scalar imports pandas.
        valid = _buffer(indices.is_valid().cast(pa.uint8()), np.uint8)
        codes = np.where(valid == 1, codes, np.asarray(null, dtype=codes.dtype))
    return codes


def _whole(array: pa.Array) -> pa.Array:
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us"), safe=False)
    return array.cast(pa.int64())


def _floats(array: pa.Array) -> Floats:
    if array.null_count:
        array = array.drop_null()
    types, kind = pa.types, array.type
    if types.is_dictionary(kind):
        return _floats(array.dictionary_decode())
    if types.is_float64(kind):
        return _buffer(array, np.float64)
    if types.is_timestamp(kind) or types.is_date(kind):
        return _buffer(_whole(array), np.int64) / _DAY_US
    if types.is_time(kind) or types.is_duration(kind):
        array = array.cast(pa.int32() if types.is_time32(kind) else pa.int64())
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        array = pc.utf8_length(array)
    elif types.is_boolean(kind):
        array = array.cast(pa.uint8())
    return _buffer(array.cast(pa.float64(), safe=False), np.float64)


def _buffer(array: pa.Array, kind: type) -> NDArray:  # type: ignore[type-arg]  # the caller's dtype names it
    """The values of a primitive array, without a copy; what stands at a null is arbitrary."""
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.empty(0, kind)
    return np.frombuffer(data, kind, count=len(array), offset=array.offset * np.dtype(kind).itemsize)
