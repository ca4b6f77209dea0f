"""Checks of a batch as a whole: how many rows, how old, repeated ones, and how the values are distributed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from mainspring.declare.duration import spell
from mainspring.declare.quality import Check, CheckKind
from mainspring.features.quality.results import CheckResult, failed_state, samples_of
from mainspring.features.quality.rowwise import plain_floats
from mainspring.lazy import lazy
from mainspring.metrics.distance import jensen_shannon

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from mainspring.metrics.arrays import Floats, Ints

    Truths: TypeAlias = NDArray[np.bool_]
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["Whole", "column_distance", "judge_whole", "repeated"]

_CELLS = 16
_COMMONEST = 15
_SECOND = 1e6


class Whole(msgspec.Struct, frozen=True):
    """A batch as a whole.

    Attributes:
        count: how many rows there are, or would be.
        newest_us: the newest event among them, UTC microseconds; None when there is none.
        columns: reads columns of these rows.
        new: the rows that are new.
        held: reads a column of the rows that the log holds already; None when it holds none.
    """

    count: int
    newest_us: int | None
    columns: Callable[[Sequence[str]], pa.Table]
    new: pa.Table
    held: Callable[[str], pa.ChunkedArray] | None = None


def judge_whole(checks: Sequence[Check], whole: Whole, now_us: int) -> tuple[CheckResult, ...]:
    """Judge a batch by the checks of the whole; checks of single rows are passed over.

    Args:
        checks: the checks.
        whole: the batch.
        now_us: the present, UTC microseconds.
    """
    found = {
        CheckKind.ROWS: lambda check: _rows(check, whole),
        CheckKind.FRESH: lambda check: _fresh(check, whole, now_us),
        CheckKind.UNIQUE: lambda check: _unique(check, whole),
        CheckKind.DISTANCE: lambda check: _distance(check, whole),
    }
    return tuple(found[check.kind](check) for check in checks if check.of_table)


def _said(
    check: Check, fails: bool | None, rows: int, value: float | None, why: str, failing: int = 1, samples: object = ()
) -> CheckResult:
    return CheckResult(
        check=str(check),
        on_fail=check.on_fail,
        state="not_judged" if fails is None else failed_state(check) if fails else "ok",
        rows=rows,
        failing=failing if fails else 0,
        value=value,
        why=why,
        samples=samples,  # type: ignore[arg-type]
    )


def _rows(check: Check, whole: Whole) -> CheckResult:
    few = check.least is not None and whole.count < check.least
    many = check.most is not None and whole.count > check.most
    why = f"{whole.count:,} rows"
    if few or many:
        why += f", {f'fewer than {check.least:,}' if few else f'more than {check.most:,}'}"
    return _said(check, few or many, whole.count, float(whole.count), why)


def _fresh(check: Check, whole: Whole, now_us: int) -> CheckResult:
    assert check.age_us is not None
    if whole.newest_us is None:
        return _said(check, True, whole.count, None, "there is no row")
    age = max(now_us - whole.newest_us, 0)
    why = f"the newest event is {_spelled(age)} old"
    return _said(check, age > check.age_us, whole.count, age / _SECOND, why)


def _spelled(age_us: int) -> str:
    """An age in words, to the second, or to the minute, hour or day when it is long."""
    for unit in (86_400_000_000, 3_600_000_000, 60_000_000):
        if age_us >= 3 * unit:
            return spell(age_us // unit * unit)
    return spell(age_us // 1_000_000 * 1_000_000)


def _unique(check: Check, whole: Whole) -> CheckResult:
    rows = whole.columns(check.columns)
    again = repeated([rows.column(name) for name in check.columns])
    count = int(again.sum())
    samples = samples_of(rows.filter(pa.array(again))) if count else ()
    return _said(check, count > 0, len(rows), None, f"{count:,} of {len(rows):,} rows repeat one", count, samples)


def repeated(columns: Sequence[pa.ChunkedArray]) -> Truths:
    """Which rows have the values of an earlier one, (rows,); a row with a null repeats none."""
    codes = np.zeros(len(columns[0]), np.int64)
    valid = np.ones(len(codes), np.bool_)
    for column in columns:
        encoded = plain_floats(column.combine_chunks()).dictionary_encode()
        places = encoded.indices.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        valid &= pc.is_valid(encoded.indices).to_numpy(zero_copy_only=False)
        codes = np.unique(codes * max(len(encoded.dictionary), 1) + places, return_inverse=True)[1]
    again = np.zeros(len(codes), np.bool_)
    again[valid] = True
    told = np.flatnonzero(valid)
    again[told[np.unique(codes[told], return_index=True)[1]]] = False
    return again


def _distance(check: Check, whole: Whole) -> CheckResult:
    (name,) = check.columns
    assert check.limit is not None
    assert check.least is not None
    count = len(whole.new)
    if whole.held is None:
        return _said(check, None, count, None, "there is nothing to compare with yet")
    if count < check.least:
        return _said(check, None, count, None, f"{count:,} new rows are too few to judge")
    held = whole.held(name)
    if not len(held):
        return _said(check, None, count, None, "there is nothing to compare with yet")
    found = column_distance(held, whole.new.column(name))
    return _said(check, found > check.limit, count, found, f"distance {found:.3f} over {count:,} new rows")


def column_distance(reference: pa.ChunkedArray, current: pa.ChunkedArray) -> float:
    """The distance of two columns' distributions, 0 to 1: as `mainspring.declare.checking.distance` says."""
    if pa.types.is_string(reference.type) or pa.types.is_boolean(reference.type):
        known, new = _categories(reference, current)
    else:
        known, new = _numbers(reference, current)
    return float(jensen_shannon(known, new)) if len(current) and len(reference) else math.nan


