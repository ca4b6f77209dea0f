"""A version that answers, as wires describe it and check what they bring it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.serving.calls import Array, Reason, Rejected, Tensor
from mainspring.serving.models import LiveModel
from mainspring.serving.rollout.split import Role
from mainspring.serving.statistics import Statistics

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["ServedModel"]

_RUNTIMES: Mapping[str, tuple[str, str]] = {
    "onnx": ("onnxruntime_onnx", "onnxruntime"),
    "lightgbm": ("lightgbm_booster", "lightgbm"),
    "skops": ("sklearn_skops", "sklearn"),
    "xgboost": ("xgboost_booster", "xgboost"),
    "pickle": ("python", "python"),
    "pyfunc": ("mlflow_pyfunc", "mlflow"),
    "torchscript": ("pytorch_torchscript", "torch"),
    "exported": ("pytorch_exported", "torch"),
    "savedmodel": ("tensorflow_savedmodel", "tensorflow"),
}
"""The platform and the backend of each format that a model is stored in."""


_NUMBERS = frozenset("fiub")
"""The kinds of NumPy's dtypes that a model takes."""


class ServedModel:
    """A version that answers, as wires describe it: one matrix of the columns goes in, one score a row comes out.

    Attributes:
        name: the model's name.
        version: the version.
        platform: what runs it: ``onnxruntime_onnx``.
        backend: the runtime: ``onnxruntime``.
        inputs: what it takes.
        columns: one tensor a column, which together may be sent in place of `inputs`.
        outputs: what it gives.
        binary: whether the score is the probability of true.
        statistics: what it has done.
        live: the loaded version.
        together: as of `live`.
        role: what it is to a rollout: ``stable``, or ``canary`` while it is tried.
    """

    def __init__(self, name: str, live: LiveModel, statistics: Statistics, role: str = Role.STABLE) -> None:
        card = live.card
        datatype = "FP32" if card.dtype == "float32" else "FP64"
        self.name = name
        self.version = live.version
        self.platform, self.backend = _RUNTIMES.get(card.format, (card.format, card.format))
        self.inputs = (Tensor("input", datatype, (-1, len(card.columns))),)
        self.columns = tuple(Tensor(column, datatype, (-1,)) for column in card.columns)
        self.outputs = (Tensor("score", "FP64", (-1,)),)
        self.binary = card.task == "binary"
        self.statistics = statistics
        self.live = live
        self.together = live.together
        self.role = role

    def taken(self, names: Sequence[object]) -> Sequence[Tensor]:
        """The tensors that inputs of these names are meant for: the model's own, or one a column."""
        if self.inputs[0].name not in names and any(column.name in names for column in self.columns):
            return self.columns
        return self.inputs

    def wanted(self, names: Sequence[str]) -> Sequence[Tensor]:
        """The outputs of these names, in their order; all without names.

        Raises:
            Rejected: INVALID, there is none of a name.
        """
        if not names:
            return self.outputs
        declared = {tensor.name: tensor for tensor in self.outputs}
        for name in names:
            if name not in declared:
                raise Rejected(
                    Reason.INVALID, f"model {self.name!r} has no output {name!r}; it gives {', '.join(declared)}"
                )
        return [declared[name] for name in names]

    def matrix(self, inputs: Mapping[str, Array], max_rows: int) -> Array:
        """The inputs as one matrix (rows, columns).

        Raises:
            Rejected: INVALID, they are not what the model takes; TOO_LARGE, there are too many rows.
        """
        matrix = inputs.get(self.inputs[0].name)
        if matrix is None or len(inputs) > 1 or matrix.dtype.kind not in _NUMBERS:
            matrix = self._brought_together(inputs)
        if matrix.ndim != 2 or matrix.shape[1] != len(self.columns):
            taken = list(self.inputs[0].shape)
            raise Rejected(Reason.INVALID, f"the input has shape {list(matrix.shape)}; the model takes {taken}")
        if not matrix.shape[0]:
            raise Rejected(Reason.INVALID, "the inputs have no rows")
        if matrix.shape[0] > max_rows:
            raise Rejected(Reason.TOO_LARGE, f"{matrix.shape[0]} rows; at most {max_rows} are served at once")
        return matrix

    def _brought_together(self, inputs: Mapping[str, Array]) -> Array:
        """The only input, or the columns side by side."""
        declared = self.taken(tuple(inputs))
        names = [tensor.name for tensor in declared]
        if strange := next((name for name in inputs if name not in names), None):
            raise Rejected(Reason.INVALID, f"model {self.name!r} has no input {strange!r}; it takes {', '.join(names)}")
        if missing := [name for name in names if name not in inputs]:
            raise Rejected(Reason.INVALID, f"inputs are missing: {', '.join(missing)}")
        arrays = [inputs[name] for name in names]
        if any(array.dtype.kind not in _NUMBERS for array in arrays):
            raise Rejected(Reason.INVALID, f"model {self.name!r} takes numbers")
        return arrays[0] if declared is self.inputs else _side_by_side(names, arrays)


def _side_by_side(names: Sequence[str], arrays: Sequence[Array]) -> Array:
    flat = [array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array for array in arrays]
    for name, array in zip(names, flat, strict=True):
        if array.ndim != 1:
            raise Rejected(Reason.INVALID, f"input {name!r} has shape {list(array.shape)}; a column has [rows]")
    if len({array.shape[0] for array in flat}) > 1:
        raise Rejected(Reason.INVALID, "the inputs have different numbers of rows")
    return np.stack(flat, axis=1)
