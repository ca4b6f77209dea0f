"""The newest row known at a moment: the six rules of point-in-time joins as one DuckDB statement.

For a spine row (e, t), among the rows of entity e with ``event <= t`` (and ``ingest <= t`` when only what was known
counts) the greatest (event, ingest, seq) answers. A log row can answer from ``vis = greatest(event, ingest)`` on, so
the running greatest event by vis leaves those rows that are ever the best, and an ASOF join on vis picks one. Only
narrow columns take part; the wide ones are gathered once, for the rows that answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mainspring.features.duck import quoted
from mainspring.features.view import DELETED, EVENT, INGEST, RETRACTS, SEQ, VALID_TO, View
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
else:
    duckdb, pa = lazy("duckdb"), lazy("pyarrow")

__all__ = [
    "EXPIRED",
    "MISSING",
    "PRESENT",
    "SPINE",
    "STEPS",
    "Shape",
    "asof_sql",
    "narrow_sql",
    "retracted_sql",
    "spine_keys",
]

MISSING, EXPIRED, PRESENT = 0, 1, 2
"""The states of an answer: no row or a tombstone; a row too old or no longer valid; a row, null values too."""

SPINE = "spine"
"""The relation that the statement reads: ``rid`` int64, ``k0`` .. by the view's keys, ``t`` int64 microseconds."""


STEPS = "retracted_steps"
"""The relation that the statement reads where rows were taken away: `newest_steps` of `retracted_sql`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the statement depends on.

    Attributes:
        keys: the log's key columns, in order.
        columns: the log's value columns to gather.
        as_known: whether rows count only from their ingest time on.
        ttl_us: how long a row answers, in microseconds, or None.
        has_valid_to: whether rows end.
        tidy: whether no row is late and no two of an entity happen at once, so that each is the best from its event
            on until the next.
        retracted: whether rows of the log take others away.
    """

    keys: tuple[str, ...]
    columns: tuple[str, ...]
    as_known: bool
    ttl_us: int | None
    has_valid_to: bool
    tidy: bool = False
    retracted: bool = False

    @classmethod
    def of(
        cls, view: View, columns: Sequence[str], as_known: bool, tidy: bool = False, retracted: bool = False
    ) -> Shape:
        """The shape for some columns of a view."""
        return cls(view.key_names, tuple(columns), as_known, view.ttl_us, view.has_valid_to, tidy, retracted)


def spine_keys(count: int) -> tuple[str, ...]:
    """The names of the key columns in the spine relation."""
    return tuple(f"k{index}" for index in range(count))


def narrow_sql(shape: Shape, log: str) -> str:
    """The narrow columns of a log, for the entities that the spine names and the moments up to its last."""
    rows = f"{_narrow(shape, log)} where {RETRACTS} is null{_standing(shape, log)})"
    return f"{rows} semi join {SPINE} using ({_known(shape)})"


def retracted_sql(shape: Shape, log: str) -> str:
    """The narrow columns of a log's rows that were taken away again, with ``ended``, for `newest_steps`; sorted."""
    keys = _known(shape)
    ended = (
        f"select {RETRACTS} as seq, epoch_us(min({INGEST})) as ended from {log} where {RETRACTS} is not null group by 1"
    )
    return (
        f"select *, dense_rank() over (order by {keys}) - 1 as entity from ({_narrow(shape, log)} "
        f"where {RETRACTS} is null) semi join {SPINE} using ({keys})) join ({ended}) using (seq) "
        f"where vis < ended order by entity"
    )


def _narrow(shape: Shape, log: str) -> str:
    """The beginning of a statement; the condition on the log's rows and a parenthesis are to follow."""
    keys = ", ".join(f"{quoted(key)} as {name}" for key, name in _renamed(shape.keys))
    visible = "greatest(event, ingest)" if shape.as_known else "event"
    until = f", epoch_us({quoted(VALID_TO)}) as until" if shape.has_valid_to else ""
    return (
        f"select *, {visible} as vis from (select {keys}, epoch_us({EVENT}) as event, epoch_us({INGEST}) as ingest, "
        f"{SEQ} as seq, {DELETED} as dead{until} from {log}"
    )


def _known(shape: Shape) -> str:
    return ", ".join(spine_keys(len(shape.keys)))


def _standing(shape: Shape, log: str) -> str:
    """Leaves out what was taken away: asked for as known, it comes from the steps instead."""
    if not shape.retracted:
        return ""
    return f" and {SEQ} not in (select {RETRACTS} from {log} where {RETRACTS} is not null)"


def asof_sql(shape: Shape, log: str) -> str:
    """The whole statement: one row for each spine row, in its order: status int8, event int64, then the columns.

    Args:
        shape: keys, columns and rules.
        log: SQL of the log's relation.
    """
    names = spine_keys(len(shape.keys))
    keys = ", ".join(names)
    until = ", until" if shape.has_valid_to else ""
    same = " and ".join(f"s.{name} = b.{name}" for name in names)
    wide = "".join(f", l.{quoted(column)} as c{index}" for index, column in enumerate(shape.columns))
    gather = f"left join {log} l on l.{SEQ} = m.seq and m.status = {PRESENT}" if shape.columns else ""
    best = f"""
  select {keys}, vis, event, ingest, seq, dead{until}
  from (select *, max(event) over past as newest, lead(vis) over past as next_vis from narrow
        window past as (partition by {keys} order by vis, event, ingest, seq
                        rows between unbounded preceding and current row))
  where event = newest and next_vis is distinct from vis"""
    answer = (
        f"select s.rid, s.t, b.event, b.ingest, b.seq, b.dead{until.replace(' until', ' b.until')} from {SPINE} s asof"
    )
    hit = f"{answer} left join best b on {same} and s.t >= b.vis"
    if shape.retracted and shape.as_known:
        hit = f"""
  select * from ({hit} union all {answer} join {STEPS} b on {same} and s.t >= b.vis where b.event is not null)
  qualify row_number() over (partition by rid order by event desc nulls last, ingest desc, seq desc) = 1"""
    return f"""
with narrow as ({narrow_sql(shape, log)}),
best as ({"from narrow" if shape.tidy else best}),
hit as ({hit}),
marked as (
  select rid, event, seq, cast(case {_cases(shape)} else {PRESENT} end as tinyint) as status from hit)
select m.status, m.event{wide} from marked m {gather} order by m.rid
"""


def _renamed(keys: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(keys, spine_keys(len(keys)), strict=True))


def _cases(shape: Shape) -> str:
    cases = [f"when event is null or dead then {MISSING}"]
    if shape.ttl_us is not None:
        cases.append(f"when event < t - {shape.ttl_us} then {EXPIRED}")
    if shape.has_valid_to:
        cases.append(f"when t >= until then {EXPIRED}")
    return " ".join(cases)
