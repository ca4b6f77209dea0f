"""The runtime port on a native XGBoost booster, asked in place: no copy of the rows is made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.adapters.xgboost.settings import XgboostSettings
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card, loading

if TYPE_CHECKING:
    import numpy as np
    import xgboost
    from numpy.typing import NDArray
else:
    np, xgboost = lazy("numpy"), lazy("xgboost")

__all__ = ["BoosterPredictor", "XgboostRuntime", "open_runtime"]


class BoosterPredictor:
    """A booster, never its scikit-learn wrapper."""

    def __init__(self, booster: Any) -> None:
        self._predict = booster.inplace_predict

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row."""
        return np.asarray(self._predict(matrix, validate_features=False), dtype=np.float64)


class XgboostRuntime:
    """Loads boosters from universal binary JSON."""

    def __init__(self, settings: XgboostSettings) -> None:
        self._threads = settings.threads

    def load(self, folder: Path, card: Card) -> BoosterPredictor:
        """Load a booster.

        Raises:
            StoreError: MS-4150, it is no booster.
        """
        with loading(folder, card) as path:
            booster = xgboost.Booster({"nthread": self._threads})
            booster.load_model(bytearray(path.read_bytes()))
            booster.set_param({"nthread": self._threads})
        return BoosterPredictor(booster)


def open_runtime(settings: XgboostSettings, place: Path) -> XgboostRuntime:
    """The runtime."""
    return XgboostRuntime(settings)
