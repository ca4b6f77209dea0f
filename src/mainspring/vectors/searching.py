"""A search over the legs of a store: ranks fused, `k` hits or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from mainspring.ports.vector_store import Hit, Hits, Note, Query
from mainspring.vectors.checked import MOST, between, keys_of, nothing_sought
from mainspring.vectors.ranks import fuse

__all__ = ["Id", "Legs", "Row", "find"]

Id: TypeAlias = str | int
"""A point's id as text, or as its UUID's number: of most rows that legs find nobody ever asks for the text."""

Row: TypeAlias = tuple[Id, float, Mapping[str, object] | None]
"""Id, the leg's own score, and the payload where it came along."""


class Legs(Protocol):
    """What a store can be asked while it answers one query."""

    def rows(self, legs: Sequence[str], limit: int, *, exact: bool) -> Mapping[str, Sequence[Row]]:
        """The best `limit` points of each leg that fulfil the filter, the best first."""

    def payloads(self, ids: Sequence[Any]) -> Mapping[Any, Mapping[str, object]]:
        """What is given back of these points, by the ids that the rows had; of one that has gone, nothing."""

    def matching(self) -> int:
        """How many points fulfil the filter."""


def find(query: Query, asked: Legs) -> Hits:
    """Answer a query.

    Where an approximate search finds fewer than there are, it is done again exactly, which is noted; where there are
    fewer than `k`, that is noted too.

    Raises:
        UsageError: MS-2655, a number out of its range, or nothing is looked for; others as the store raises.
    """
    legs, k = query.legs, query.k
    between("k", k, 1, MOST)
    between("candidates", query.candidates, 1, MOST)
    between("recall_target", query.recall_target, 0.0, 1.0)
    keys_of(query.fields or ())
    if not legs:
        raise nothing_sought()
    limit = k if len(legs) == 1 else max(query.candidates, k)
    rows = dict(asked.rows(legs, limit, exact=query.recall_target >= 1.0))
    notes: list[Note] = []
    if "dense" in legs and len(rows["dense"]) < k and (matching := asked.matching()) > len(rows["dense"]):
        rows["dense"] = asked.rows(("dense",), limit, exact=True)["dense"]
        notes.append(Note("exact_fallback", f"the index found too few of {matching} rows, so each was looked at"))
    hits = _fused(rows, k) if len(legs) > 1 else _ranked(legs[0], rows[legs[0]][:k])
    answered = _with_payloads(hits, rows, asked)
    if len(answered) < k:
        notes.append(Note("fewer_than_k", _why_fewer(len(answered), legs)))
    return Hits(answered, len(answered) == k, tuple(notes))


def _ranked(leg: str, rows: Sequence[Row]) -> list[tuple[Id, float, dict[str, int]]]:
    return [(id, score, {leg: rank}) for rank, (id, score, _) in enumerate(rows, 1)]


def _fused(rows: Mapping[str, Sequence[Row]], most: int) -> list[tuple[Id, float, dict[str, int]]]:
    return fuse({leg: [row[0] for row in found] for leg, found in rows.items()}, most=most)


def _with_payloads(
    hits: list[tuple[Id, float, dict[str, int]]], rows: Mapping[str, Sequence[Row]], asked: Legs
) -> tuple[Hit, ...]:
    came = {id: payload for found in rows.values() for id, _, payload in found if payload is not None}
    missing = [id for id, _, _ in hits if id not in came]
    if missing:
        came.update(asked.payloads(missing))
    return tuple(Hit(_text(id), score, came[id], ranks) for id, score, ranks in hits if id in came)


def _text(id: Id) -> str:
    if isinstance(id, str):
        return id
    digits = f"{id:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _why_fewer(found: int, legs: Sequence[str]) -> str:
    rows = "1 row" if found == 1 else f"{found} rows"
    words = "" if "dense" in legs else " and have what was asked for in words"
    return f"{rows} in the index fulfil the filter{words}"
