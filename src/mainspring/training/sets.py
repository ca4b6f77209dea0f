"""Training sets: the rows whose label is known, with the features as they were known then, pinned by versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from mainspring.declare.data import Column
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.frame import Frame
from mainspring.declare.model import ModelSpec
from mainspring.declare.record import Kind
from mainspring.errors import DataError
from mainspring.features.history import HasTables, history
from mainspring.features.log import SourceTable, TableVersion, source_of
from mainspring.features.view import DELETED, EVENT, SEQ, Pick, View, picks_of
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["AT", "KNOWN", "LABEL", "SLICE", "Split", "TrainingShape", "build", "matrix", "shape_of", "split"]

AT, KNOWN, LABEL, SLICE = "_at", "_known", "_label", "_slice_"
"""The columns of a training set besides the model's: the row's moment, when its label was known, the label, slices."""

_NUMBERS = frozenset({Kind.INTEGER, Kind.FLOAT, Kind.BOOLEAN, Kind.DECIMAL, Kind.TIMESTAMP, Kind.DATE})
_WIDE = 1 << 24  # whole numbers beyond this are not exact in float32


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """What a training set is made of.

    Attributes:
        model: the model's name.
        source: the label's source, whose rows are the examples.
        label: the label's column.
        known_at: the column with the moment the label is known, or None.
        own: the columns of the source that are inputs.
        picks: the features that are inputs.
        columns: the model's columns, in the order of its inputs.
        slices: columns of the source to judge apart.
        task: ``binary`` for a boolean label, else ``regression``.
    """

    model: str
    source: SourceTable
    label: str
    known_at: str | None
    own: tuple[str, ...]
    picks: tuple[Pick, ...]
    columns: tuple[str, ...]
    slices: tuple[str, ...]
    task: Literal["binary", "regression"]


class Split(msgspec.Struct, frozen=True):
    """How rows are divided by time.

    Attributes:
        train: rows to fit on.
        evaluate: the newest rows, to judge on.
        from_us: the first moment that is judged.
        cutoff_us: rows fitted on are older than this, and their label was known by then.
    """

    train: int
    evaluate: int
    from_us: int
    cutoff_us: int


def shape_of(name: str, spec: ModelSpec, views: Mapping[str, View]) -> TrainingShape:
    """The shape of a declared model's training set.

    Args:
        name: the model's name.
        spec: what was declared.
        views: the runtime views by name.

    Raises:
        DataError: MS-2201, an input is no number.
    """
    picks = picks_of(spec.inputs, views)
    waiting = iter(picks)
    columns: list[str] = []
    for item in spec.inputs:
        columns += [item.name] if isinstance(item, Column) else [f.name for f in next(waiting).features]
    types = {f.name: f.type for p in picks for f in p.features} | {f.name: f.type for f in spec_of(spec.spine).fields}
    for column in columns:
        if types[column].kind not in _NUMBERS:
            raise DataError(
                f"input {column!r} of model {name!r} is {types[column]}, not a number",
                code="MS-2201",
                why="models take numbers; encoding text inside the trainer would not be served",
                fix="make a number of it in a feature view, or leave it out",
            )
    return TrainingShape(
        name,
        source_of(spec.spine),
        spec.label.name,
        None if spec.known_at is None else spec.known_at.name,
        tuple(item.name for item in spec.inputs if isinstance(item, Column)),
        picks,
        tuple(columns),
        tuple(column.name for column in spec.slices),
        "binary" if spec.label.field.type.kind is Kind.BOOLEAN else "regression",
    )


def build(
    services: HasTables, shape: TrainingShape, spine: TableVersion, versions: Mapping[str, TableVersion]
) -> Frame:
    """The training set at pinned versions: `AT`, `KNOWN`, `LABEL`, slices, then the model's columns, by moment.

    Corrections of one event count once, as known last; deleted rows and rows without a label are left out.

    Raises:
        DataError: MS-2202, no row has a label.
    """
    examples = _examples(services, shape, spine)
    if not len(examples):
        raise DataError(
            f"model {shape.model!r} has no row to learn from",
            code="MS-2202",
            why=f"of {spine.rows} rows of {shape.source.name!r} none has a known {shape.label!r}",
            fix="bring rows whose label is known",
        )
    keys = {key for item in shape.picks for key in item.view.key_names}
    asked = pa.table({name: examples.column(name) for name in sorted(keys - {AT})} | {AT: examples.column(EVENT)})
    answered = history(services, shape.picks, Frame(asked), time=AT, versions=versions).arrow()
    found = {
        AT: answered.column(AT),
        KNOWN: examples.column(shape.known_at or EVENT),
        LABEL: examples.column(shape.label).cast(pa.float64()),
    }
    found |= {SLICE + name: examples.column(name) for name in shape.slices}
    for name in shape.columns:
        found[name] = examples.column(name) if name in shape.own else answered.column(name)
    return Frame(pa.table(found))


def _examples(services: HasTables, shape: TrainingShape, spine: TableVersion) -> pa.Table:
    source = shape.source
    keys = {key for item in shape.picks for key in item.view.key_names}
    wanted = {*keys, *shape.own, *shape.slices, shape.label} | ({shape.known_at} if shape.known_at else set())
    wanted |= {source.id} if source.id else set()
    rows = services.tables.read(
        source.log, version=spine.version, columns=[*sorted(str(name) for name in wanted), EVENT, SEQ, DELETED]
    )
    if source.id:
        rows = _last_versions(rows, source.id)
    mask = pc.and_(pc.invert(rows.column(DELETED)), pc.is_valid(rows.column(shape.label)))
    if shape.known_at:
        mask = pc.and_(mask, pc.is_valid(rows.column(shape.known_at)))
    return rows.filter(mask).sort_by([(EVENT, "ascending"), (SEQ, "ascending")])


def _last_versions(rows: pa.Table, key: str) -> pa.Table:
    """The version of each event that arrived last."""
    ordered = rows.sort_by([(SEQ, "descending")])
    codes = ordered.column(key).combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return ordered.take(pa.array(np.sort(np.unique(codes, return_index=True)[1])))


def split(frame: Frame, holdout: float, gap_us: int) -> Split:
    """Divide by time: the newest share is judged; what is fitted was over, and known, a gap before.

    Args:
        frame: a training set, by rising `AT`.
        holdout: the share of rows to judge on, in (0, 1).
        gap_us: microseconds between the two.

    Raises:
        DataError: MS-2203, one of the parts is empty.
    """
    at, known = _moments(frame, AT), _moments(frame, KNOWN)
    first = int(at[min(int(len(at) * (1 - holdout)), len(at) - 1)])
    cutoff = first - gap_us
    evaluate = int(np.count_nonzero(at >= first))
    train = int(np.count_nonzero((at < cutoff) & (known <= cutoff)))
    if not evaluate or not train:
        raise DataError(
            f"{len(at)} rows cannot be divided into a part to learn from and a part to judge on",
            code="MS-2203",
            why=f"{train} rows to learn from, {evaluate} to judge on",
            fix="bring more rows, or a smaller holdout= or gap=",
        )
    return Split(train, evaluate, first, cutoff)


def parts(frame: Frame, how: Split) -> tuple[Frame, Frame]:
    """The rows to fit on and the rows to judge on."""
    at, known = _moments(frame, AT), _moments(frame, KNOWN)
    table = frame.arrow()
    return (
        Frame(table.filter(pa.array((at < how.cutoff_us) & (known <= how.cutoff_us)))),
        Frame(table.filter(pa.array(at >= how.from_us))),
    )


def _moments(frame: Frame, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.asarray(frame.arrow().column(name).cast(pa.int64()))


def matrix(
    frame: Frame, columns: Sequence[str], dtype: Literal["float32", "float64"]
) -> np.ndarray[tuple[int, int], np.dtype[np.floating]]:
    """The model's columns as (rows, columns), C order, NaN where missing."""
    values = frame[list(columns)].numpy()
    return np.ascontiguousarray(values.reshape(len(frame), len(columns)), dtype=dtype)


def input_dtype(frame: Frame, columns: Sequence[str]) -> Literal["float32", "float64"]:
    """float32, unless a column holds whole numbers or moments that float32 would blur."""
    table = frame.arrow()
    for name in columns:
        kind = table.column(name).type
        if pa.types.is_temporal(kind):
            return "float64"
        if pa.types.is_integer(kind):
            bounds = pc.min_max(table.column(name)).as_py()
            if max(abs(bounds["min"] or 0), abs(bounds["max"] or 0)) > _WIDE:
                return "float64"
    return "float32"


def named(shape_model: str) -> str:
    """The name of a model's training-set task."""
    return f"training_set/{shape_model}"


def spine_name(spec: ModelSpec) -> str:
    """The name of the label's source."""
    return name_of(spec.spine)
