"""The values that references may have: what stands in another source's log, kept until that has a new version."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from mainspring.declare.quality import Check
from mainspring.features.logs.log import read_log, standing
from mainspring.features.quality.rowwise import Known
from mainspring.features.view import DELETED, RETRACTS, SEQ
from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["known_in"]

_MOST = 64
_kept: weakref.WeakKeyDictionary[TableStore, dict[tuple[str, str], tuple[int, pa.Array]]] = weakref.WeakKeyDictionary()


def known_in(tables: TableStore) -> Known:
    """Looks up the values of a reference in the newest version of the other source's log.

    A log that is not there holds no value. Rows that were taken away or deleted do not count.
    """

    def known(check: Check) -> pa.Array:
        version = tables.version(check.log)
        if version is None:
            return pa.nulls(0)
        kept = _kept.setdefault(tables, {})
        place = (check.log, check.to_column)
        found = kept.get(place)
        if found is None or found[0] != version:
            if len(kept) >= _MOST:
                kept.clear()
            found = kept[place] = (version, _values(tables, check, version))
        return found[1]

    return known


def _values(tables: TableStore, check: Check, version: int) -> pa.Array:
    rows = standing(read_log(tables, check.log, version, [check.to_column, DELETED, SEQ, RETRACTS]))
    alive = rows.filter(pc.invert(rows.column(DELETED)))
    return pc.unique(alive.column(check.to_column).drop_null())
