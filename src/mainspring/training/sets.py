"""Training sets: the rows whose label is known, with the features as they were known then, pinned by versions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec.structs import replace

from mainspring.declare.data import Column
from mainspring.declare.frame import Frame
from mainspring.declare.model import ModelSpec
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError
from mainspring.features.logs.log import SourceTable, TableVersion, read_log, source_of, standing
from mainspring.features.offline.history import KERNELS
from mainspring.features.offline.recall import recall
from mainspring.features.selection import Selection, selection_of
from mainspring.features.view import DELETED, EVENT, RETRACTS, SEQ, Pick, View
from mainspring.lazy import lazy
from mainspring.plan.encoding import digest, encode
from mainspring.ports.compute import Compute
from mainspring.ports.tables import HasTables

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = [
    "AT",
    "KNOWN",
    "LABEL",
    "SLICE",
    "Built",
    "TrainingShape",
    "beside",
    "build",
    "empty_columns",
    "input_dtype",
    "matrix",
    "shape_of",
]

AT, KNOWN, LABEL, SLICE = "_at", "_known", "_label", "_slice_"
"""The columns of a training set besides the model's: the row's moment, when its label was known, the label, slices."""

_QUANTITIES = frozenset({Kind.INTEGER, Kind.FLOAT, Kind.BOOLEAN, Kind.DECIMAL})
_NUMBERS = _QUANTITIES | {Kind.TIMESTAMP, Kind.DATE}
_WIDE = 1 << 24  # whole numbers beyond this are not exact in float32


class TrainingShape(msgspec.Struct, frozen=True):
    """What a training set is made of.

    Attributes:
        model: the model's name.
        source: the label's source, whose rows are the examples.
        label: the label's column.
        known_at: the column with the moment the label is known, or None.
        own: the columns of the source that are inputs.
        selection: the features that are inputs: what is read, and what is computed.
        columns: the model's columns, in the order of its inputs.
        missing: those of them that may be missing when the model is asked: features always, own columns if nullable.
        slices: columns of the source to judge apart.
        task: ``binary`` for a boolean label, else ``regression``.
    """

    model: str
    source: SourceTable
    label: str
    known_at: str | None
    own: tuple[str, ...]
    selection: Selection
    columns: tuple[str, ...]
    missing: tuple[str, ...]
    slices: tuple[str, ...]
    task: Literal["binary", "regression"]

    @property
    def picks(self) -> tuple[Pick, ...]:
        """The features of views that are read."""
        return self.selection.picks


class Built(msgspec.Struct, frozen=True):
    """A training set with what it takes to tell whether another is the same.

    Attributes:
        frame: `AT`, `KNOWN`, `LABEL`, slices, then the model's columns, by rising moment.
        spine: digest of the keys, moments and labels that the features were looked up for.
        kernels: by view, the window kernel that answered it; empty for a view without windows.
    """

    frame: Frame
    spine: str
    kernels: Mapping[str, str]


def shape_of(name: str, spec: ModelSpec, views: Mapping[str, View]) -> TrainingShape:
    """The shape of a declared model's training set.

    Args:
        name: the model's name.
        spec: what was declared.
        views: the runtime views by name.

    Raises:
        DataError: MS-2201, an input or the label is no number; MS-2206, two inputs have one name.
    """
    selection = selection_of(spec.inputs, views)
    columns: list[str] = []
    for item in spec.inputs:
        columns += [item.name] if isinstance(item, Column) else selection_of([item], views).names
    own = {item.name: item.field.type for item in spec.inputs if isinstance(item, Column)}
    types = {output.name: output.type for output in selection.outputs} | own
    _are_numbers(name, spec, columns, types)
    return TrainingShape(
        model=name,
        source=source_of(spec.spine),
        label=spec.label.name,
        known_at=None if spec.known_at is None else spec.known_at.name,
        own=tuple(own),
        selection=selection,
        columns=tuple(columns),
        missing=tuple(column for column in columns if column not in own or own[column].nullable),
        slices=tuple(dict.fromkeys(column.name for column in spec.slices)),
        task="binary" if spec.label.field.type.kind is Kind.BOOLEAN else "regression",
    )


def _are_numbers(name: str, spec: ModelSpec, columns: Sequence[str], types: Mapping[str, ColumnType]) -> None:
    for column in columns:
        if types[column].kind not in _NUMBERS:
            raise DataError(
                f"input {column!r} of model {name!r} is {types[column]}, not a number",
                code="MS-2201",
                why="models take numbers; encoding text inside the trainer would not be served",
                fix="make a number of it in a feature view, or leave it out",
            )
    if spec.label.field.type.kind not in _QUANTITIES:
        raise DataError(
            f"label {spec.label.name!r} of model {name!r} is {spec.label.field.type}, not a number",
            code="MS-2201",
            why="a label is true or false, or a quantity",
            fix="add a boolean column to the source, or a number",
        )
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise DataError(
            f"two inputs of model {name!r} are called {twice[0]!r}",
            code="MS-2206",
            why="a request, a trainer and a chart could not tell them apart",
            fix="rename the feature in its view, or leave one out",
        )


def build(
    services: HasTables,
    shape: TrainingShape,
    spine: TableVersion,
    versions: Mapping[str, TableVersion],
    functions: Mapping[str, Callable[..., object]] | None = None,
    compute: Compute | None = None,
) -> Built:
    """The training set at pinned versions; the same versions give the same bytes.

    Of the corrections of one event the one that arrived last counts; deleted rows and rows without a label are left
    out, and NaN is no label.

    Args:
        services: where the tables are.
        shape: what it is made of.
        spine: the version of the label's source.
        versions: the versions of the views' logs, by view.
        functions: its on-demand functions by name.
        compute: other machines for a set of many rows, or None.

    Raises:
        DataError: MS-2202, no row has a label; and UserCodeError as `recall` raises.
        StoreError: MS-4131, a pinned version is gone.
    """
    examples = _examples(services, shape, spine)
    if not len(examples):
        raise DataError(
            f"model {shape.model!r} has no row to learn from",
            code="MS-2202",
            why=f"of {spine.rows} rows of {shape.source.name!r} none has a known {shape.label!r}",
            fix="bring rows whose label is known",
        )
    asked = pa.table({name: examples.column(name) for name in _keys(shape)} | {AT: examples.column(EVENT)})
    given = {name: examples.column(name) for name in _requested(shape) if name not in asked.column_names}
    rows = Frame(pa.table(dict(zip(asked.column_names, asked.columns, strict=True)) | given))
    answered = recall(
        services, shape.selection, functions or {}, rows, time=AT, names="full", versions=versions, compute=compute
    ).arrow()
    features = {output.name: answered.column(f"{output.view}__{output.name}") for output in shape.selection.outputs}
    known = {
        KNOWN: examples.column(shape.known_at or EVENT),
        LABEL: examples.column(shape.label).cast(pa.float64()),
    }
    found = {AT: answered.column(AT), **known}
    found |= {SLICE + name: examples.column(name) for name in shape.slices}
    for name in shape.columns:
        found[name] = examples.column(name) if name in shape.own else features[name]
    identity = pa.table({f"key_{number}": column for number, column in enumerate(asked.columns)} | known)
    kernels = json.loads((answered.schema.metadata or {}).get(KERNELS, b"{}"))
    return Built(Frame(pa.table(found)), digest(encode(Frame(identity))), kernels)


def beside(services: HasTables, shape: TrainingShape, spine: TableVersion, columns: Sequence[str]) -> Frame:
    """Further columns of the label's source, row by row beside the training set that `build` makes at this version."""
    wider = replace(shape, slices=(*shape.slices, *columns))
    return Frame(_examples(services, wider, spine).select(list(columns)))


