"""Reciprocal rank fusion (Cormack, Clarke, Büttcher 2009): ranks of several legs in one order, never their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["RRF_K", "fuse"]

RRF_K = 60


Id = TypeVar("Id", bound="str | int")


def fuse(
    legs: Mapping[str, Sequence[Id]], *, k: int = RRF_K, weights: Mapping[str, float] | None = None
) -> list[tuple[Id, float, dict[str, int]]]:
    """Fuse the ids that each leg found: ``score(d) = sum over legs of w / (k + rank)``, ranks from 1.

    Args:
        legs: ids by leg, the best first, each at most once a leg.
        k: how little the first ranks stand out.
        weights: of each leg; 1 when not said.

    Returns:
        Id, score and rank in each leg that has it, the best first; equal scores by id.
    """
    scores: dict[Id, float] = {}
    ranks: dict[Id, dict[str, int]] = {}
    for leg, ids in legs.items():
        weight = 1.0 if weights is None else weights.get(leg, 1.0)
        for rank, id in enumerate(ids, 1):
            scores[id] = scores.get(id, 0.0) + weight / (k + rank)
            if id in ranks:
                ranks[id][leg] = rank
            else:
                ranks[id] = {leg: rank}
    return [(id, score, ranks[id]) for id, score in sorted(scores.items(), key=_order)]


def _order(hit: tuple[Any, float]) -> tuple[float, Any]:
    return -hit[1], hit[0]
