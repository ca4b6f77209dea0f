"""The splits of fitted trees, as scikit-learn and LightGBM keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["Tree", "trees_of"]


_ZERO = 1e-35
"""LightGBM's kZeroThreshold, as float32: a value no further from 0 is 0 to it, at prediction too."""


class Tree(NamedTuple):
    """A tree's nodes, the root first; `left` is -1 at a leaf.

    `missing_left` says whether a missing value goes left; None when the converter has that right already.
    """

    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_] | None


def trees_of(estimator: Any) -> list[Tree]:
    """The trees of a tree, a forest or a boosting, or of a pipeline's end, in the order they add up, else none."""
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    if type(last).__module__.partition(".")[0] == "xgboost":
        return []  # its thresholds are float32 already
    booster = getattr(last, "booster_", last)
    if type(booster).__name__ == "Booster":
        return [_of_booster(entry["tree_structure"]) for entry in booster.dump_model()["tree_info"]]
    boosted = [tree.nodes for iteration in getattr(last, "_predictors", ()) for tree in iteration]
    if boosted:
        return [_of_nodes(nodes) for nodes in boosted]
    members = np.asarray(getattr(last, "estimators_", [last]), dtype=object).ravel()
    trees: list[Any] = [getattr(member, "tree_", None) for member in members]
    return [] if any(tree is None for tree in trees) else [_of_sklearn(tree) for tree in trees]


def _of_sklearn(tree: Any) -> Tree:
    missing = tree.__getstate__()["nodes"]["missing_go_to_left"] == 1
    return Tree(tree.threshold, tree.children_left, tree.children_right, missing)


def _of_nodes(nodes: Any) -> Tree:
    leaf = nodes["is_leaf"] == 1
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    return Tree(nodes["num_threshold"], left, right, nodes["missing_go_to_left"] == 1)


def _of_booster(root: dict[str, Any]) -> Tree:
    thresholds: list[float] = []
    children: list[list[int]] = []
    waiting: list[tuple[dict[str, Any], int, int]] = [(root, -1, 0)]
    while waiting:
        node, parent, side = waiting.pop()
        number = len(thresholds)
        if parent >= 0:
            children[parent][side] = number
        threshold = node.get("threshold", 0.0)
        thresholds.append(_beyond_zero(threshold) if isinstance(threshold, (int, float)) else np.nan)
        children.append([-1, -1])
        if "left_child" in node:
            waiting += [(node["left_child"], number, 0), (node["right_child"], number, 1)]
    sides = np.array(children, dtype=np.int64)
    return Tree(np.array(thresholds, dtype=np.float64), sides[:, 0], sides[:, 1], None)


def _beyond_zero(threshold: float) -> float:
    """A threshold of LightGBM for a runtime that takes values beside 0 as they are."""
    zero = np.float32(_ZERO)
    return float(np.nextafter(-zero, np.float32(-1))) if -zero <= threshold < 0 else threshold
