"""The columns of a decorated view, found by running its function over empty tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mainspring.declare.data import FeatureView, Source, did_you_mean
from mainspring.declare.declaration import name_of, origin_of, spec_of
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import DataError, UserCodeError
from mainspring.features.decorated.function import call, described
from mainspring.features.logs.log import record_schema
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["check_returns", "infer", "time_of"]


def infer(view: FeatureView, fields: Mapping[str, Sequence[FieldSpec]]) -> tuple[FieldSpec, ...]:
    """The features of a decorated view: what its function returns besides keys and time.

    Args:
        view: the view.
        fields: the columns of each of its sources by name; of a view, its keys and features.

    Raises:
        UserCodeError: MS-2118, the function fails on empty tables.
        DataError: MS-2119, it returns no key, no time, or a type that no column can hold.
    """
    spec = spec_of(view)
    assert spec.function is not None
    frames = {}
    for source in spec.sources:
        columns = list(fields[name_of(source)])
        if isinstance(source, FeatureView):
            columns.append(FieldSpec(time_of(source), ColumnType(Kind.TIMESTAMP)))
        frames[name_of(source)] = record_schema(columns).empty_table()
    returned = call(spec.function, frames, name_of(view)).schema
    time = time_of(view)
    for name in (*spec.keys, time):
        if name not in returned.names:
            raise _wrong(view, f"returns no column {name!r}", f"it returns {', '.join(returned.names)}")
    found = []
    for field in returned:
        if field.name in (*spec.keys, time):
            continue
        kind = described(field.type)
        if kind is None:
            raise _wrong(view, f"returns {field.name!r} as {field.type}", "no column can hold that")
        found.append(FieldSpec(field.name, kind))
    return tuple(found)


def check_returns(view: FeatureView, fields: Mapping[str, Sequence[FieldSpec]]) -> None:
    """A decorated view that declares ``returns=`` returns those columns, as far as empty tables show.

    Args:
        view: the view.
        fields: as for `infer`.

    Raises:
        DataError: MS-2119, a column is missing.
    """
    spec = spec_of(view)
    try:
        found = [field.name for field in infer(view, fields)]
    except UserCodeError:
        return  # it needs rows; this is what returns= is for, and its run will tell
    for field in spec.returns:
        if field.name not in (*found, *spec.keys, time_of(view)):
            raise DataError(
                f"feature view {name_of(view)!r} returns no column {field.name!r}",
                code="MS-2119",
                why=f"returns= promises it, and its function returns {', '.join(found) or 'nothing else'}",
                origin=str(origin_of(view)),
                fix=did_you_mean(field.name, found),
            )


def time_of(view: FeatureView) -> str:
    """The name of the event time in a view's rows: that of its first source."""
    upstream: Source | FeatureView = view
    while isinstance(upstream, FeatureView):
        upstream = spec_of(upstream).sources[0]
    return spec_of(upstream).time


def _wrong(view: FeatureView, what: str, why: str) -> DataError:
    return DataError(
        f"feature view {name_of(view)!r} {what}",
        code="MS-2119",
        why=why,
        origin=str(origin_of(view)),
        fix="its function keeps the entity's keys and the time, and returns plain columns besides",
    )
