"""OIP v2 inference over gRPC: a message to a call and an answer to a message, raw and typed contents."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from mainspring.protocols.arrays import FLOATS, as_declared
from mainspring.protocols.http import Fault
from mainspring.protocols.oip.infer import PREDICTION_IDS, deadline_of, priority_of
from mainspring.protocols.oip.messages import schema
from mainspring.protocols.oip.tensors import read_bytes, write_bytes
from mainspring.serving.calls import DATATYPES, Array, Call, Inference, Tensor, check_shape
from mainspring.serving.served import ServedModel

__all__ = ["parameter", "read_infer", "write_infer"]

_TYPED: Mapping[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of a tensor's contents; FP16 and BF16 have none, and are raw."""
_SHARED_MEMORY = "shared_memory_region"


def read_infer(
    asked: Any,
    served: ServedModel,
    version: str | None,
    protocol: str,
    max_rows: int,
    deadline: float | None,
    begun: int,
) -> Call:
    """A ModelInferRequest's call.

    Args:
        asked: the message.
        served: who answers.
        version: the version that it names.
        protocol: the wire, for metrics.
        max_rows: the most rows.
        deadline: the moment of `time.monotonic` at which the caller leaves; None is never.
        begun: when its reading began, in nanoseconds of `time.perf_counter_ns`.

    Raises:
        Fault: 400, it is no inference request of this model.
        Rejected: as `check_shape` raises; nothing is allocated for a shape that lies.
    """
    parameters: Mapping[str, Any] = {}
    if asked.parameters:
        parameters = {name: _value(name, value) for name, value in asked.parameters.items()}
        own = deadline_of(parameters, time.monotonic())
        deadline = own if deadline is None or (own is not None and own < deadline) else deadline
    inputs = _usual(asked, served, max_rows) or _inputs(asked, served, max_rows)
    return Call(
        served.name,
        inputs,
        protocol,
        version,
        id=asked.id,
        parameters=parameters,
        outputs=_outputs(asked) if asked.outputs else (),
        deadline=deadline,
        priority=priority_of(parameters) if parameters else 0,
        decode_ns=time.perf_counter_ns() - begun,
    )


def parameter(parameters: Mapping[str, Any], name: str) -> Any:
    """The value of a parameter; None when there is none."""
    return _value(name, parameters[name]) if name in parameters else None


def _value(name: str, value: Any) -> str | int | float | bool:
    kind = value.WhichOneof("parameter_choice")
    if kind is None:
        raise Fault(400, f"parameter {name[:40]!r} has no value")
    found: str | int | float | bool = getattr(value, kind)
    return found


def _usual(asked: Any, served: ServedModel, max_rows: int) -> dict[str, Array] | None:
    """What nearly every client sends: the model's matrix alone, raw, in its own datatype; None for all else.

    The general way finds the same and says what is wrong; but what runs between two calls is cold in the processor's
    caches, and this is a quarter of it.
    """
    raw, items = asked.raw_input_contents, asked.inputs
    if len(items) != 1 or len(raw) != 1:
        return None
    (item,), (data,), declared = items, raw, served.inputs[0]
    kind = FLOATS.get(item.datatype)
    if kind is None or item.name != declared.name or item.datatype != declared.datatype or len(served.inputs) != 1:
        return None
    shape, wanted = item.shape, declared.shape
    if len(shape) != 2 or len(wanted) != 2 or shape[1] != wanted[1] or not 0 < shape[0] <= max_rows:
        return None
    if len(data) != shape[0] * shape[1] * kind.itemsize or item.HasField("contents") or item.parameters:
        return None
    return {declared.name: np.frombuffer(data, kind).reshape(shape[0], shape[1])}


