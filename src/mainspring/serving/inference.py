"""Calls to the models of this process: found, checked, scored, logged and counted alike for every wire."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mainspring.lazy import lazy
from mainspring.serving.calls import Array, Call, Inference, Reason, Rejected, Tensor
from mainspring.serving.endpoint import EndpointService
from mainspring.serving.models import LiveModel, ModelTable
from mainspring.serving.statistics import Statistics
from mainspring.serving.telemetry import Metrics

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["LABELS", "Registry", "ServedModel", "ServedModels"]

LABELS = ("champion", "stable")
"""The labels of the version that answers."""

_RUNTIMES: Mapping[str, tuple[str, str]] = {
    "onnx": ("onnxruntime_onnx", "onnxruntime"),
    "lightgbm": ("lightgbm_booster", "lightgbm"),
    "skops": ("sklearn_skops", "sklearn"),
    "xgboost": ("xgboost_booster", "xgboost"),
    "pickle": ("python", "python"),
}
"""The platform and the backend of each format that a model is stored in."""


class Registry(Protocol):
    """The models that this process may serve, by their names in the catalog: never by an address or a path."""

    def names(self) -> Sequence[str]:
        """Every model of the app, loaded or not."""

    def load(self, name: str) -> None:
        """Load the version that the catalog's alias names, and let it answer; it stays loaded until it is unloaded.

        Raises:
            Rejected: NO_MODEL, no model is called so; NOT_READY, it has no version to load.
        """

    def unload(self, name: str) -> None:
        """Let a model answer no more, and forget it.

        Raises:
            Rejected: NO_MODEL, no model is called so.
        """


class ServedModel:
    """A version that answers, as wires describe it: one matrix of the columns goes in, one score a row comes out.

    Attributes:
        name: the model's name.
        version: the version.
        platform: what runs it: ``onnxruntime_onnx``.
        backend: the runtime: ``onnxruntime``.
        inputs: what it takes.
        columns: one tensor a column, which together may be sent in place of `inputs`.
        outputs: what it gives.
        binary: whether the score is the probability of true.
        statistics: what it has done.
    """

    def __init__(self, name: str, live: LiveModel, statistics: Statistics) -> None:
        card = live.card
        datatype = "FP32" if card.dtype == "float32" else "FP64"
        self.name = name
        self.version = live.version
        self.platform, self.backend = _RUNTIMES.get(card.format, (card.format, card.format))
        self.inputs = (Tensor("input", datatype, (-1, len(card.columns))),)
        self.columns = tuple(Tensor(column, datatype, (-1,)) for column in card.columns)
        self.outputs = (Tensor("score", "FP64", (-1,)),)
        self.binary = card.task == "binary"
        self.statistics = statistics
        self.live = live

    def taken(self, names: Sequence[object]) -> Sequence[Tensor]:
        """The tensors that inputs of these names are meant for: the model's own, or one a column."""
        if self.inputs[0].name not in names and any(column.name in names for column in self.columns):
            return self.columns
        return self.inputs

    def wanted(self, names: Sequence[str]) -> Sequence[Tensor]:
        """The outputs of these names, in their order; all without names.

        Raises:
            Rejected: INVALID, there is none of a name.
        """
        if not names:
            return self.outputs
        declared = {tensor.name: tensor for tensor in self.outputs}
        for name in names:
            if name not in declared:
                raise Rejected(
                    Reason.INVALID, f"model {self.name!r} has no output {name!r}; it gives {', '.join(declared)}"
                )
        return [declared[name] for name in names]

    def matrix(self, inputs: Mapping[str, Array], max_rows: int) -> Array:
        """The inputs as one matrix (rows, columns).

        Raises:
            Rejected: INVALID, they are not what the model takes; TOO_LARGE, there are too many rows.
        """
        declared = self.taken(tuple(inputs))
        names = [tensor.name for tensor in declared]
        if strange := next((name for name in inputs if name not in names), None):
            raise Rejected(Reason.INVALID, f"model {self.name!r} has no input {strange!r}; it takes {', '.join(names)}")
        if missing := [name for name in names if name not in inputs]:
            raise Rejected(Reason.INVALID, f"inputs are missing: {', '.join(missing)}")
        arrays = [inputs[name] for name in names]
        if any(array.dtype.kind not in "fiub" for array in arrays):
            raise Rejected(Reason.INVALID, f"model {self.name!r} takes numbers")
        matrix = arrays[0] if declared is self.inputs else _side_by_side(names, arrays)
        if matrix.ndim != 2 or matrix.shape[1] != len(self.columns):
            taken = list(self.inputs[0].shape)
            raise Rejected(Reason.INVALID, f"the input has shape {list(matrix.shape)}; the model takes {taken}")
        if not matrix.shape[0]:
            raise Rejected(Reason.INVALID, "the inputs have no rows")
        if matrix.shape[0] > max_rows:
            raise Rejected(Reason.TOO_LARGE, f"{matrix.shape[0]} rows; at most {max_rows} are served at once")
        return matrix


