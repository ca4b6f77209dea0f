"""How one feature is counted: its cells, its range, its known categories and its rules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy
from mainspring.monitoring.stats.columns import FeatureKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mainspring.metrics.arrays import Floats, Ints
else:
    np = lazy("numpy")

__all__ = ["Layout", "Rules"]


class Rules(msgspec.Struct, frozen=True):
    """What a valid value satisfies, from the declared `Field`; None and empty mean no rule.

    Args:
        ge: least allowed number.
        le: greatest allowed number.
        one_of: hashes of the allowed categories.
        matches: a regular expression that the whole text matches.
    """

    ge: float | None = None
    le: float | None = None
    one_of: frozenset[int] = frozenset()
    matches: str | None = None


class Layout(msgspec.Struct, frozen=True, eq=False):
    """A feature's cells, ready to count on.

    Args:
        digest: identifies the layout; states are merged only within one.
        kind: number, category, hash or text.
        edges: fine edges (F,), float64, rising; empty for categories.
        coarse: positions in `edges` of the coarse edges.
        low: 0.1 % quantile of the reference.
        high: 99.9 % quantile of the reference.
        vmin: least value of the reference.
        vmax: greatest value of the reference.
        known: hashes of every known category, sorted.
        common: hashes of the commonest categories, commonest first; each has a cell.
        rules: what a valid value satisfies.
    """

    digest: str
    kind: FeatureKind
    edges: Floats
    coarse: Ints
    low: float
    high: float
    vmin: float
    vmax: float
    known: NDArray[np.uint64]
    common: NDArray[np.uint64]
    rules: Rules = Rules()

    @property
    def numeric(self) -> bool:
        """Whether values are numbers (or lengths), not categories."""
        return self.kind in ("number", "text")

    @property
    def cells(self) -> int:
        """How many coarse cells there are."""
        return (len(self.coarse) if self.numeric else len(self.common)) + 1

    @property
    def span(self) -> float:
        """The unit of the sums: high - low, or where that is zero or not finite a number of the same size."""
        span = self.high - self.low
        if span > 1e-290 and math.isfinite(span):
            return span
        return 1e300 if span > 1 else max(abs(self.low), 1e-290) if self.low else 1.0
