"""The live models as OIP sees them; what they answer is in the prediction log of their endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mainspring.lazy import lazy
from mainspring.protocols.http import Fault
from mainspring.protocols.oip.rest import Inference
from mainspring.protocols.oip.tensors import Tensor
from mainspring.serving.endpoint import EndpointService
from mainspring.serving.models import LiveModel, ModelTable

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["ServedModels"]

_PLATFORMS = {"onnx": "onnxruntime_onnx", "lightgbm": "lightgbm_booster", "skops": "sklearn_skops"}


class _Served:
    """A live model with one input matrix and one output of scores."""

    def __init__(self, name: str, live: LiveModel, endpoint: EndpointService | None, now: Callable[[], int]) -> None:
        self.name = name
        self.version = live.version
        self.platform = _PLATFORMS.get(live.card.format, live.card.format)
        datatype = "FP32" if live.card.dtype == "float32" else "FP64"
        self.inputs = (Tensor("input", datatype, (-1, len(live.card.columns))),)
        self.outputs = (Tensor("score", "FP64", (-1,)),)
        self._live = live
        self._endpoint = endpoint
        self._now = now

    async def infer(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Inference:
        """The scores of the input's rows, logged when the model is behind an endpoint."""
        matrix = inputs["input"]
        scores = self._live.scores(matrix)
        if self._endpoint is None:
            return Inference({"score": scores})
        # A value that is no number is missing to the model, and is logged as entity-keyed questions log it.
        rows = [[None if value != value else value for value in row] for row in matrix.tolist()]
        ids = self._endpoint.record(rows, scores.tolist(), self.version, self._now())
        return Inference({"score": scores}, ids)


class ServedModels:
    """The models of this process; one version of each answers.

    Args:
        table: the models.
        endpoints: the endpoints that are ready, by name; the first one of a model logs what it answers.
        now: the clock, UTC microseconds.
    """

    def __init__(
        self,
        table: ModelTable,
        endpoints: Callable[[], Mapping[str, EndpointService]],
        now: Callable[[], int],
    ) -> None:
        self._table = table
        self._endpoints = endpoints
        self._now = now

    def names(self) -> Sequence[str]:
        """Their names."""
        return list(self._table.all())

    def versions(self, name: str) -> Sequence[str]:
        """The version that is ready."""
        live = self._table.get(name)
        return [] if live is None else [live.version]

    def find(self, name: str, version: str | None) -> _Served:
        """The version that answers, when it is the one that is asked for.

        Raises:
            Fault: 404.
        """
        live = self._table.get(name)
        if live is None:
            raise Fault(404, f"no model is called {name!r}; there are: {', '.join(self.names()) or 'none'}")
        if version is not None and version != live.version:
            raise Fault(404, f"model {name!r} has version {live.version} ready, not {version}")
        endpoint = next((found for found in self._endpoints().values() if found.model == name), None)
        return _Served(name, live, endpoint, self._now)
