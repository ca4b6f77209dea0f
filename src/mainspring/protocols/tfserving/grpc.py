"""TensorFlow Serving over gRPC: PredictionService and ModelService."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mainspring.protocols.arrays import array_of
from mainspring.protocols.bodies import id_headers
from mainspring.protocols.grpc.service import GrpcAsking, GrpcCall, GrpcService
from mainspring.protocols.http import Fault, Request
from mainspring.protocols.tfserving.messages import MODEL, PREDICTION, schema
from mainspring.protocols.tfserving.reload import ModelConfig, reload_config
from mainspring.protocols.tfserving.rest import known_states
from mainspring.protocols.tfserving.tensors import TYPES, read_proto, write_proto
from mainspring.protocols.tfserving.values import SIGNATURE, classes_of, numbers_of
from mainspring.serving.calls import Array, Call, Inference, Tensor
from mainspring.serving.inference import ServedModels
from mainspring.serving.served import ServedModel
from mainspring.serving.versions import State, VersionState

__all__ = ["tfserving_services"]

PROTOCOL = "tfserving_grpc"
_PREFIX = "tensorflow/serving/"
_STATES: Mapping[State, str] = {
    State.LOADING: "LOADING",
    State.READY: "AVAILABLE",
    State.UNLOADING: "UNLOADING",
    State.UNAVAILABLE: "END",
}
_TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


def tfserving_services(
    models: ServedModels, may: Callable[[Request], None], run_blocking: Callable[..., Awaitable[Any]]
) -> tuple[GrpcService, ...]:
    """Both services.

    Args:
        models: the models of this process.
        may: raises `Fault` for a call that may not manage.
        run_blocking: awaits a function run in a thread.
    """
    predictions, versions = _Predictions(models), _Models(models, may, run_blocking)
    return (
        GrpcService(
            PREDICTION,
            schema(),
            {
                "Predict": predictions.predict,
                "Classify": predictions.classify,
                "Regress": predictions.regress,
                "MultiInference": predictions.multi_inference,
                "GetModelMetadata": predictions.metadata,
            },
        ),
        GrpcService(
            MODEL,
            schema(),
            {"GetModelStatus": versions.status, "HandleReloadConfigRequest": versions.reload},
            frozenset({"HandleReloadConfigRequest"}),
        ),
    )


def _message(name: str) -> Any:
    return schema().message(f"tensorflow.serving.{name}")


def _version(spec: Any) -> str | None:
    return str(spec.version.value) if spec.WhichOneof("version_choice") == "version" else None


def _found(models: ServedModels, spec: Any, asking: GrpcAsking | None = None, protocol: str = "") -> ServedModel:
    """The model that a spec names, by the version, the label, or the caller's key.

    Raises:
        Fault: 400, it names none.
        Rejected: as `ServedModels.find` raises.
    """
    if not spec.name:
        raise Fault(400, "model_spec names no model")
    return models.find(spec.name, _version(spec), spec.version_label or None, asking, protocol)


def _number(version: str) -> int:
    """A version as TensorFlow Serving numbers it; one that is no number is 0."""
    return int(version) if version.isascii() and version.isdigit() else 0


class _Predictions:
    def __init__(self, models: ServedModels) -> None:
        self._models = models
        self._predicted = _message("PredictResponse")

    async def predict(self, asked: Any, call: GrpcCall) -> Any:
        begun = time.perf_counter_ns()
        served = self._asked(asked.model_spec, GrpcAsking(call, asked))
        inputs = self._inputs(asked.inputs, served)
        answer = await self._infer(served, asked.model_spec, inputs, call, begun, tuple(asked.output_filter))
        found = self._predicted()
        self._name(found.model_spec, answer)
        for tensor, values in answer.outputs:
            write_proto(found.outputs[tensor.name], tensor, values)
        return found

    async def classify(self, asked: Any, call: GrpcCall) -> Any:
        served = self._asked(asked.model_spec, GrpcAsking(call, asked))
        _check_classes(served)
        answer = await self._examples(served, asked.model_spec, asked.input, call)
        found = _message("ClassificationResponse")(result=_classes(answer))
        self._name(found.model_spec, answer)
        return found

    async def regress(self, asked: Any, call: GrpcCall) -> Any:
        served = self._asked(asked.model_spec, GrpcAsking(call, asked))
        answer = await self._examples(served, asked.model_spec, asked.input, call)
        found = _message("RegressionResponse")(result=_regressions(answer))
        self._name(found.model_spec, answer)
        return found

    async def multi_inference(self, asked: Any, call: GrpcCall) -> Any:
        """Several answers of one model about the same examples, which are scored once."""
        if not asked.tasks:
            raise Fault(400, "tasks names none")
        specs = (task.model_spec for task in asked.tasks)
        if len({(spec.name, _version(spec), spec.version_label) for spec in specs}) > 1:
            raise Fault(400, "all tasks are of one model and version")
        served = self._asked(asked.tasks[0].model_spec, GrpcAsking(call, asked))
        writers = [self._writer(task, served) for task in asked.tasks]
        answer = await self._examples(served, asked.tasks[0].model_spec, asked.input, call)
        found = _message("MultiInferenceResponse")()
        for write in writers:
            result = found.results.add(**write(answer))
            self._name(result.model_spec, answer)
        return found

    def _writer(self, task: Any, served: ServedModel) -> Callable[[Inference], dict[str, Any]]:
        self._asked(task.model_spec)
        if task.method_name == f"{_PREFIX}classify":
            _check_classes(served)
            return lambda answer: {"classification_result": _classes(answer)}
        if task.method_name == f"{_PREFIX}regress":
            return lambda answer: {"regression_result": _regressions(answer)}
        raise Fault(400, f"method_name is {_PREFIX}classify or {_PREFIX}regress, not {task.method_name[:80]!r}")

    async def metadata(self, asked: Any, call: GrpcCall) -> Any:
        served = _found(self._models, asked.model_spec)
        fields = list(asked.metadata_field)
        if not fields or any(field != "signature_def" for field in fields):
            raise Fault(400, "metadata_field is signature_def")
        described = _message("SignatureDefMap")()
        signature = described.signature_def[SIGNATURE]
        for tensors, into in ((served.inputs, signature.inputs), (served.outputs, signature.outputs)):
            for tensor in tensors:
                _describe(into[tensor.name], tensor)
        signature.method_name = f"{_PREFIX}predict"
        found = _message("GetModelMetadataResponse")()
        found.model_spec.name = served.name
        found.model_spec.version.value = _number(served.version)
        found.metadata["signature_def"].type_url = _TYPE_URL
        found.metadata["signature_def"].value = described.SerializeToString()
        return found

    def _asked(self, spec: Any, asking: GrpcAsking | None = None) -> ServedModel:
        served = _found(self._models, spec, asking, PROTOCOL)
        if spec.signature_name not in ("", SIGNATURE):
            raise Fault(400, f"the model has the signature {SIGNATURE}, not {spec.signature_name[:80]!r}")
        return served

    def _inputs(self, protos: Any, served: ServedModel) -> dict[str, Array]:
        declared = {tensor.name: tensor for tensor in served.taken(tuple(protos))}
        if strange := next((name for name in protos if name not in declared), None):
            raise Fault(400, f"model {served.name!r} has no input {strange[:80]!r}; it takes {', '.join(declared)}")
        return {name: read_proto(proto, declared[name], self._models.max_rows) for name, proto in protos.items()}

    async def _examples(self, served: ServedModel, spec: Any, asked: Any, call: GrpcCall) -> Inference:
        begun = time.perf_counter_ns()
        kind = asked.WhichOneof("kind")
        if kind is None:
            raise Fault(400, "input has no examples")
        examples = getattr(asked, kind).examples
        context = asked.example_list_with_context.context if kind == "example_list_with_context" else None
        inputs = _columns(examples, context, served, self._models.max_rows)
        return await self._infer(served, spec, inputs, call, begun)

    async def _infer(
        self,
        served: ServedModel,
        spec: Any,
        inputs: dict[str, Array],
        call: GrpcCall,
        begun: int,
        outputs: tuple[str, ...] = (),
    ) -> Inference:
        question = Call(
            served.name,
            inputs,
            PROTOCOL,
            _version(spec),
            spec.version_label or None,
            outputs=outputs,
            deadline=call.deadline,
            decode_ns=time.perf_counter_ns() - begun,
        )
        answer = await self._models.infer(question, served)
        if answer.ids:
            call.identified(id_headers(answer.ids))
        return answer

    def _name(self, spec: Any, answer: Inference) -> None:
        spec.name = answer.model
        spec.version.value = _number(answer.version)
        spec.signature_name = SIGNATURE


class _Models:
    def __init__(
        self, models: ServedModels, may: Callable[[Request], None], run_blocking: Callable[..., Awaitable[Any]]
    ) -> None:
        self._models = models
        self._may = may
        self._run = run_blocking

    async def status(self, asked: Any, call: GrpcCall) -> Any:
        """Every version that is known here, or the one that is named."""
        spec = asked.model_spec
        if not spec.name:
            raise Fault(400, "model_spec names no model")
        states = known_states(self._models, spec.name, _version(spec), spec.version_label or None)
        return _message("GetModelStatusResponse")(model_version_status=[_status(state) for state in states])

    async def reload(self, asked: Any, call: GrpcCall) -> Any:
        """Serve the models of a list and no others; nothing is changed when one of them is unknown."""
        self._may(call.request)
        if asked.config.WhichOneof("config") != "model_config_list":
            raise Fault(400, "config is a model_config_list")
        configs = [_config(config) for config in asked.config.model_config_list.config]
        await self._run(reload_config, self._models, configs)
        return _message("ReloadConfigResponse")(status={})


def _status(state: VersionState) -> Mapping[str, Any]:
    failed = state.state is State.UNAVAILABLE
    status = {"error_code": "UNKNOWN", "error_message": state.reason} if failed else {}
    return {"version": _number(state.version), "state": _STATES[state.state], "status": status}


def _config(config: Any) -> ModelConfig:
    """One model of a list.

    Raises:
        Fault: 400, its policy asks for no version.
    """
    policy = config.model_version_policy
    kind = policy.WhichOneof("policy_choice") if config.HasField("model_version_policy") else None
    if kind == "specific" and not policy.specific.versions:
        raise Fault(400, "model_version_policy.specific names no version")
    return ModelConfig(
        config.name,
        config.base_path,
        config.model_platform,
        latest=policy.latest.num_versions if kind == "latest" else None,
        every=kind == "all",
        specific=tuple(policy.specific.versions) if kind == "specific" else (),
        labels=dict(config.version_labels),
    )


def _check_classes(served: ServedModel) -> None:
    if not served.binary:
        raise Fault(400, f"model {served.name!r} is a regression; ask it to Regress")


def _classes(answer: Inference) -> Any:
    rows = [{"classes": [{"label": label, "score": score} for label, score in row]} for row in classes_of(answer)]
    return _message("ClassificationResult")(classifications=rows)


def _regressions(answer: Inference) -> Any:
    return _message("RegressionResult")(regressions=[{"value": value} for value in numbers_of(answer)])


def _describe(info: Any, tensor: Tensor) -> None:
    info.name = f"{tensor.name}:0"
    info.dtype = TYPES[tensor.datatype]
    for size in tensor.shape:
        info.tensor_shape.dim.add(size=size)


def _columns(examples: Sequence[Any], context: Any, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """The columns of examples; a feature that one has not is the context's."""
    if not examples:
        raise Fault(400, "input has no examples")
    if len(examples) > max_rows:
        raise Fault(413, f"{len(examples)} examples; at most {max_rows} are served at once")
    names = {tensor.name for tensor in served.columns}
    shared = {} if context is None else dict(context.features.feature)
    rows = [dict(example.features.feature) for example in examples]
    for row in (shared, *rows):
        if strange := next((name for name in row if name not in names), None):
            known = ", ".join(tensor.name for tensor in served.columns)
            raise Fault(400, f"model {served.name!r} has no feature {strange[:80]!r}; it takes {known}")
    found = {}
    for tensor in served.columns:
        name = tensor.name
        values = [_feature(row.get(name) or shared.get(name), name) for row in rows]
        found[name] = array_of(name, tensor.datatype, values)
    return found


def _feature(feature: Any, name: str) -> float | int:
    kind = None if feature is None else feature.WhichOneof("kind")
    if kind is None:
        raise Fault(400, f"an example has no feature {name!r}")
    values = getattr(feature, kind).value
    if kind == "bytes_list":
        raise Fault(400, f"feature {name!r} is text; the model takes numbers")
    if len(values) != 1:
        raise Fault(400, f"feature {name!r} has {len(values)} values; the model takes one")
    found: float | int = values[0]
    return found
