"""Where a tree model's score jumps: the splits of its trees, and rows that reach a split on either side of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["Tree", "edge_rows", "missing_rows", "splits_of", "trees_of"]

_MOST_ROWS = 4096
_ULPS = 8
_MISSING_ROWS = 64


class Tree(NamedTuple):
    """A tree's nodes, the root first: at a split ``x[column] <= threshold`` goes left.

    `column` is -1 at a leaf and at a split that is no such comparison.
    """

    column: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]


def trees_of(estimator: Any) -> list[Tree]:
    """The trees of a model; none for other models.

    Reads scikit-learn's trees, forests, gradient boosting and histogram gradient boosting, LightGBM and XGBoost.
    """
    if type(estimator).__module__.partition(".")[0] == "xgboost":
        return _xgboost_trees(estimator)
    booster = getattr(estimator, "booster_", estimator)
    if type(booster).__name__ == "Booster":
        return [_booster_tree(entry["tree_structure"]) for entry in booster.dump_model()["tree_info"]]
    boosted = [tree.nodes for iteration in getattr(estimator, "_predictors", ()) for tree in iteration]
    if boosted:
        return [_tree_of_nodes(nodes) for nodes in boosted]
    members = [estimator, *np.asarray(getattr(estimator, "estimators_", ()), dtype=object).ravel()]
    found = [tree for member in members if (tree := getattr(member, "tree_", None)) is not None]
    return [Tree(np.maximum(t.feature, -1), t.threshold, t.children_left, t.children_right) for t in found]


def _tree_of_nodes(nodes: Any) -> Tree:
    compares = (nodes["is_leaf"] == 0) & (nodes["is_categorical"] == 0)
    column = np.where(compares, nodes["feature_idx"].astype(np.int64), -1)
    leaf = nodes["is_leaf"] == 1
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    return Tree(column, nodes["num_threshold"], left, right)


def _xgboost_trees(estimator: Any) -> list[Tree]:
    """XGBoost goes left below a threshold of float32: at most up to the number before it."""
    booster = estimator.get_booster() if hasattr(estimator, "get_booster") else estimator
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"].get("model", {})
    found = []
    for tree in model.get("trees", ()):
        left, right = (np.array(tree[f"{side}_children"], np.int64) for side in ("left", "right"))
        compares = (left >= 0) & (np.array(tree["split_type"]) == 0)
        threshold = np.nextafter(np.array(tree["split_conditions"], np.float32), np.float32(-np.inf))
        column = np.where(compares, np.array(tree["split_indices"], np.int64), -1)
        found.append(Tree(column, threshold.astype(np.float64), left, right))
    return found


def _booster_tree(root: dict[str, Any]) -> Tree:
    rows: list[list[float]] = []
    waiting: list[tuple[dict[str, Any], int, int]] = [(root, -1, 0)]
    while waiting:
        node, parent, side = waiting.pop()
        if parent >= 0:
            rows[parent][2 + side] = len(rows)
        number = len(rows)
        if "split_feature" not in node:
            rows.append([-1, 0.0, -1, -1])
            continue
        compares = node.get("decision_type") == "<="
        rows.append([node["split_feature"] if compares else -1, node["threshold"] if compares else 0.0, -1, -1])
        waiting += [(node["left_child"], number, 0), (node["right_child"], number, 1)]
    table = np.array(rows, dtype=np.float64)
    return Tree(table[:, 0].astype(np.int64), table[:, 1], table[:, 2].astype(np.int64), table[:, 3].astype(np.int64))


def splits_of(estimator: Any) -> list[tuple[int, float]]:
    """The (column, threshold) of every split of a model's trees, sorted, each once."""
    found: set[tuple[int, float]] = set()
    for tree in trees_of(estimator):
        at = tree.column >= 0
        found.update(zip(tree.column[at].tolist(), tree.threshold[at].tolist(), strict=True))
    return sorted(found)


