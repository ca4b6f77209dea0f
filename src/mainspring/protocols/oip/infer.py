"""OIP v2 inference, bytes to a call and an answer to bytes: JSON, and JSON with binary tensors behind it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.protocols.arrays import FLOATS, floats
from mainspring.protocols.bodies import decode_json, encode_json
from mainspring.protocols.http import Fault
from mainspring.protocols.oip.tensors import SIZES, read_bytes, read_tensor, write_bytes, write_tensor
from mainspring.serving.calls import MAX_ELEMENTS, Array, Call, Inference, Tensor
from mainspring.serving.served import ServedModel

__all__ = ["PREDICTION_IDS", "Asked", "deadline_of", "priority_of", "read_call", "read_raw_call", "write_answer"]

PREDICTION_IDS = "prediction_ids"
"""The answer's parameter with the prediction ids of its rows, with commas between, as parameters are no lists."""

_MOST_US = 86_400_000_000
"""The longest time limit that a request may set: a day, in microseconds."""


class _Matrix(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON of a matrix of numbers, listed row by row."""

    name: str
    datatype: str
    shape: tuple[int, int]
    data: list[float]


class _Usual(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON of what most clients ask."""

    inputs: tuple[_Matrix]
    id: str | msgspec.UnsetType = msgspec.UNSET


_USUAL = msgspec.json.Decoder(_Usual)


class Asked(msgspec.Struct, frozen=True):
    """A call, and how its answer is written.

    Attributes:
        call: for the model.
        named: whether the caller gave an id.
        binary: whether each of the wanted outputs is written as binary data, in their order.
        rest: the same for all outputs, when none is wanted by name.
    """

    call: Call
    named: bool
    binary: tuple[bool, ...] = ()
    rest: bool = False


def read_call(
    body: bytes, length: int | None, served: ServedModel, version: str | None, protocol: str, max_rows: int
) -> Asked:
    """A request's call.

    Args:
        body: JSON, and behind it the binary tensors.
        length: how much of it is JSON, in bytes; None is all.
        served: who answers.
        version: the version that the path names.
        protocol: the wire, for metrics.
        max_rows: the most rows.

    Raises:
        Fault: 400, the body is no inference request.
        Rejected: as `read_tensor` raises.
    """
    begun = time.perf_counter_ns()
    if length is None and (usual := _usual(body, served, max_rows)) is not None:
        inputs, identity = usual
        took = time.perf_counter_ns() - begun
        call = Call(served.name, inputs, protocol, version, id="" if identity is None else identity, decode_ns=took)
        return Asked(call, named=identity is not None)
    arrived = time.monotonic()
    if length is not None and length > len(body):
        raise Fault(400, f"the body has {len(body)} bytes, and its JSON would have {length}")
    asked = decode_json(body if length is None else body[:length])
    if not isinstance(asked, dict):
        raise Fault(400, "the body is no object")
    identity = asked.get("id", "")
    if not isinstance(identity, str):
        raise Fault(400, "the id is no text")
    parameters = _parameters(asked, "the request")
    tail = memoryview(body)[len(body) if length is None else length :]
    inputs = _inputs(asked, tail, served, max_rows)
    rest = parameters.get("binary_data_output", False) is True
    names, binary = _outputs(asked, rest)
    call = Call(
        served.name,
        inputs,
        protocol,
        version,
        id=identity,
        parameters=parameters,
        outputs=names,
        deadline=deadline_of(parameters, arrived),
        priority=priority_of(parameters),
        decode_ns=time.perf_counter_ns() - begun,
    )
    return Asked(call, "id" in asked, binary, rest)


def _usual(body: bytes, served: ServedModel, max_rows: int) -> tuple[dict[str, Array], str | None] | None:
    """The matrix and the id of what most clients ask: the model's only input, flat, and no parameters; else None.

    The general way finds the same and says what is wrong. But the JSON is checked as it is read here, which makes of
    two parts of a small request's processor time one.
    """
    try:
        asked = _USUAL.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    (matrix,), declared = asked.inputs, served.inputs[0]
    (rows, columns), wanted = matrix.shape, declared.shape
    if matrix.name != declared.name or matrix.datatype != declared.datatype or len(served.inputs) != 1:
        return None
    if matrix.datatype not in FLOATS or len(wanted) != 2 or columns != wanted[1] or not 0 < rows <= max_rows:
        return None
    if len(matrix.data) != rows * columns or (found := floats(matrix.datatype, matrix.data)) is None:
        return None
    return {declared.name: found.reshape(rows, columns)}, None if asked.id is msgspec.UNSET else asked.id


def read_raw_call(body: bytes, served: ServedModel, version: str | None, protocol: str) -> Asked:
    """The call of a body that is the only input's bytes and nothing else: one row, its outputs binary.

    Raises:
        Fault: 400, the model has several inputs, or the body has not the bytes of one row.
    """
    if len(served.inputs) != 1:
        raise Fault(400, f"model {served.name!r} has {len(served.inputs)} inputs; a raw body is the only one")
    (tensor,) = served.inputs
    shape, count = [1, *tensor.shape[1:]], 1
    free = [place for place, size in enumerate(shape) if size == -1]
    if len(free) > 1 or (tensor.datatype == "BYTES" and shape != [1]):
        raise Fault(400, f"input {tensor.name!r} has no shape that a raw body could have")
    for size in shape:
        count *= 1 if size == -1 else size
    if free:
        width = SIZES.get(tensor.datatype, 1)
        shape[free[0]] = min(len(body) // max(count * width, 1), MAX_ELEMENTS)
        count *= shape[free[0]]
    raw = len(body).to_bytes(4, "little") + body if tensor.datatype == "BYTES" else body
    array = read_bytes(tensor.name, tensor.datatype, memoryview(raw), count).reshape(shape)
    return Asked(Call(served.name, {tensor.name: array}, protocol, version), named=False, rest=True)


def write_answer(asked: Asked, answer: Inference) -> tuple[bytes, int | None]:
    """The body of an answer, and how much of it is JSON; None when all of it is."""
    binary = asked.binary or (asked.rest,) * len(answer.outputs)
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    finite = True
    for (tensor, values), raw in zip(answer.outputs, binary, strict=True):
        if raw:
            parts.append(write_bytes(tensor, values))
            outputs.append(_header(tensor, values, len(parts[-1])))
            continue
        written, all_finite = write_tensor(tensor, values)
        outputs.append(written)
        finite = finite and all_finite
    body: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version}
    if asked.named:
        body["id"] = asked.call.id
    if answer.ids:
        body["parameters"] = {PREDICTION_IDS: ",".join(answer.ids)}
    body["outputs"] = outputs
    head = encode_json(body, finite=finite)
    return (b"".join((head, *parts)), len(head)) if parts else (head, None)


def _header(tensor: Tensor, values: Array, size: int) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(values.shape),
        "parameters": {"binary_data_size": size},
    }


