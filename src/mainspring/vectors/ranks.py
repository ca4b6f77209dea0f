"""Reciprocal rank fusion (Cormack, Clarke, Büttcher 2009): ranks of several legs in one order, never their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["RRF_K", "fuse"]

RRF_K = 60


def fuse(
    legs: Mapping[str, Sequence[str]], *, k: int = RRF_K, weights: Mapping[str, float] | None = None
) -> list[tuple[str, float, dict[str, int]]]:
    """Fuse the ids that each leg found: ``score(d) = sum over legs of w / (k + rank)``, ranks from 1.

    Args:
        legs: ids by leg, the best first, each at most once a leg.
        k: how little the first ranks stand out.
        weights: of each leg; 1 when not said.

    Returns:
        Id, score and rank in each leg that has it, the best first; equal scores by id.
    """
    found: dict[str, tuple[float, dict[str, int]]] = {}
    for leg, ids in legs.items():
        weight = 1.0 if weights is None else weights.get(leg, 1.0)
        for rank, id in enumerate(ids, 1):
            score, ranks = found.get(id, (0.0, {}))
            ranks[leg] = rank
            found[id] = (score + weight / (k + rank), ranks)
    return sorted(((id, score, ranks) for id, (score, ranks) in found.items()), key=lambda hit: (-hit[1], hit[0]))
