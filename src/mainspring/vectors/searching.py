"""A search over the legs of a store: ranks fused, `k` hits or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from mainspring.vectors.ranks import fuse

__all__ = ["Found", "Legs", "Row", "exactly", "find"]

Row: TypeAlias = tuple[str, float, Mapping[str, object] | None]
"""Id, the leg's own score, and the payload where it came along."""

Answered: TypeAlias = tuple[str, float, Mapping[str, object], Mapping[str, int]]
"""Id, score, payload and ranks of a hit."""


class Legs(Protocol):
    """What a store can be asked while it answers one query."""

    def rows(self, legs: Sequence[str], limit: int, *, exact: bool) -> Mapping[str, Sequence[Row]]:
        """The best `limit` points of each leg that fulfil the filter, the best first."""

    def payloads(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, object]]:
        """What is given back of these points; of a point that has gone meanwhile, nothing."""

    def matching(self) -> int:
        """How many points fulfil the filter."""


class Found:
    """An answer before it takes the port's form.

    Attributes:
        hits: id, score, payload and ranks of each.
        notes: code and detail of each.
        complete: whether there are as many as were asked for.
    """

    __slots__ = ("complete", "hits", "notes")

    def __init__(
        self,
        hits: list[tuple[str, float, Mapping[str, object], Mapping[str, int]]],
        notes: list[tuple[str, str]],
        k: int,
    ) -> None:
        self.hits = hits
        self.notes = notes
        self.complete = len(hits) == k


def exactly(recall_target: float) -> bool:
    """Whether a query asks for the true nearest."""
    return recall_target >= 1.0


def find(legs: Sequence[str], asked: Legs, *, k: int, candidates: int, recall_target: float) -> Found:
    """Answer a query.

    Where an approximate search finds fewer than there are, it is done again exactly, which is noted; where there are
    fewer than `k`, that is noted too.

    Args:
        legs: those of the query, at least one.
        asked: the store.
        k: hits that are wanted.
        candidates: rows of each leg that are fused when there are several.
        recall_target: share of the true nearest; 1 is all.
    """
    limit = k if len(legs) == 1 else max(candidates, k)
    rows = dict(asked.rows(legs, limit, exact=exactly(recall_target)))
    notes: list[tuple[str, str]] = []
    short = len(rows.get("dense", ())) < min(k, limit) and "dense" in legs
    if short and (matching := asked.matching()) > len(rows["dense"]):
        rows["dense"] = asked.rows(("dense",), limit, exact=True)["dense"]
        notes.append(("exact_fallback", f"the index found too few of {matching} rows, so each was looked at"))
    hits = _fused(rows, k) if len(legs) > 1 else _ranked(legs[0], rows[legs[0]][:k])
    answered = _with_payloads(hits, rows, asked)
    if len(answered) < k:
        notes.append(("fewer_than_k", _why_fewer(len(answered), legs)))
    return Found(answered, notes, k)


def _ranked(leg: str, rows: Sequence[Row]) -> list[tuple[str, float, dict[str, int]]]:
    return [(id, score, {leg: rank}) for rank, (id, score, _) in enumerate(rows, 1)]


def _fused(rows: Mapping[str, Sequence[Row]], k: int) -> list[tuple[str, float, dict[str, int]]]:
    return fuse({leg: [row[0] for row in found] for leg, found in rows.items()})[:k]


def _with_payloads(
    hits: list[tuple[str, float, dict[str, int]]], rows: Mapping[str, Sequence[Row]], asked: Legs
) -> list[Answered]:
    came = {id: payload for found in rows.values() for id, _, payload in found if payload is not None}
    missing = [id for id, _, _ in hits if id not in came]
    if missing:
        came.update(asked.payloads(missing))
    return [(id, score, came[id], ranks) for id, score, ranks in hits if id in came]


def _why_fewer(found: int, legs: Sequence[str]) -> str:
    rows = "1 row" if found == 1 else f"{found} rows"
    words = "" if "dense" in legs else " and have what was asked for in words"
    return f"{rows} in the index fulfil the filter{words}"
