"""Rows that a table does not hold yet, told by all their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainspring.declare.record import FieldSpec
from mainspring.features.duck import connection, quoted
from mainspring.features.view import stored_field
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["unheld"]


def unheld(rows: pa.Table, held: pa.Table, fields: Sequence[FieldSpec]) -> pa.Table:
    """Of rows, as many copies of each as there are more than in `held`, in the order they came."""
    names = [item.name for item in fields]
    stored = [rows.column(item.name).cast(stored_field(item).type) for item in fields]
    listed = ", ".join(quoted(name) for name in names)
    same = " and ".join(f"n.{quoted(name)} is not distinct from h.{quoted(name)}" for name in names)
    with connection() as opened:
        opened.register("incoming", pa.table([*stored, pa.array(np.arange(len(rows)))], names=[*names, "rid"]))
        opened.register("held", held.select(names))
        found = opened.sql(
            f"with n as (select *, row_number() over (partition by {listed} order by rid) as copy from incoming), "
            f"h as (select {listed}, count(*) as copies from held group by all) "
            f"select n.rid from n left join h on {same} where n.copy > coalesce(h.copies, 0) order by n.rid"
        ).to_arrow_table()
    return rows.take(found.column("rid"))
