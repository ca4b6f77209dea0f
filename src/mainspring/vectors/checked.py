"""What comes into a store, checked before the store sees it: names, ids, payloads, vectors."""

from __future__ import annotations

import functools
import math
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mainspring.errors import UsageError
from mainspring.lazy import lazy
from mainspring.ports.vector_filter import FieldType, misfit, no_json
from mainspring.ports.vector_store import Capabilities, Schema
from mainspring.vectors.faults import schema_beyond

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy("numpy")

__all__ = [
    "MOST",
    "between",
    "check_schema",
    "keys_of",
    "name_of",
    "nothing_sought",
    "patch_of",
    "payload_of",
    "point_id",
    "sparse_of",
    "vector_of",
    "vectors_of",
]

MOST = 10_000
"""The most hits of a query, and points of a page."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def name_of(name: object) -> str:
    """The name of an index or alias.

    Raises:
        UsageError: MS-2655.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _cannot(f"{name!r:.60} is no name of an index", "letters, digits, _ . and -, at most 128, no . first")
    return name


def point_id(id: object) -> str:
    """The canonical form of a point's id.

    Raises:
        UsageError: MS-2655.
    """
    if isinstance(id, str):
        if _ID.fullmatch(id):
            return id
        try:
            return str(uuid.UUID(id))
        except ValueError:
            pass
    raise _cannot(f"{id!r:.60} is no point's id", "an id is a UUID as text: uuid.uuid5(NAMESPACE, chunk_id)")


def between(name: str, value: object, least: float, most: float) -> None:
    """Refuse a number out of its range, and what is none.

    Raises:
        UsageError: MS-2655.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise _cannot(f"{name} cannot be {value!r:.40}", f"it is {least:g} to {most:g}")


def nothing_sought() -> UsageError:
    """A query without a leg."""
    return _cannot("the query looks for nothing", "it has neither a dense nor a sparse vector, and no text")


def keys_of(keys: Iterable[object]) -> None:
    """Refuse keys of a payload that no store could hold.

    Raises:
        UsageError: MS-2655.
    """
    for key in keys:
        if not isinstance(key, str) or not _is_key(key):
            raise _cannot(
                f"{key!r:.60} is no key of a payload", "a letter, then letters, digits, _ . and -, at most 128"
            )


@functools.lru_cache(maxsize=1024)
def _is_key(key: str) -> bool:
    """Whether it may be a payload's key; points have the same few over and over."""
    return _KEY.fullmatch(key) is not None


def payload_of(payload: Mapping[str, object], types: Mapping[str, FieldType]) -> dict[str, object]:
    """A payload without its nulls, whose fields are of their types.

    Raises:
        UsageError: MS-2653, MS-2655.
    """
    kept = {key: value for key, value in payload.items() if value is not None}
    keys_of(kept)
    for key, value in kept.items():
        kind = types.get(key)
        if why := no_json(value) if kind is None else misfit(value, kind):
            what = f"field {key!r}, which is {kind}" if kind else f"key {key!r}"
            raise UsageError(
                f"the payload does not fit {what}",
                code="MS-2653",
                why=why,
                fix=f"give {key} a value that is {kind or 'JSON'}, or leave it out",
            )
    return kept


def patch_of(patch: Mapping[str, object], types: Mapping[str, FieldType]) -> tuple[dict[str, object], tuple[str, ...]]:
    """The keys that a patch sets, and those that it takes out.

    Raises:
        UsageError: MS-2653, MS-2655.
    """
    keys_of(patch)
    return payload_of(patch, types), tuple(key for key, value in patch.items() if value is None)


def vectors_of(vectors: Sequence[object], dims: int, *, unit: bool) -> npt.NDArray[np.float32]:
    """Vectors as one float32[n, dims] array, of unit length where that is asked for.

    Raises:
        UsageError: MS-2654, wrong number of dimensions, not finite, or of no length where unit length is asked for.
    """
    if not len(vectors):
        return np.empty((0, dims), np.float32)
    try:
        found: npt.NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise _no_vector(f"not every one is {dims} numbers: {error}", dims) from error
    if found.shape != (len(vectors), dims):
        raise _no_vector(f"together they have the shape {found.shape}", dims)
    lengths = np.sqrt(np.einsum("ij,ij->i", found, found, dtype=np.float64))
    if not np.isfinite(lengths).all():
        raise _no_vector("a number in it is not finite", dims)
    if not unit:
        return found
    if not lengths.all():
        raise _no_vector("it is all zeros, which is near to nothing", dims)
    scaled: npt.NDArray[np.float32] = found / lengths[:, None].astype(np.float32)
    return scaled


def vector_of(vector: object, dims: int, *, unit: bool) -> npt.NDArray[np.float32]:
    """One vector as float32[dims], of unit length where that is asked for; as `vectors_of`, for a query's.

    Raises:
        UsageError: MS-2654.
    """
    try:
        found: npt.NDArray[np.float32] = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise _no_vector(f"it is not {dims} numbers: {error}", dims) from error
    if found.shape != (dims,):
        raise _no_vector(f"it has the shape {found.shape}", dims)
    with np.errstate(all="ignore"):
        square = float(found @ found)
    if not 1e-12 < square < 1e12 or not unit:  # rare: zeros, infinities, lengths that overflow
        return vectors_of([found], dims, unit=unit).reshape(dims)
    if abs(square - 1.0) >= 1e-6:
        found = found / np.float32(math.sqrt(square))
    return found


def sparse_of(indices: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    """A sparse vector's indices in rising order, with their weights.

    Raises:
        UsageError: MS-2654.
    """
    pairs = sorted(zip(indices, values, strict=False))
    good = len(indices) == len(values) == len(set(indices)) and all(0 <= index < 1 << 32 for index in indices)
    if not good or not np.isfinite(np.asarray(values, np.float32)).all():
        raise UsageError(
            "a sparse vector does not fit",
            code="MS-2654",
            why="its indices are not distinct and below 2^32, or its weights not as many and finite",
            fix="give each index one finite weight",
        )
    return [index for index, _ in pairs], [value for _, value in pairs]


def check_schema(store: str, schema: Schema, can: Capabilities) -> None:
    """Refuse an index that the store cannot hold, and one that no store could.

    Raises:
        UsageError: MS-2655, MS-2657.
    """
    between("dims", schema.dims, 1, 1 << 20)
    between("words", schema.words, 1, 1e9)
    keys_of(schema.types)
    missing = [
        why
        for wrong, why in (
            (schema.dims > can.max_dims, f"vectors have at most {can.max_dims} numbers"),
            (schema.metric not in can.metrics, f"nearness is {' or '.join(can.metrics)}"),
            (schema.sparse and not can.sparse, "points have no sparse vectors"),
            (len(schema.types) != len(schema.fields), "a field is named twice"),
        )
        if wrong
    ]
    missing += [f"no field is {field.type}" for field in schema.fields if field.type not in can.field_types]
    if missing:
        raise schema_beyond(store, missing[0])


def _no_vector(why: str, dims: int) -> UsageError:
    return UsageError(
        "a vector does not fit the index",
        code="MS-2654",
        why=why,
        fix=f"give {dims} finite numbers that are not all zero, from the embedder that the index was made with",
    )


def _cannot(what: str, why: str) -> UsageError:
    return UsageError(what, code="MS-2655", why=why, fix="correct it in the call")
