"""The runtime port on scikit-learn: skops files, whose types are checked before anything is made of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.adapters.sklearn.problems import untrusted
from mainspring.adapters.sklearn.settings import SklearnSettings
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card, loading

if TYPE_CHECKING:
    import numpy as np
    import skops.io as skops_io
    import threadpoolctl
    from numpy.typing import NDArray
else:
    np, skops_io, threadpoolctl = lazy("numpy"), lazy("skops.io"), lazy("threadpoolctl")

__all__ = ["EstimatorPredictor", "SklearnRuntime", "open_runtime"]

_TRUSTED = ("sklearn.", "numpy.", "lightgbm.", "scipy.", "collections.OrderedDict", "collections.defaultdict")


_limited = threading.local()
"""Whether OpenMP was told of each thread how many others it may start: it keeps that number thread by thread."""


class EstimatorPredictor:
    """An estimator's probability of the positive class, or its prediction.

    Args:
        estimator: the fitted model.
        binary: whether its score is a probability.
        threads: that OpenMP may use for a call.
    """

    def __init__(self, estimator: Any, binary: bool, threads: int = 1) -> None:
        self._estimator = estimator
        self._binary = binary
        self._threads = threads

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row."""
        if getattr(_limited, "threads", None) != self._threads:
            threadpoolctl.threadpool_limits(self._threads, user_api="openmp")
            _limited.threads = self._threads
        if self._binary:
            return np.asarray(self._estimator.predict_proba(matrix)[:, 1], dtype=np.float64)
        return np.asarray(self._estimator.predict(matrix), dtype=np.float64)


class SklearnRuntime:
    """Loads skops files."""

    def __init__(self, settings: SklearnSettings) -> None:
        self._trusted = (*_TRUSTED, *settings.trust)
        self._threads = settings.threads

    def load(self, folder: Path, card: Card) -> EstimatorPredictor:
        """Load an estimator.

        Raises:
            StoreError: MS-4150, it is no skops file.
            RefusedError: MS-5030, it holds types that are not trusted.
        """
        with loading(folder, card) as path:
            data = path.read_bytes()
            types = skops_io.get_untrusted_types(data=data)
            strange = [name for name in types if not name.startswith(self._trusted)]
            if strange:
                raise untrusted(card.file, strange)
            estimator = skops_io.loads(data, trusted=types)
        return EstimatorPredictor(estimator, card.task == "binary", self._threads)


def open_runtime(settings: SklearnSettings, place: Path) -> SklearnRuntime:
    """The runtime."""
    return SklearnRuntime(settings)
