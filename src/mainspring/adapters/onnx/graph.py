"""What is done to a converted graph: one output, one name, and the exact splits of the trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["Tree", "keep_output", "make_exact", "trees_of"]

_TREES = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor"})
_TRACKS = "nodes_missing_value_tracks_true"
_INTS = 7  # onnx.AttributeProto.INTS


def keep_output(model: Any, output: str) -> None:
    """Leave only the nodes that one output needs, under a name that is the same in every conversion."""
    graph = model.graph
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    nodes = [type(node).FromString(node.SerializeToString()) for node in reversed(kept)]
    weights = [item for item in graph.initializer if item.name in needed]
    outputs = [item for item in graph.output if item.name == output]
    for field, items in (("node", nodes), ("initializer", weights), ("output", outputs)):
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    graph.name = "model"  # the converters draw a new one each time, and equal models shall be equal bytes


class Tree(NamedTuple):
    """The nodes of a scikit-learn tree: thresholds float64 (nodes,), and whether a missing value goes left."""

    thresholds: NDArray[np.float64]
    missing_left: NDArray[np.bool_]


def trees_of(estimator: Any) -> list[Tree]:
    """The scikit-learn trees of a tree, a forest or a boosting, as the converter numbers them; else none."""
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    boosted = [tree.nodes for iteration in getattr(last, "_predictors", ()) for tree in iteration]
    if boosted:
        return [Tree(nodes["num_threshold"], nodes["missing_go_to_left"] == 1) for nodes in boosted]
    members = np.asarray(getattr(last, "estimators_", [last]), dtype=object).ravel()
    trees: list[Any] = [getattr(member, "tree_", None) for member in members]
    if any(tree is None for tree in trees):
        return []
    states: list[Any] = [tree.__getstate__()["nodes"] for tree in trees]
    return [Tree(nodes["threshold"], nodes["missing_go_to_left"] == 1) for nodes in states]


def make_exact(model: Any, trees: Sequence[Tree]) -> None:
    """Make the splits of a converted tree model those of the model it was made from.

    skl2onnx rounds thresholds to the nearest float32, which may lie above; a row between the two goes the other way.
    Rounded down instead, ``x <= threshold`` is the same for every float32 x. And it sends all missing values of forests
    to the right, whatever the trees have learned.

    Args:
        model: the converted model; it is changed in place.
        trees: the trees, as the converter numbers them.
    """
    for node in model.graph.node:
        if node.op_type in _TREES and trees:
            _make_node_exact(node, trees)


def _make_node_exact(node: Any, trees: Sequence[Tree]) -> None:
    found = {item.name: item for item in node.attribute}
    values = list(found["nodes_values"].floats)
    places = zip(found["nodes_treeids"].ints, found["nodes_nodeids"].ints, found["nodes_modes"].strings, strict=True)
    tracks = []
    for number, (tree, own, mode) in enumerate(places):
        if mode == b"LEAF":
            tracks.append(0)
            continue
        threshold = float(trees[tree].thresholds[own])
        if abs(np.float32(threshold) - np.float32(values[number])) > np.spacing(np.float32(abs(threshold))):
            return  # numbered in another way: the parity gate decides
        values[number] = _rounded_down(threshold)
        tracks.append(int(trees[tree].missing_left[own]))
    if _TRACKS not in found:
        found[_TRACKS] = node.attribute.add(name=_TRACKS, type=_INTS)
    for field, content in ((found["nodes_values"].floats, values), (found[_TRACKS].ints, tracks)):
        del field[:]
        field.extend(content)


def _rounded_down(threshold: float) -> float:
    """The greatest float32 that is not above."""
    near = np.float32(threshold)
    return float(np.nextafter(near, np.float32(-np.inf)) if float(near) > threshold else near)
