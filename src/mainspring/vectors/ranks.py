"""Reciprocal rank fusion (Cormack, Clarke, Büttcher 2009): ranks of several legs in one order, never their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

__all__ = ["RRF_K", "fuse"]

RRF_K = 60


Id = TypeVar("Id", bound="str | int")


def fuse(
    legs: Mapping[str, Sequence[Id]],
    *,
    k: int = RRF_K,
    weights: Mapping[str, float] | None = None,
    most: int | None = None,
) -> list[tuple[Id, float, dict[str, int]]]:
    """Fuse the ids that each leg found: ``score(d) = sum over legs of w / (k + rank)``, ranks from 1.

    Args:
        legs: ids by leg, the best first, each at most once a leg.
        k: how little the first ranks stand out.
        weights: of each leg; 1 when not said.
        most: how many are wanted; None is all.

    Returns:
        Id, score and rank in each leg that has it, the best first; equal scores by id.
    """
    below: dict[Id, float] = {}  # scores below zero, so that the plain order of pairs is that of the hits
    for leg, ids in legs.items():
        weight = 1.0 if weights is None else weights.get(leg, 1.0)
        for rank, id in enumerate(ids, 1):
            below[id] = below.get(id, 0.0) - weight / (k + rank)
    best = sorted(zip(below.values(), below, strict=True))[:most]
    ranks = {leg: dict(zip(ids, range(1, len(ids) + 1), strict=True)) for leg, ids in legs.items()}
    return [(id, -score, {leg: of[id] for leg, of in ranks.items() if id in of}) for score, id in best]