def edge_rows(estimator: Any, rows: NDArray[Any]) -> NDArray[Any]:
    """Rows that reach a split of a tree at its threshold, one ulp below it and one ulp above it.

    Behind a pipeline, whose own arithmetic blurs the threshold, also two, four and eight ulps away. Every row starts
    as a real one. What the path from the root to the split asks of it is then changed, so that it gets there; a row
    that turns away earlier would tell nothing about the split.

    Args:
        estimator: the fitted model. Behind a pipeline whose other steps can be inverted (scalers), rows are brought
            back to the columns that go in.
        rows: real rows without missing values, (rows, columns), in the dtype that is served.

    Returns:
        Up to 4,096 rows of the same dtype, for splits spread evenly over all trees; none when the model has no trees
        that can be read.
    """
    steps = [step for _, step in getattr(estimator, "steps", ())]
    last = steps[-1] if steps else estimator
    if not len(rows):
        return rows
    before = [step for step in steps[:-1] if not _changes_nothing(step, rows)]
    if not all(hasattr(step, "inverse_transform") for step in before):
        return rows[:0]
    ulps = [2**power for power in range(_ULPS.bit_length())] if before else [1]
    chosen = _chosen(trees_of(last), _MOST_ROWS // (1 + 2 * len(ulps)))
    if not chosen:
        return rows[:0]
    inner = rows[np.random.default_rng(0).integers(0, len(rows), len(chosen))]
    for step in before:
        inner = np.array(step.transform(inner))
    if inner.shape[1] != rows.shape[1]:
        return rows[:0]
    for row, (tree, node) in zip(inner, chosen, strict=True):
        _lead(row, tree, node)
    for step in reversed(before):
        inner = np.asarray(step.inverse_transform(inner))
    return _beside(inner.astype(rows.dtype), np.array([tree.column[node] for tree, node in chosen]), ulps)


def _changes_nothing(step: Any, rows: NDArray[Any]) -> bool:
    """Whether a step hands these rows on as they are: an imputer does with complete ones."""
    return step == "passthrough" or bool(np.array_equal(step.transform(rows), rows))


def _chosen(trees: Sequence[Tree], most: int) -> list[tuple[Tree, int]]:
    every = [
        (tree, int(node)) for tree in trees for node in np.flatnonzero((tree.column >= 0) & np.isfinite(tree.threshold))
    ]
    return every[:: -(-len(every) // most)] if every else []


def _lead(row: NDArray[Any], tree: Tree, node: int) -> None:
    """Change a row so that it comes to a node, with the node's threshold in the node's column."""
    bounds: dict[int, tuple[float, float]] = {}
    below = node
    while below:
        above = int(np.flatnonzero((tree.left == below) | (tree.right == below))[0])
        column, threshold = int(tree.column[above]), float(tree.threshold[above])
        low, high = bounds.get(column, (-np.inf, np.inf))
        goes_left = tree.left[above] == below
        bounds[column] = (low, min(high, threshold)) if goes_left else (max(low, threshold), high)
        below = above
    kind = row.dtype.type
    for column, (low, high) in bounds.items():
        if column < 0 or low < row[column] <= high:  # a missing value compares as false, too
            continue
        if low == np.inf or high == -np.inf:  # a split at infinity: only a missing value takes this way
            row[column] = np.nan
        else:
            row[column] = _down(high, kind) if np.isfinite(high) else np.nextafter(_down(low, kind), kind(np.inf))
    row[tree.column[node]] = kind(tree.threshold[node])


def _down(value: float, kind: Any) -> Any:
    """The greatest number of a precision that is not above."""
    near = kind(value)
    return np.nextafter(near, kind(-np.inf)) if float(near) > value else near


def _beside(rows: NDArray[Any], columns: NDArray[Any], ulps: Sequence[int]) -> NDArray[Any]:
    """The rows, then the rows with their column that many ulps lower and higher, for each number of ulps."""
    numbers = np.arange(len(rows))
    values = rows[numbers, columns]
    sides = [rows]
    for count in ulps:
        for toward in (-np.inf, np.inf):
            side, moved = rows.copy(), values
            for _ in range(count):
                moved = np.nextafter(moved, toward)
            side[numbers, columns] = moved
            sides.append(side)
    return np.concatenate(sides)


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
