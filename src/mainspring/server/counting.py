"""The counters of requests at the main listener: by route, by what was asked for, by status."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mainspring.protocols.http import Request
from mainspring.server.state import WorkerState
from mainspring.serving.counts import ANSWERING, WireCounts
from mainspring.serving.inference import ServedModels

__all__ = ["RequestCounts"]

_KEPT = 4096
"""The most kinds of request whose counters are kept at hand."""
_OF_MODELS = frozenset({"infer", "predict", "predictions", "invoke"})
"""The routes whose path begins with a model's name."""
_OF_ENDPOINTS = frozenset({"endpoint", "batch"})
"""Those whose path begins with an endpoint's."""
_WIRES: Mapping[str, str] = {
    "infer": "oip",
    "predictions": "torchserve",
    "invoke": "sagemaker",
    "score": "azureml",
    "vertex_predict": "vertex",
    "endpoint": "native",
    "batch": "native",
}
"""The wires of the routes that ask a model, and of one that two wires share, `RequestCounts` says which it is."""

_Add = Callable[[float], None]


class RequestCounts:
    """Counts and times the requests of a serving process, on its metrics."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._models: ServedModels | None = None
        self._wires = dict(_WIRES)
        self._app = state.plan.app
        self._kept: dict[tuple[str, tuple[str, ...], int], tuple[_Add, _Add]] = {}

    def tell(self, models: ServedModels, on: frozenset[str]) -> None:
        """Count what is refused before its model is looked for with that model, too.

        Args:
            models: of the process.
            on: the wires that they are served by.
        """
        self._models = models
        first = sorted(on & {"kserve", "tfserving"})
        self._wires["predict"] = first[0] if len(first) == 1 else "v1"
        self._wires["invocations"] = "sagemaker" if "sagemaker" in on else "torchserve"

    def count(self, request: Request | None, name: str, status: int, seconds: float, sent: int = 0) -> None:
        """Count one answer.

        Args:
            request: what was asked; None where no request could be read.
            name: of the route.
            status: of HTTP.
            seconds: it took.
            sent: bytes of the answer's body.
        """
        if request is not None and (counts := ANSWERING.get() or self._unanswered(request, name)) is not None:
            counts.over(len(request.body), sent, status)
        asked = request.parameters[:1] if request is not None else ()
        found = self._kept.get((name, asked, status))
        if found is None:
            metrics = self._state.metrics
            labels = {"app": self._app, "route": name} | self._asked(name, asked)
            add = metrics.counter("mainspring_requests_total", code=str(status), **labels)
            observe = metrics.histogram("mainspring_request_seconds", **labels)
            found = (add, observe)
            if len(self._kept) < _KEPT:
                self._kept[name, asked, status] = found
        found[0](1.0)
        found[1](seconds)

    def _unanswered(self, request: Request, route: str) -> WireCounts | None:
        """The counts of a request for a model that nobody has looked for: who asks was not let in, or not its body."""
        wire = self._wires.get(route)
        if wire is None or self._models is None:
            return None
        named = request.parameters[0].partition(":")[0] if request.parameters else ""
        if route in _OF_ENDPOINTS:
            endpoint = self._state.endpoints.get(named)
            named = "" if endpoint is None else endpoint.model
        return self._models.unanswered(named, wire)

    def refused(self, why: str) -> None:
        """Count one caller who was not let in."""
        self._state.metrics.counter("mainspring_refused_total", app=self._app, reason=why)(1.0)

    def _asked(self, route: str, asked: tuple[str, ...]) -> dict[str, str]:
        """What a request was for, as labels: only names that there are, so that clients make up no series."""
        if route in _OF_ENDPOINTS and asked and asked[0] in self._state.endpoints:
            return {"endpoint": asked[0]}
        model = asked[0].partition(":")[0] if asked else ""
        if route in _OF_MODELS and self._state.models.get(model) is not None:
            return {"model": model}
        return {}
