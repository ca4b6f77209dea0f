"""The runtime port on scikit-learn: skops files, whose types are checked before anything is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.adapters.sklearn.problems import damaged, untrusted
from mainspring.adapters.sklearn.settings import SklearnSettings
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card

if TYPE_CHECKING:
    import numpy as np
    import skops.io as skops_io
    from numpy.typing import NDArray
else:
    np, skops_io = lazy("numpy"), lazy("skops.io")

__all__ = ["EstimatorPredictor", "SklearnRuntime", "open_runtime"]

_TRUSTED = ("sklearn.", "numpy.", "lightgbm.", "scipy.", "collections.OrderedDict", "collections.defaultdict")


class EstimatorPredictor:
    """An estimator's probability of the positive class, or its prediction."""

    def __init__(self, estimator: Any, binary: bool) -> None:
        self._estimator = estimator
        self._binary = binary

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row."""
        if self._binary:
            return np.asarray(self._estimator.predict_proba(matrix)[:, 1], dtype=np.float64)
        return np.asarray(self._estimator.predict(matrix), dtype=np.float64)


class SklearnRuntime:
    """Loads skops files."""

    def __init__(self, settings: SklearnSettings) -> None:
        self._trusted = (*_TRUSTED, *settings.trust)

    def load(self, folder: Path, card: Card) -> EstimatorPredictor:
        """Load an estimator.

        Raises:
            StoreError: MS-4150, it is no skops file.
            RefusedError: MS-5030, it holds types that are not trusted.
        """
        data = (folder / card.file).read_bytes()
        try:
            types = skops_io.get_untrusted_types(data=data)
            strange = [name for name in types if not name.startswith(self._trusted)]
            if strange:
                raise untrusted(card.file, strange)
            estimator = skops_io.loads(data, trusted=types)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise damaged(card.file, error) from error
        return EstimatorPredictor(estimator, card.task == "binary")


def open_runtime(settings: SklearnSettings, place: Path) -> SklearnRuntime:
    """The runtime."""
    return SklearnRuntime(settings)
