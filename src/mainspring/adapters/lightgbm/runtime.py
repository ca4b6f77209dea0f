"""The runtime port on a native LightGBM booster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.adapters.lightgbm.settings import LightgbmSettings
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card, loading

if TYPE_CHECKING:
    import lightgbm
    import numpy as np
    from numpy.typing import NDArray
else:
    np, lightgbm = lazy("numpy"), lazy("lightgbm")

__all__ = ["BoosterPredictor", "LightgbmRuntime", "open_runtime"]


class BoosterPredictor:
    """A booster, never its scikit-learn wrapper: the wrapper checks every call for milliseconds."""

    def __init__(self, booster: Any, threads: int) -> None:
        self._predict = booster.predict
        self._threads = threads

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row."""
        return np.asarray(self._predict(matrix, num_threads=self._threads), dtype=np.float64)


class LightgbmRuntime:
    """Loads boosters from text."""

    def __init__(self, settings: LightgbmSettings) -> None:
        self._threads = settings.threads

    def load(self, folder: Path, card: Card) -> BoosterPredictor:
        """Load a booster.

        Raises:
            StoreError: MS-4150, it is no booster.
        """
        with loading(folder, card) as path:
            booster = lightgbm.Booster(model_str=path.read_text("utf-8"))
        return BoosterPredictor(booster, self._threads)


def open_runtime(settings: LightgbmSettings, place: Path) -> LightgbmRuntime:
    """The runtime."""
    return LightgbmRuntime(settings)
