"""The newest row known at a moment: the six rules of point-in-time joins in DuckDB.

For a spine row (e, t), among the rows of entity e with ``event <= t`` (and ``ingest <= t`` when only what was known
counts) the greatest (event, ingest, seq) answers. A log row can answer from ``vis = greatest(event, ingest)`` on, so
the running greatest event by vis leaves those rows that are ever the best, and an ASOF join on vis picks one.

Entities take part as numbers, and only narrow columns do: the wide ones are gathered by another statement, in one pass
over the log and in any order, for the rows that answer. Whoever asks puts them in the spine's order; to sort them here
costs six times the time and twice the memory at ten million rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.features.duck import quoted
from mainspring.features.view import DELETED, EVENT, INGEST, RETRACTS, SEQ, VALID_TO, View
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
else:
    duckdb, pa = lazy("duckdb"), lazy("pyarrow")

__all__ = [
    "ENTITIES",
    "EXPIRED",
    "HITS",
    "MISSING",
    "PRESENT",
    "QUESTIONS",
    "SPINE",
    "STEPS",
    "Shape",
    "ask",
    "gather_sql",
    "hits_sql",
    "retracted_sql",
    "spine_keys",
]

MISSING, EXPIRED, PRESENT = 0, 1, 2
"""The states of an answer: no row or a tombstone; a row too old or no longer valid; a row, null values too."""

SPINE = "spine"
"""The relation that `ask` reads: ``rid`` int64, ``k0`` .. by the view's keys, ``t`` int64 microseconds."""

STEPS = "retracted_steps"
"""The relation that `hits_sql` reads where rows were taken away: `newest_steps` of `retracted_sql`."""

HITS = "hits"
"""The relation that `gather_sql` reads: ``rid`` and ``seq`` of the rows that answer."""

ENTITIES = "asked_entities"
"""The relation that `ask` makes of the spine's entities: ``k0`` .., and ``entity``, their number in order of keys."""

QUESTIONS = "questions"
"""The relation that `ask` makes of the spine: ``rid``, ``entity``, ``t``."""


class Shape(msgspec.Struct, frozen=True):
    """What the statement depends on.

    Attributes:
        keys: the log's key columns, in order.
        as_known: whether rows count only from their ingest time on.
        ttl_us: how long a row answers, in microseconds, or None.
        has_valid_to: whether rows end.
        tidy: whether no row is late and no two of an entity happen at once, so that each is the best from its event
            on until the next.
        retracted: whether rows of the log take others away.
    """

    keys: tuple[str, ...]
    as_known: bool
    ttl_us: int | None
    has_valid_to: bool
    tidy: bool = False
    retracted: bool = False

    @classmethod
    def of(cls, view: View, as_known: bool, tidy: bool = False, retracted: bool = False) -> Shape:
        """The shape for a view."""
        return cls(view.key_names, as_known, view.ttl_us, view.has_valid_to, tidy, retracted)


def spine_keys(count: int) -> tuple[str, ...]:
    """The names of the key columns in the spine relation."""
    return tuple(f"k{index}" for index in range(count))


def ask(opened: duckdb.DuckDBPyConnection, keys: int) -> None:
    """Number the spine's entities, and take its rows by that number; one with a null key or moment asks nothing.

    The numbers follow from the keys alone, so that what is added up in their order comes out the same at every run.
    """
    names = spine_keys(keys)
    whole = " and ".join(f"{name} is not null" for name in names)
    same = " and ".join(f"s.{name} = e.{name}" for name in names)
    listed = ", ".join(names)
    opened.execute(
        f"create or replace temp table {ENTITIES} as select *, row_number() over (order by {listed}) - 1 as entity "
        f"from (select distinct {listed} from {SPINE} where {whole})"
    )
    opened.execute(
        f"create or replace temp table {QUESTIONS} as select s.rid, e.entity, s.t from {SPINE} s "
        f"join {ENTITIES} e on {same} where s.t is not null"
    )


def retracted_sql(shape: Shape, log: str) -> str:
    """The narrow columns of a log's rows that were taken away again, with ``ended``, for `newest_steps`; sorted."""
    ended = (
        f"select {RETRACTS} as seq, epoch_us(min({INGEST})) as ended from {log} where {RETRACTS} is not null group by 1"
    )
    return f"select * from ({_narrow(shape, log, '')}) join ({ended}) using (seq) where vis < ended order by entity"


