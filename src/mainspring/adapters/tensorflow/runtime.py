"""The runtime port on TensorFlow: a SavedModel's ``serving_default``, with one matrix in and one tensor out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.adapters.tensorflow.settings import TensorflowSettings
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card, loading

if TYPE_CHECKING:
    import numpy as np
    import tensorflow
    from numpy.typing import NDArray
else:
    np, tensorflow = lazy("numpy"), lazy("tensorflow")

__all__ = ["SavedModelPredictor", "TensorflowRuntime", "open_runtime"]

_SIGNATURE = "serving_default"


class SavedModelPredictor:
    """A signature with one input; of several outputs the one that comes first by name."""

    def __init__(self, model: Any) -> None:
        self._model = model  # its variables live as long as it does
        self._ask = model.signatures[_SIGNATURE]
        ((self._input, spec),) = self._ask.structured_input_signature[1].items()
        self._dtype = spec.dtype
        self._output = min(self._ask.structured_outputs)

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row."""
        found = self._ask(**{self._input: tensorflow.constant(matrix, self._dtype)})[self._output]
        values = np.asarray(found.numpy(), dtype=np.float64)
        return values[:, -1] if values.ndim == 2 else values


class TensorflowRuntime:
    """Loads SavedModel folders."""

    def __init__(self, settings: TensorflowSettings) -> None:
        self._threads = settings.threads

    def load(self, folder: Path, card: Card) -> SavedModelPredictor:
        """Load a model.

        Raises:
            RefusedError: MS-4341, its digest is not the recorded one.
            StoreError: MS-4150, it is no SavedModel with such a signature.
        """
        with loading(folder, card) as path:
            return SavedModelPredictor(tensorflow.saved_model.load(str(path)))


def open_runtime(settings: TensorflowSettings, place: Path) -> TensorflowRuntime:
    """The runtime."""
    return TensorflowRuntime(settings)