def _keys(shape: TrainingShape) -> list[str]:
    return sorted({key for item in shape.picks for key in item.view.key_names})


def _requested(shape: TrainingShape) -> list[str]:
    return [field.name for field in shape.selection.request]


def _examples(services: HasTables, shape: TrainingShape, spine: TableVersion) -> pa.Table:
    source = shape.source
    roles = {shape.label, shape.known_at or shape.label, source.id or shape.label}
    wanted = sorted({*_keys(shape), *_requested(shape), *shape.own, *shape.slices, *roles})
    rows = standing(read_log(services.tables, source.log, spine.version, [*wanted, EVENT, SEQ, DELETED, RETRACTS]))
    if source.id:
        rows = _last_versions(rows, source.id)
    mask = pc.and_(pc.invert(rows.column(DELETED)), pc.is_valid(rows.column(shape.label)))
    if pa.types.is_floating(rows.column(shape.label).type):
        mask = pc.and_(mask, pc.invert(pc.fill_null(pc.is_nan(rows.column(shape.label)), False)))
    if shape.known_at:
        mask = pc.and_(mask, pc.is_valid(rows.column(shape.known_at)))
    return rows.filter(mask).sort_by([(EVENT, "ascending"), (SEQ, "ascending")])


def _last_versions(rows: pa.Table, key: str) -> pa.Table:
    """The version of each event that arrived last."""
    ordered = rows.sort_by([(SEQ, "descending")])
    codes = ordered.column(key).combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return ordered.take(pa.array(np.sort(np.unique(codes, return_index=True)[1])))


def matrix(frame: Frame, columns: Sequence[str], dtype: Literal["float32", "float64"]) -> NDArray[np.floating]:
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


def empty_columns(frame: Frame, columns: Sequence[str]) -> list[str]:
    """The columns without a single value: a join that never matches, or a feature that is never known in time."""
    table = frame.arrow()
    return [name for name in columns if table.column(name).null_count == len(table)]