def _narrow(shape: Shape, log: str, standing: str) -> str:
    """The narrow columns of the log's rows of the asked entities that meet a further condition."""
    keys = ", ".join(f"{quoted(key)} as {name}" for key, name in _renamed(shape.keys))
    visible = "greatest(event, ingest)" if shape.as_known else "event"
    until = f", epoch_us({quoted(VALID_TO)}) as until" if shape.has_valid_to else ""
    same = " and ".join(f"n.{name} = e.{name}" for name in spine_keys(len(shape.keys)))
    return (
        f"select e.entity, event, ingest, seq, dead{', until' if until else ''}, {visible} as vis from (select {keys}, "
        f"epoch_us({EVENT}) as event, epoch_us({INGEST}) as ingest, {SEQ} as seq, {DELETED} as dead{until} from {log} "
        f"where {RETRACTS} is null{standing}) n join {ENTITIES} e on {same}"
    )


def _standing(shape: Shape, log: str) -> str:
    """Leaves out what was taken away: asked for as known, it comes from the steps instead."""
    if not shape.retracted:
        return ""
    return f" and {SEQ} not in (select {RETRACTS} from {log} where {RETRACTS} is not null)"


def hits_sql(shape: Shape, log: str, stretch: tuple[int, int] | None = None) -> str:
    """One row for each question to which the log has a row, in any order: rid, event, seq int64, status int8.

    Args:
        shape: keys and rules.
        log: SQL of the log's relation.
        stretch: the first and the last moment of the questions, where it pays to look at no more rows than can answer
            in between: those no older than the newest that was known at its beginning, and known at its end.
    """
    until = ", until" if shape.has_valid_to else ""
    best = f"""
  select entity, vis, event, ingest, seq, dead{until}
  from (select *, max(event) over past as newest, lead(vis) over past as next_vis from narrow
        window past as (partition by entity order by vis, event, ingest, seq
                        rows between unbounded preceding and current row))
  where event = newest and next_vis is distinct from vis"""
    answer = (
        f"select s.rid, s.t, b.event, b.ingest, b.seq, b.dead{until.replace(' until', ' b.until')} from {QUESTIONS} s"
    )
    when = "b on s.entity = b.entity and s.t >= b.vis"
    hit = f"{answer} asof join best {when}"
    if shape.retracted and shape.as_known:
        hit = f"""
  select * from ({hit} union all {answer} asof join {STEPS} {when} where b.event is not null)
  qualify row_number() over (partition by rid order by event desc nulls last, ingest desc, seq desc) = 1"""
    return f"""
with {_stretched(_narrow(shape, log, _standing(shape, log)), stretch)},
best as ({"from narrow" if shape.tidy else best}),
hit as ({hit})
select rid, event, seq, cast(case {_cases(shape)} else {PRESENT} end as tinyint) as status from hit
"""


def _stretched(narrow: str, stretch: tuple[int, int] | None) -> str:
    """SQL for the relation `narrow`."""
    if stretch is None:
        return f"narrow as ({narrow})"
    first, last = stretch
    return f"""every as materialized ({narrow}),
carried as (select entity, max(event) as least from every where vis <= {first} group by entity),
narrow as (select every.* from every left join carried using (entity)
           where vis <= {last} and (least is null or event >= least))"""


def gather_sql(columns: Sequence[str], log: str) -> str:
    """The columns of the rows that answer, in any order: rid, then ``c0`` .. in the order of `columns`."""
    wide = "".join(f", l.{quoted(column)} as c{index}" for index, column in enumerate(columns))
    return f"select h.rid{wide} from {log} l join {HITS} h on l.{SEQ} = h.seq"


def _renamed(keys: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(keys, spine_keys(len(keys)), strict=True))


def _cases(shape: Shape) -> str:
    cases = [f"when dead then {MISSING}"]
    if shape.ttl_us is not None:
        cases.append(f"when event < t - {shape.ttl_us} then {EXPIRED}")
    if shape.has_valid_to:
        cases.append(f"when t >= until then {EXPIRED}")
    return " ".join(cases)
