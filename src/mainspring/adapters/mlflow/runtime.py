"""The runtime port on MLflow's folders: any flavour that has a Python function."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.adapters.mlflow.settings import MlflowSettings
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card, loading

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import pyfunc
    from numpy.typing import NDArray
else:
    np, pd, pyfunc = lazy("numpy"), lazy("pandas"), lazy("mlflow.pyfunc")

__all__ = ["MlflowRuntime", "PyfuncPredictor", "open_runtime"]


class PyfuncPredictor:
    """A model's Python function, asked with what its signature wants: a data frame of its columns, or a matrix."""

    def __init__(self, model: Any, columns: tuple[str, ...]) -> None:
        schema = model.metadata.get_input_schema()
        self._predict = model.predict
        self._lock = threading.Lock()  # nobody says that a function of the user's may be asked twice at once
        self._types: dict[str, Any] = {}
        self._dtype: Any = None
        if schema is not None and not schema.is_tensor_spec():
            names = schema.input_names() if schema.has_input_names() else columns
            kinds = (kind.to_numpy() for kind in schema.input_types())
            self._types = dict(zip(names, kinds, strict=True))
        elif schema is not None:
            self._dtype = schema.inputs[0].type

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row: the last column of what the function gives."""
        asked: Any = matrix if self._dtype is None else matrix.astype(self._dtype)
        if self._types:
            asked = pd.DataFrame(
                {name: matrix[:, place].astype(kind) for place, (name, kind) in enumerate(self._types.items())}
            )
        with self._lock:
            found = np.asarray(self._predict(asked), dtype=np.float64)
        return found[:, -1] if found.ndim == 2 else found


class MlflowRuntime:
    """Loads MLflow's folders."""

    def load(self, folder: Path, card: Card) -> PyfuncPredictor:
        """Load a model.

        Raises:
            RefusedError: MS-4341, its digest is not the recorded one.
            StoreError: MS-4150, it is no model, or what it was made with is not installed.
        """
        with loading(folder, card) as path:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nobody is told what is served here
            return PyfuncPredictor(pyfunc.load_model(str(path)), card.columns)


def open_runtime(settings: MlflowSettings, place: Path) -> MlflowRuntime:
    """The runtime."""
    return MlflowRuntime()
