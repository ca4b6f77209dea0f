"""The runtime port on any Python object: unpickled only when its digest is the one that the catalog has recorded."""

from __future__ import annotations

import inspect
import pickle
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.adapters.python.settings import PythonSettings
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card, loading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["ObjectPredictor", "PythonRuntime", "open_runtime"]


class ObjectPredictor:
    """An object's probability of the positive class, or its prediction.

    Args:
        model: it has ``predict_proba`` or ``predict``; one with a second parameter called ``parameters`` is told what
            the caller has set.
        binary: whether its score is a probability.

    Attributes:
        takes_parameters: whether it is told the parameters of a call.
    """

    def __init__(self, model: Any, binary: bool) -> None:
        proba = binary and hasattr(model, "predict_proba")
        self._lock = threading.Lock()  # nobody says that an object of the user's may be asked twice at once
        self._predict = model.predict_proba if proba else model.predict
        self.takes_parameters = "parameters" in inspect.signature(self._predict).parameters

    def scores(self, matrix: NDArray[Any], parameters: Mapping[str, Any] | None = None) -> NDArray[np.float64]:
        """One score a row."""
        more: dict[str, Any] = {"parameters": parameters or {}} if self.takes_parameters else {}
        with self._lock:
            found = self._predict(matrix, **more)
        scores = np.asarray(found, dtype=np.float64)
        return scores[:, -1] if scores.ndim == 2 else scores


class PythonRuntime:
    """Loads pickles that somebody vouches for."""

    def load(self, folder: Path, card: Card) -> ObjectPredictor:
        """Load an object.

        Raises:
            RefusedError: MS-4341, its digest is not the recorded one; nothing of it was read as a pickle.
            StoreError: MS-4150, it is no object, or its class is gone.
        """
        with loading(folder, card) as path:
            model = pickle.loads(path.read_bytes())
        return ObjectPredictor(model, card.task == "binary")


def open_runtime(settings: PythonSettings, place: Path) -> PythonRuntime:
    """The runtime."""
    return PythonRuntime()
