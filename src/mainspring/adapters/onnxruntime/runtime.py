"""The runtime port on onnxruntime: one thread a call, only the output that is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.adapters.onnxruntime.settings import OnnxSettings
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card, loading

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort
    from numpy.typing import NDArray
else:
    np, ort = lazy("numpy"), lazy("onnxruntime")

__all__ = ["OnnxPredictor", "OnnxRuntime", "open_runtime"]


class OnnxPredictor:
    """A session with one float32 input and one output of scores: (rows,), (rows, 1) or (rows, 2) probabilities."""

    def __init__(self, session: Any, output: str) -> None:
        # What Python does in `InferenceSession.run` looks at each call for missing inputs and for graphs on a GPU, of
        # which there are none here; of a call of one row it is a quarter.
        self._run = getattr(session, "_sess", session).run
        self._session = session
        self._outputs = [output]
        self._input = session.get_inputs()[0].name
        self._wide = np.dtype(np.float64)

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """One score a row."""
        (found,) = self._run(self._outputs, {self._input: matrix}, None)
        scores: NDArray[np.float64] = (found[:, -1] if found.ndim == 2 else found).astype(self._wide)
        return scores


class OnnxRuntime:
    """Loads ONNX files."""

    def __init__(self, settings: OnnxSettings) -> None:
        self._threads = settings.threads

    def load(self, folder: Path, card: Card) -> OnnxPredictor:
        """Load an ONNX file.

        Raises:
            StoreError: MS-4150, it is no ONNX model.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        with loading(folder, card) as path:
            session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        return OnnxPredictor(session, card.output or session.get_outputs()[-1].name)


def open_runtime(settings: OnnxSettings, place: Path) -> OnnxRuntime:
    """The runtime."""
    return OnnxRuntime(settings)
