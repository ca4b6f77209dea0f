"""The parity gate: a converted model must score like the model it was made from, also beside split thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["ParityReport", "edge_rows", "parity", "thresholds_of"]

_ROWS = 4096
_EDGES = 4096


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How far a conversion is off.

    Attributes:
        passed: whether every row is within the tolerance and no label flips.
        rows: rows that were compared.
        worst: the greatest difference of a score.
        off: rows beyond the tolerance.
        flips: rows whose label differs.
        tolerance: what was allowed.
    """

    passed: bool
    rows: int
    worst: float
    off: int
    flips: int
    tolerance: float

    def text(self) -> str:
        """In one line."""
        verdict = "parity holds" if self.passed else "parity fails"
        return (
            f"{verdict}: {self.rows} rows, worst difference {self.worst:.2g} (tolerance {self.tolerance:g}), "
            f"{self.off} beyond it, {self.flips} labels flip"
        )


def parity(
    estimator: object,
    native: Callable[[NDArray[Any]], NDArray[np.float64]],
    converted: Callable[[NDArray[Any]], NDArray[np.float64]],
    judged: NDArray[Any],
    tolerance: float,
    task: Literal["binary", "regression"],
) -> ParityReport:
    """Compare two scorers on up to 4,096 rows and on rows one ulp each side of the model's split thresholds.

    Args:
        estimator: the fitted model, whose thresholds are read where it has them.
        native: scores by the model itself.
        converted: scores by the converted model.
        judged: rows in the dtype that is served, (rows, columns).
        tolerance: the greatest allowed difference of a score.
        task: for ``binary`` the label is score >= 0.5, and none may flip.
    """
    step = max(len(judged) // _ROWS, 1)
    rows = np.concatenate([judged[::step][:_ROWS], edge_rows(judged, thresholds_of(estimator))])
    mine, theirs = native(rows), converted(rows)
    difference = np.abs(mine - theirs)
    difference = np.where(np.isnan(mine) & np.isnan(theirs), 0.0, np.nan_to_num(difference, nan=np.inf))
    off = int(np.count_nonzero(difference > tolerance))
    # A score within the tolerance of one half may fall on either side of it.
    clear = np.abs(mine - 0.5) > tolerance
    flips = int(np.count_nonzero(((mine >= 0.5) != (theirs >= 0.5)) & clear)) if task == "binary" else 0
    return ParityReport(not off and not flips, len(rows), float(difference.max(initial=0.0)), off, flips, tolerance)


def edge_rows(judged: NDArray[Any], thresholds: list[tuple[int, float]]) -> NDArray[Any]:
    """Rows that lie at, one ulp below and one ulp above each threshold of their column, others taken from real rows."""
    if not len(judged) or not thresholds:
        return judged[:0]
    chosen = thresholds[:: max(len(thresholds) * 3 // _EDGES, 1)]
    rows = judged[np.arange(3 * len(chosen)) % len(judged)].copy()
    for number, (column, threshold) in enumerate(chosen):
        value = judged.dtype.type(threshold)
        toward = np.array([-np.inf, np.inf], judged.dtype)
        rows[3 * number, column] = value
        rows[3 * number + 1, column] = np.nextafter(value, toward[0])
        rows[3 * number + 2, column] = np.nextafter(value, toward[1])
    return rows


def thresholds_of(estimator: Any) -> list[tuple[int, float]]:
    """The (column, threshold) of every split of a tree model; empty for others, and behind a pipeline."""
    found: list[tuple[int, float]] = []
    for trees in getattr(estimator, "_predictors", ()):
        for tree in trees:
            nodes = tree.nodes
            inner = nodes[nodes["is_leaf"] == 0]
            found += zip(inner["feature_idx"].tolist(), inner["num_threshold"].tolist(), strict=True)
    trees = getattr(estimator, "estimators_", ())
    for tree in np.asarray(trees, dtype=object).ravel() if len(trees) else ():
        inner = getattr(tree, "tree_", None)
        if inner is not None:
            split = inner.feature >= 0
            found += zip(inner.feature[split].tolist(), inner.threshold[split].tolist(), strict=True)
    booster = getattr(estimator, "booster_", estimator)
    if type(booster).__name__ == "Booster":
        table = booster.dump_model()["tree_info"]
        for entry in table:
            found += _splits(entry["tree_structure"])
    return sorted(set(found))


def _splits(node: dict[str, Any]) -> list[tuple[int, float]]:
    if "split_feature" not in node or node.get("decision_type") != "<=":
        return []
    return [
        (int(node["split_feature"]), float(node["threshold"])),
        *_splits(node["left_child"]),
        *_splits(node["right_child"]),
    ]