def _parameters(item: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    found = item.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Fault(400, f"the parameters of {what} are no object")
    for name, value in found.items():
        if type(value) not in (str, int, float, bool):
            raise Fault(400, f"parameter {name[:40]!r} of {what} is no text, number or boolean")
    return found


def deadline_of(parameters: Mapping[str, Any], arrived: float) -> float | None:
    """When a request's ``timeout`` is over, as `time.monotonic` counts; None without one.

    Raises:
        Fault: 400, it is no time in microseconds.
    """
    timeout = parameters.get("timeout")
    if timeout is None or timeout == 0:
        return None
    if type(timeout) is not int or not 0 < timeout <= _MOST_US:
        raise Fault(400, f"timeout is microseconds, 1 to {_MOST_US}")
    return arrived + timeout / 1e6


def priority_of(parameters: Mapping[str, Any]) -> int:
    """A request's ``priority``.

    Raises:
        Fault: 400, it is no whole number.
    """
    found = parameters.get("priority", 0)
    if type(found) is not int or not 0 <= found < 1 << 32:
        raise Fault(400, "priority is a whole number: 1 is the highest, 0 the default")
    return found


def _inputs(asked: Mapping[str, Any], tail: memoryview, served: ServedModel, max_rows: int) -> dict[str, Array]:
    items = asked.get("inputs")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Fault(400, "the body has no list of inputs")
    names = [item.get("name") for item in items]
    declared = {tensor.name: tensor for tensor in served.taken([n for n in names if isinstance(n, str)])}
    found: dict[str, Array] = {}
    for name, item in zip(names, items, strict=True):
        if not isinstance(name, str) or name not in declared:
            raise Fault(400, f"model {served.name!r} has no input {str(name)[:80]!r}; it takes {', '.join(declared)}")
        if name in found:
            raise Fault(400, f"input {name!r} is there twice")
        raw, tail = _raw(name, item, tail)
        found[name] = read_tensor(item, declared[name], raw, max_rows)
    if len(tail):
        raise Fault(400, f"{len(tail)} bytes behind the JSON belong to no input")
    return found


def _raw(name: str, item: Mapping[str, Any], tail: memoryview) -> tuple[memoryview | None, memoryview]:
    """An input's bytes behind the JSON, if it has any, and what is left."""
    size = _parameters(item, f"input {name!r}").get("binary_data_size")
    if size is None:
        return None, tail
    if type(size) is not int or size < 0:
        raise Fault(400, f"binary_data_size of input {name!r} is no number of bytes")
    if "data" in item:
        raise Fault(400, f"input {name!r} has data in JSON and as binary data")
    if size > len(tail):
        raise Fault(400, f"input {name!r} has {size} bytes by its header, and {len(tail)} are left")
    return tail[:size], tail[size:]


def _outputs(asked: Mapping[str, Any], rest: bool) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """The names of the wanted outputs, and whether each is written as binary data."""
    items: Sequence[Any] = asked.get("outputs") or ()
    if not isinstance(items, (list, tuple)):
        raise Fault(400, "outputs is no list")
    names, binary = [], []
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise Fault(400, "an output is wanted by its name")
        parameters = _parameters(item, f"output {item['name'][:80]!r}")
        if parameters.get("classification"):
            raise Fault(400, "the classification extension is not served")
        chosen = parameters.get("binary_data", rest)
        if not isinstance(chosen, bool):
            raise Fault(400, "binary_data is a boolean")
        names.append(item["name"])
        binary.append(chosen)
    return tuple(names), tuple(binary)
