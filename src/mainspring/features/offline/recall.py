"""A selection at the moments of a spine: features as they were known, and what is computed of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from mainspring.declare.data import did_you_mean
from mainspring.declare.frame import Frame
from mainspring.declare.record import FieldSpec
from mainspring.errors import DataError
from mainspring.features.calculate import runner_of
from mainspring.features.cast import Reading, UnfitError, cast_column, misfit
from mainspring.features.logs.log import TableVersion
from mainspring.features.offline.history import history
from mainspring.features.selection import Selection
from mainspring.features.view import arrow_type
from mainspring.lazy import lazy
from mainspring.ports.compute import Compute
from mainspring.ports.tables import HasTables

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["recall"]


def recall(
    services: HasTables,
    selection: Selection,
    functions: Mapping[str, Callable[..., object]],
    spine: Frame,
    *,
    time: str = "at",
    as_known: bool = True,
    names: Literal["short", "full"] = "short",
    status: bool = False,
    versions: Mapping[str, int | TableVersion] | None = None,
    compute: Compute | None = None,
) -> Frame:
    """As `mainspring.features.offline.history.history`, with on-demand features.

    The request's fields are columns of the spine.

    Args:
        services: where the table store is.
        selection: what is asked for.
        functions: the on-demand functions by name.
        spine: one row a question.
        time: the column with the moments.
        as_known: whether a row counts only from the moment it became known.
        names: ``short``, or ``full`` for ``view__feature``.
        status: add ``view__status`` and ``view__event_time`` of each view that is read.
        versions: pinned versions of the views' logs by the name of the view.
        compute: other machines, as `history` takes them.

    Raises:
        DataError, StoreError: as `history`; MS-2164, the spine lacks a field of the request, or has one of another
            type; MS-2162, an on-demand function returned what it should not.
        UserCodeError: MS-2161, an on-demand function failed; MS-2163, it looks at other rows.
    """
    read: dict[str, Any] = {
        "time": time,
        "as_known": as_known,
        "status": status,
        "versions": versions,
        "compute": compute,
    }
    if selection.plain:
        return history(services, selection.picks, spine, names=names, **read)
    asked = spine.arrow()
    found = history(services, selection.picks, _narrow(asked, selection, time), names="full", **read).arrow()
    features = [found.column(f"{one.view.name}__{feature.name}") for one in selection.picks for feature in one.features]
    row = features + [_requested(asked, one) for one in selection.request]
    for calculation in selection.calculations:
        given = {item.name: row[item.place] for item in calculation.inputs}
        row += runner_of(calculation, functions[calculation.name]).table(pa.table(given))
    table = asked
    for output in selection.outputs:
        name = output.name if names == "short" else f"{output.view}__{output.name}"
        if name in table.column_names:
            raise DataError(
                f"two columns would be called {name!r}",
                code="MS-2116",
                why=f"one is of {output.view!r}, one of the spine or of another view",
                fix='pass names="full", or leave one out',
            )
        table = table.append_column(pa.field(name, arrow_type(output.type)), row[output.place])
    if status:
        for one in selection.picks:
            for part in ("status", "event_time"):
                table = table.append_column(f"{one.view.name}__{part}", found.column(f"{one.view.name}__{part}"))
    return Frame(table.replace_schema_metadata({**(asked.schema.metadata or {}), **(found.schema.metadata or {})}))


def _narrow(spine: pa.Table, selection: Selection, time: str) -> Frame:
    """The columns that history looks at, so that nothing of the spine's is in the way of the features' full names."""
    wanted = [name for name in dict.fromkeys((*selection.keys, time)) if name in spine.column_names]
    return Frame(spine.select(wanted))


def _requested(spine: pa.Table, field: FieldSpec) -> pa.ChunkedArray:
    if spine.column_names.count(field.name) != 1:
        raise DataError(
            f"the spine has no column {field.name!r}",
            code="MS-2164",
            why="an on-demand feature is given it; online the request carries it",
            fix=did_you_mean(field.name, spine.column_names),
        )
    column = spine.column(field.name)
    try:
        found = cast_column(column, field.type, Reading())
    except UnfitError as error:
        raise DataError(
            f"the spine's column {field.name!r} is no {field.type.kind.value}",
            code="MS-2164",
            why=misfit(column, field.type, error),
            fix="cast it before",
        ) from error
    if found.null_count and not field.type.nullable:
        raise DataError(
            f"the spine's column {field.name!r} has {found.null_count} nulls",
            code="MS-2164",
            why=f"the request field is {field.type}",
            fix=f"leave those rows out, or declare {field.name}=app.request(... | None)",
        )
    return found