def _inputs(asked: Any, served: ServedModel, max_rows: int) -> dict[str, Array]:
    items, raw = asked.inputs, asked.raw_input_contents
    if raw and len(raw) != len(items):
        raise Fault(400, f"the request has {len(items)} inputs and {len(raw)} raw contents; all are raw, or none is")
    names = [item.name for item in items]
    declared = {tensor.name: tensor for tensor in served.taken(names)}
    found: dict[str, Array] = {}
    for place, item in enumerate(items):
        name = names[place]
        tensor = declared.get(name)
        if tensor is None:
            raise Fault(400, f"model {served.name!r} has no input {name[:80]!r}; it takes {', '.join(declared)}")
        if name in found:
            raise Fault(400, f"input {name!r} is there twice")
        if item.parameters and _SHARED_MEMORY in item.parameters:
            raise Fault(400, "shared memory is not served")
        found[name] = _tensor(item, tensor, raw[place] if raw else None, max_rows)
    return found


def _tensor(item: Any, declared: Tensor, raw: bytes | None, max_rows: int) -> Array:
    name, datatype = declared.name, item.datatype
    if datatype not in DATATYPES:
        raise Fault(400, f"input {name!r} has datatype {datatype[:40]!r}; known: {', '.join(DATATYPES)}")
    if (datatype == "BYTES") != (declared.datatype == "BYTES"):
        raise Fault(400, f"input {name!r} has datatype {datatype}; the model takes {declared.datatype}")
    shape = list(item.shape)
    if shape and min(shape) < 0:
        raise Fault(400, f"input {name!r} has no shape of whole numbers")
    count = check_shape(name, as_declared(shape, declared), declared, max_rows)
    if raw is not None:
        if item.HasField("contents"):
            raise Fault(400, f"input {name!r} has contents, and raw contents beside")
        return read_bytes(name, datatype, memoryview(raw), count).reshape(shape)
    return _typed(name, datatype, item.contents, count).reshape(shape)


def _typed(name: str, datatype: str, contents: Any, count: int) -> Array:
    field = _TYPED.get(datatype)
    if field is None:
        raise Fault(400, f"input {name!r} has datatype {datatype}, which is sent as raw contents")
    values = getattr(contents, field)
    if len(values) != count:
        raise Fault(400, f"input {name!r} has {len(values)} values in {field} for {count} elements of {datatype}")
    if datatype == "BYTES":
        texts = np.empty(count, object)
        texts[:] = list(values)
        return texts
    try:
        return np.array(list(values), DATATYPES[datatype])
    except OverflowError:
        raise Fault(400, f"input {name!r} holds a value outside {datatype}") from None


def _outputs(asked: Any) -> tuple[str, ...]:
    for output in asked.outputs:
        if output.parameters:
            if _SHARED_MEMORY in output.parameters:
                raise Fault(400, "shared memory is not served")
            if parameter(output.parameters, "classification"):
                raise Fault(400, "the classification extension is not served")
    return tuple(output.name for output in asked.outputs)


@functools.cache
def _answer() -> Any:
    return schema().message("inference.ModelInferResponse")


def write_infer(answer: Inference, identity: str, *, raw: bool) -> Any:
    """A ModelInferResponse: raw contents where the request had them.

    Raises:
        Fault: 400, an output has a datatype without typed contents.
    """
    found = _answer()(model_name=answer.model, model_version=answer.version, id=identity)
    if answer.ids:
        found.parameters[PREDICTION_IDS].string_param = ",".join(answer.ids)
    for tensor, values in answer.outputs:
        output = found.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=values.shape)
        if raw:
            found.raw_output_contents.append(write_bytes(tensor, values))
            continue
        field = _TYPED.get(tensor.datatype)
        if field is None:
            raise Fault(400, f"output {tensor.name!r} is {tensor.datatype}, which only raw contents hold")
        flat = values.ravel().tolist()
        if tensor.datatype == "BYTES":
            flat = [value if isinstance(value, bytes) else str(value).encode() for value in flat]
        getattr(output.contents, field).extend(flat)
    return found
