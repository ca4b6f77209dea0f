"""Where a tree model's score jumps: the split thresholds of its trees, and rows beside each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["edge_rows", "missing_rows", "thresholds_of"]

_MOST_EDGES = 4096
_MISSING_ROWS = 64


def thresholds_of(estimator: Any) -> list[tuple[int, float]]:
    """The (column, threshold) of every numeric split of a tree model, sorted; empty for other models.

    Reads scikit-learn's trees, forests, gradient boosting and histogram gradient boosting, and LightGBM.
    """
    found: set[tuple[int, float]] = set()
    booster = getattr(estimator, "booster_", estimator)
    if type(booster).__name__ == "Booster":
        for entry in booster.dump_model()["tree_info"]:
            found.update(_booster_splits(entry["tree_structure"]))
        return sorted(found)
    for iteration in getattr(estimator, "_predictors", ()):
        for tree in iteration:
            inner = tree.nodes[(tree.nodes["is_leaf"] == 0) & (tree.nodes["is_categorical"] == 0)]
            found.update(zip(inner["feature_idx"].tolist(), inner["num_threshold"].tolist(), strict=True))
    members = getattr(estimator, "estimators_", ())
    for member in [estimator, *np.asarray(members, dtype=object).ravel()]:
        tree = getattr(member, "tree_", None)
        if tree is not None:
            inner = tree.feature >= 0
            found.update(zip(tree.feature[inner].tolist(), tree.threshold[inner].tolist(), strict=True))
    return sorted(found)


def _booster_splits(root: dict[str, Any]) -> list[tuple[int, float]]:
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        if "split_feature" in node:
            if node.get("decision_type") == "<=":
                found.append((int(node["split_feature"]), float(node["threshold"])))
            waiting += [node["left_child"], node["right_child"]]
    return found


def edge_rows(estimator: Any, rows: NDArray[Any]) -> NDArray[Any]:
    """Rows at, one ulp below and one ulp above the split thresholds, the other columns from real rows.

    Args:
        estimator: the fitted model. Behind a pipeline whose other steps can be inverted (scalers), thresholds are
            brought back to the columns that go in.
        rows: real rows, (rows, columns), in the dtype that is served; every value is one that dtype holds.

    Returns:
        Up to 4,096 rows of the same dtype; none when the model has no thresholds that can be read.
    """
    steps = [step for _, step in getattr(estimator, "steps", ())]
    before, last = steps[:-1], steps[-1] if steps else estimator
    thresholds = thresholds_of(last)
    if not thresholds or not len(rows):
        return rows[:0]
    chosen = thresholds[:: -(-3 * len(thresholds) // _MOST_EDGES)]
    base = rows[np.arange(len(chosen)) % len(rows)]
    columns = np.array([column for column, _ in chosen])
    values = np.array([threshold for _, threshold in chosen])
    if before:
        moved = _moved_back(before, base, columns, values)
        if moved is None:
            return rows[:0]
        values = moved
    return _beside(base, columns, values.astype(rows.dtype))


def _beside(base: NDArray[Any], columns: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    numbers = np.arange(len(base))
    sides = []
    for value in (values, np.nextafter(values, -np.inf), np.nextafter(values, np.inf)):
        side = base.copy()
        side[numbers, columns] = value
        sides.append(side)
    return np.concatenate(sides)


def _moved_back(
    before: Sequence[Any], base: NDArray[Any], columns: NDArray[Any], values: NDArray[Any]
) -> NDArray[Any] | None:
    """The thresholds in the units of the columns that go in; None when a step has no inverse or moves columns."""
    if not all(hasattr(step, "inverse_transform") for step in before):
        return None
    inner = base
    for step in before:
        inner = np.asarray(step.transform(inner), dtype=np.float64)
    if inner.shape != base.shape:
        return None
    inner[np.arange(len(inner)), columns] = values
    for step in reversed(before):
        inner = np.asarray(step.inverse_transform(inner), dtype=np.float64)
    return inner[np.arange(len(inner)), columns] if inner.shape == base.shape else None


def missing_rows(rows: NDArray[Any], columns: Sequence[int]) -> NDArray[Any]:
    """Real rows with one of these columns missing, a few for each, and one row with all of them missing."""
    if not len(rows) or not columns:
        return rows[:0]
    found = []
    for column in columns:
        some = rows[:_MISSING_ROWS].copy()
        some[:, column] = np.nan
        found.append(some)
    none = rows[:1].copy()
    none[:, list(columns)] = np.nan
    return np.concatenate([*found, none])