def _categories(reference: pa.ChunkedArray, current: pa.ChunkedArray) -> tuple[Ints, Ints]:
    counted = pc.value_counts(reference.drop_null())
    values, counts = counted.field("values"), counted.field("counts").to_numpy()
    # The commonest by count, equal ones in the order of their values: whatever order the rows came in.
    order = pc.sort_indices(
        pa.table([values, counted.field("counts")], names=["value", "count"]),
        sort_keys=[("count", "descending"), ("value", "ascending")],
    ).to_numpy()[:_COMMONEST]
    common = values.take(pa.array(order))
    new = [pc.sum(pc.equal(current, value)).as_py() or 0 for value in common]
    named = counts[order]
    rests = [
        [int(column.null_count), len(column) - int(column.null_count) - int(sum(listed))]
        for column, listed in ((reference, named), (current, new))
    ]
    return np.array([*named, *rests[0]], np.int64), np.array([*new, *rests[1]], np.int64)


def _numbers(reference: pa.ChunkedArray, current: pa.ChunkedArray) -> tuple[Ints, Ints]:
    known, new = _floats(reference), _floats(current)
    edges = _edges(np.sort(known[~np.isnan(known)]))
    return _counted(known, edges, reference.null_count), _counted(new, edges, current.null_count)


def _floats(column: pa.ChunkedArray) -> Floats:
    held = column.drop_null()
    if pa.types.is_temporal(held.type):
        held = held.cast(pa.int64() if pa.types.is_timestamp(held.type) else pa.int32())
    return np.asarray(held.cast(pa.float64()), dtype=np.float64)


def _edges(ordered: Floats) -> Floats:
    """Upper edges of cells of about equal mass; a value with much mass of its own has a cell of its own."""
    count = len(ordered)
    if not count:
        return np.empty(0)
    edges = np.unique(ordered[[min(i * count // _CELLS, count - 1) for i in range(1, _CELLS)]])
    mass = np.searchsorted(ordered, edges, "right") - np.searchsorted(ordered, edges, "left")
    atoms = edges[mass > count / (2 * _CELLS)]
    return np.unique(np.concatenate([edges, np.nextafter(atoms, -np.inf)]))


def _counted(values: Floats, edges: Floats, nulls: int) -> Ints:
    finite = values[~np.isnan(values)]
    cells = np.bincount(np.searchsorted(edges, finite, "left"), minlength=len(edges) + 1)
    return np.array([*cells, len(values) - len(finite), nulls], np.int64)
