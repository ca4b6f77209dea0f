"""The parity gate: a converted model must score like the model it was made from.

It is asked where conversions go wrong: on real rows, beside the thresholds of trees, and where values are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mainspring.lazy import lazy
from mainspring.training.thresholds import edge_rows, missing_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["ParityReport", "Scorer", "parity", "probes"]

Scorer = Callable[["NDArray[Any]"], "NDArray[np.float64]"]

_ROWS = 4096


class ParityReport(msgspec.Struct, frozen=True):
    """How far a conversion is off.

    Attributes:
        passed: whether every row is within the tolerance and no label flips.
        rows: real rows that were compared.
        edges: rows beside split thresholds that were compared.
        missing: rows with missing values that were compared.
        worst: the greatest difference of a score; infinite when one side gives no number and the other does.
        off: rows beyond the tolerance.
        flips: rows whose label differs.
        tolerance: what was allowed.
    """

    passed: bool
    rows: int
    edges: int
    missing: int
    worst: float | None
    off: int
    flips: int
    tolerance: float

    def text(self) -> str:
        """In one line."""
        worst = "no number on one side" if self.worst is None else f"worst difference {self.worst:.2g}"
        return (
            f"parity {'holds' if self.passed else 'fails'}: {self.rows} rows, {self.edges} beside thresholds, "
            f"{self.missing} with missing values, {worst} (tolerance {self.tolerance:g}), "
            f"{self.off} beyond it, {self.flips} labels flip"
        )


def probes(
    estimator: object, native: Scorer, judged: NDArray[Any], missing: Sequence[int]
) -> tuple[list[NDArray[Any]], str]:
    """The rows to compare on: up to 4,096 real ones, those beside thresholds, those with missing values.

    Args:
        estimator: the fitted model, whose thresholds are read where it has them.
        native: scores by the model itself.
        judged: rows in the dtype that is served, (rows, columns).
        missing: columns that may be missing when the model is asked.

    Returns:
        The three blocks, and why the last one is empty when the model takes no missing values, else "".
    """
    real = judged[:: -(-len(judged) // _ROWS) or 1]
    complete = real[~np.isnan(real).any(axis=1)]
    gone = missing_rows(real, missing)
    problem = ""
    if len(gone):
        try:
            native(gone[:1])
        except ValueError as error:  # what scikit-learn's input checks raise
            gone, problem = gone[:0], str(error).partition("\n")[0]
    return [real, edge_rows(estimator, complete if len(complete) else real), gone], problem


def parity(
    native: Scorer,
    converted: Scorer,
    blocks: Sequence[NDArray[Any]],
    tolerance: float,
    task: Literal["binary", "regression"],
) -> ParityReport:
    """Compare two scorers on the same rows.

    Args:
        native: scores by the model itself.
        converted: scores by the converted model.
        blocks: what `probes` gives.
        tolerance: the greatest allowed difference of a score.
        task: for ``binary`` the label is score >= 0.5, and none may flip.
    """
    rows = np.concatenate(list(blocks))
    mine, theirs = native(rows), converted(rows)
    difference = np.abs(mine - theirs)
    neither = ~np.isfinite(mine) & ~np.isfinite(theirs)
    difference = np.where(neither, 0.0, np.nan_to_num(difference, nan=np.inf))
    off = int(np.count_nonzero(difference > tolerance))
    flips = int(np.count_nonzero((mine >= 0.5) != (theirs >= 0.5))) if task == "binary" else 0
    worst = float(difference.max(initial=0.0))
    counts = [len(block) for block in blocks]
    return ParityReport(
        not off and not flips,
        counts[0],
        counts[1],
        counts[2],
        worst if np.isfinite(worst) else None,
        off,
        flips,
        tolerance,
    )
