"""What is done to a converted graph: one output, one name, and the exact splits of the trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mainspring.adapters.onnx.trees import Tree
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["keep_output", "make_exact"]

_ENSEMBLES = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor"})
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


def make_exact(model: Any, trees: Sequence[Tree]) -> None:
    """Make the splits of a converted tree model those of the model it was made from.

    The converters round thresholds to the nearest float32, which may lie above; a row between the two goes the other
    way. Rounded down instead, ``x <= threshold`` is the same for every float32 x. And skl2onnx sends all missing values
    of forests to the right, whatever the trees have learned.

    Args:
        model: the converted model; it is changed in place. Where its trees have another form than the given ones it
            is left as it is, and the parity gate decides.
        trees: the trees, as the converter numbers them.
    """
    for node in model.graph.node:
        if node.op_type in _ENSEMBLES and trees:
            _Ensemble(node).correct(trees)


class _Ensemble:
    """The attributes of a tree ensemble that decide where a row goes."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._found = {item.name: item for item in node.attribute}
        owners, own = self._found["nodes_treeids"].ints, self._found["nodes_nodeids"].ints
        self._places = {place: number for number, place in enumerate(zip(owners, own, strict=True))}
        self._modes = self._found["nodes_modes"].strings
        self._true = self._found["nodes_truenodeids"].ints
        self._false = self._found["nodes_falsenodeids"].ints
        self._values = list(self._found["nodes_values"].floats)
        tracks = self._found.get(_TRACKS)
        self._tracks = [0] * len(self._values) if tracks is None else list(tracks.ints)

    def correct(self, trees: Sequence[Tree]) -> None:
        """Take thresholds and the ways of missing values from the trees, if all of them have the same form."""
        if not all(self._follow(owner, tree) for owner, tree in enumerate(trees)):
            return
        if _TRACKS not in self._found:
            self._found[_TRACKS] = self._node.attribute.add(name=_TRACKS, type=_INTS)
        for field, content in (
            (self._found["nodes_values"].floats, self._values),
            (self._found[_TRACKS].ints, self._tracks),
        ):
            del field[:]
            field.extend(content)

    def _follow(self, owner: int, tree: Tree) -> bool:
        waiting = [(0, 0)]
        while waiting:
            own, node = waiting.pop()
            number = self._places.get((owner, own))
            if number is None or (self._modes[number] == b"LEAF") is not bool(tree.left[node] < 0):
                return False
            if tree.left[node] < 0:
                continue
            threshold = float(tree.threshold[node])
            if self._modes[number] != b"BRANCH_LEQ" or not _is_near(threshold, self._values[number]):
                return False
            self._values[number] = _rounded_down(threshold)
            if tree.missing_left is not None:
                self._tracks[number] = int(tree.missing_left[node])
            waiting += [(self._true[number], int(tree.left[node])), (self._false[number], int(tree.right[node]))]
        return True


def _is_near(threshold: float, value: float) -> bool:
    near = np.float32(threshold)
    return bool(near == np.float32(value) or abs(near - np.float32(value)) <= 2 * np.spacing(abs(near)))


def _rounded_down(threshold: float) -> float:
    """The greatest float32 that is not above."""
    near = np.float32(threshold)
    return float(np.nextafter(near, np.float32(-np.inf)) if float(near) > threshold else near)