def _side_by_side(names: Sequence[str], arrays: Sequence[Array]) -> Array:
    flat = [array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array for array in arrays]
    for name, array in zip(names, flat, strict=True):
        if array.ndim != 1:
            raise Rejected(Reason.INVALID, f"input {name!r} has shape {list(array.shape)}; a column has [rows]")
    if len({array.shape[0] for array in flat}) > 1:
        raise Rejected(Reason.INVALID, "the inputs have different numbers of rows")
    return np.stack(flat, axis=1)


class ServedModels:
    """The models of this process; one version of each answers.

    Args:
        table: the models.
        endpoints: the endpoints that are ready, by name; the first one of a model logs what it answers.
        registry: which models there are, and their loading.
        metrics: where calls are counted, or None.
        app: the app's name, a label of the counts.
        max_rows: most rows in one call.
        now: the clock, UTC microseconds.
        default: the model of routes that name none.
        timeout_s: seconds that any call may take, or None.
    """

    def __init__(
        self,
        table: ModelTable,
        endpoints: Callable[[], Mapping[str, EndpointService]],
        registry: Registry,
        metrics: Metrics | None,
        app: str,
        max_rows: int,
        now: Callable[[], int],
        default: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.registry = registry
        self.max_rows = max_rows
        self.created_s = now() // 1_000_000
        self._table = table
        self._endpoints = endpoints
        self._metrics = metrics
        self._app = app
        self._now = now
        self._default = default
        self._timeout_s = timeout_s
        self._served: dict[str, ServedModel] = {}
        self._counters: dict[tuple[str, str, str], _Counters] = {}

    def names(self) -> Sequence[str]:
        """The models of which a version answers."""
        return list(self._table.all())

    def known(self) -> Sequence[str]:
        """Every model of the app, with those that were loaded beside."""
        return list(dict.fromkeys([*self.registry.names(), *self._table.all()]))

    def get(self, name: str) -> ServedModel | None:
        """The version of a model that answers; None when there is none."""
        live = self._table.get(name)
        if live is None:
            self._served.pop(name, None)
            return None
        served = self._served.get(name)
        if served is None or served.live is not live:
            served = self._served[name] = ServedModel(name, live, live.statistics)
        return served

    def find(self, name: str, version: str | None = None, label: str | None = None) -> ServedModel:
        """The version that answers, when it is the one that is asked for.

        Raises:
            Rejected: NO_MODEL, NO_VERSION, NOT_READY.
        """
        served = self.get(name)
        if served is None:
            if name in self.registry.names():
                raise Rejected(Reason.NOT_READY, f"model {name!r} is not loaded")
            there = ", ".join(self.names()) or "none"
            raise Rejected(Reason.NO_MODEL, f"no model is called {name!r}; there are: {there}")
        if version is not None and version != served.version:
            raise Rejected(Reason.NO_VERSION, f"model {name!r} has version {served.version} ready, not {version}")
        if label is not None and label not in LABELS:
            raise Rejected(Reason.NO_VERSION, f"model {name!r} has no label {label!r}; it has {', '.join(LABELS)}")
        return served

    def chosen(self, name: str | None) -> ServedModel:
        """The model of a route that may name one: that one, else the one of the settings, else the only one.

        Raises:
            Rejected: INVALID, there are several; as `find` raises.
        """
        if name is None:
            name = self._default
        if name is None:
            known = self.known()
            if len(known) != 1:
                there = ", ".join(known) or "none"
                raise Rejected(Reason.INVALID, f"this route answers for one model, and there are: {there}")
            (name,) = known
        return self.find(name)

    async def infer(self, call: Call) -> Inference:
        """Answer a call: scored, logged when the model is behind an endpoint, and counted.

        Raises:
            Rejected: as `find`, `ServedModel.matrix` and `ServedModel.wanted` raise; EXPIRED, its deadline is over;
                BUSY, too much waits for the model already.
            DataError: MS-2306, the model takes no missing or infinite value, and there is one.
        """
        served = self.find(call.model, call.version, call.label)
        counters = self._counters.get((served.name, served.version, call.protocol))
        if counters is None:
            counters = self._counted(served, call.protocol)
        begun = time.perf_counter_ns()
        try:
            wanted = served.wanted(call.outputs)
            matrix = served.matrix(call.inputs, self.max_rows)
            if call.deadline is not None and time.monotonic() >= call.deadline:
                raise Rejected(Reason.EXPIRED, "the deadline of the call is over")
            queue_ns, alone, live = 0, True, served.live
            if live.is_quick(len(matrix)):
                scores = live.scores(matrix)
            else:
                deadline = self._deadline(call)
                scored = await live.scores_soon(matrix, deadline, call.priority, call.parameters)
                scores, queue_ns, alone = scored.scores, scored.queue_ns, False
        except Exception:
            served.statistics.fail.add(call.decode_ns + time.perf_counter_ns() - begun)
            counters.failed(1.0)
            raise
        found = time.perf_counter_ns()
        ids = self._logged(served, matrix, scores)
        done = time.perf_counter_ns()
        infer_ns = found - begun - queue_ns
        served.statistics.answered(len(matrix), call.decode_ns, infer_ns, done - found, queue_ns=queue_ns, alone=alone)
        counters.answered(1.0)
        counters.rows(float(len(matrix)))
        counters.seconds(infer_ns / 1e9)
        outputs = [(tensor, scores) for tensor in wanted]
        return Inference(served.name, served.version, outputs, ids)

    def _deadline(self, call: Call) -> float | None:
        """The least of the call's own and the server's."""
        if self._timeout_s is None:
            return call.deadline
        latest = time.monotonic() + self._timeout_s
        return latest if call.deadline is None else min(call.deadline, latest)

    def _logged(self, served: ServedModel, matrix: Array, scores: Array) -> Sequence[str]:
        endpoint = next((found for found in self._endpoints().values() if found.model == served.name), None)
        if endpoint is None:
            return ()
        # A value that is no number is missing to the model, and is logged as entity-keyed questions log it.
        rows = [[None if value != value else value for value in row] for row in matrix.tolist()]
        return endpoint.record(rows, scores.tolist(), served.version, self._now())

    def _counted(self, served: ServedModel, protocol: str) -> _Counters:
        found = _Counters(self._metrics, app=self._app, model=served.name, version=served.version, protocol=protocol)
        self._counters[served.name, served.version, protocol] = found
        return found


class _Counters:
    """What is counted of a model, a version and a wire."""

    __slots__ = ("answered", "failed", "rows", "seconds")

    def __init__(self, metrics: Metrics | None, **labels: str) -> None:
        self.answered: Callable[[float], None] = _nothing
        self.failed: Callable[[float], None] = _nothing
        self.rows: Callable[[float], None] = _nothing
        self.seconds: Callable[[float], None] = _nothing
        if metrics is None:
            return
        self.answered = metrics.counter("mainspring_inferences_total", outcome="answered", **labels)
        self.failed = metrics.counter("mainspring_inferences_total", outcome="failed", **labels)
        self.rows = metrics.counter("mainspring_predictions_total", **labels)
        self.seconds = metrics.histogram("mainspring_inference_seconds", **labels)


def _nothing(amount: float) -> None:
    return
