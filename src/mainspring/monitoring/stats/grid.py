"""The cells that values are counted in, cut at quantiles of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np

    from mainspring.metrics.arrays import Floats, Ints
else:
    np = lazy("numpy")

__all__ = ["COARSE", "FINE", "build_grid", "cell_counts", "cuts", "quantile"]

FINE = 1024
COARSE = 16


def cuts(ordered: Floats, cells: int) -> Floats:
    """The edges of about `cells` equal-count cells (-inf, e0], .., (eK, inf), rising and distinct.

    Args:
        ordered: the reference's finite values (n,), float64, sorted.
        cells: how many cells are wanted; fewer or more come out where values repeat.

    A value that alone holds more than half a cell's mass (an atom) gets a second edge just below it, and so a cell of
    its own: its share is then seen to move whatever its neighbours do.
    """
    n = len(ordered)
    if not n:
        return np.empty(0)
    positions = np.minimum(np.arange(1, cells) * n // cells, n - 1)
    edges = np.unique(ordered[positions])
    mass = np.searchsorted(ordered, edges, side="right") - np.searchsorted(ordered, edges, side="left")
    atoms = edges[mass > n / (2 * cells)]
    with np.errstate(over="ignore", under="ignore"):
        below = np.nextafter(atoms, -np.inf)
    return np.unique(np.concatenate([edges, below[np.isfinite(below)]]))


def build_grid(ordered: Floats) -> tuple[Floats, Ints]:
    """The fine edges (F,) of sorted finite values, and the positions in them of the coarse edges (C,).

    The coarse edges are a subset, so coarse counts are sums of fine counts.
    """
    fine = cuts(ordered, FINE)
    return fine, np.searchsorted(fine, cuts(ordered, COARSE)).astype(np.int64)


def cell_counts(ordered: Floats, edges: Floats) -> Ints:
    """How many of the sorted finite values (n,) lie in each of the len(edges) + 1 cells: int64."""
    upto = np.searchsorted(ordered, edges, side="right")
    return np.diff(upto, prepend=0, append=len(ordered)).astype(np.int64)


def quantile(ordered: Floats, share: float) -> float:
    """The value at rank floor(share x n) of sorted values: always one of them."""
    return float(ordered[min(int(share * len(ordered)), len(ordered) - 1)])
