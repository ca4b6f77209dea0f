"""TensorFlow Serving's JSON: rows, columns and examples to a model's inputs, and outputs to JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.protocols.arrays import finite, inputs_of_columns, inputs_of_rows, read_nested
from mainspring.protocols.bodies import encode_json
from mainspring.protocols.http import Fault
from mainspring.serving.calls import Array, Inference, Tensor
from mainspring.serving.served import ServedModel

__all__ = ["SIGNATURE", "classes_of", "columns_body", "numbers_of", "read_examples", "read_predict", "rows_body"]

SIGNATURE = "serving_default"


def read_predict(body: Mapping[str, Any], served: ServedModel, max_rows: int) -> tuple[dict[str, Array], bool]:
    """The inputs of a ``:predict``, and whether they came as rows.

    Raises:
        Fault: 400, both or neither of instances and inputs are there, or they do not fit; 413.
        Rejected: as `read_nested` raises.
    """
    _check_signature(body)
    if ("instances" in body) == ("inputs" in body):
        raise Fault(400, "the body has instances (rows) or inputs (columns), one of the two")
    if "instances" in body:
        return inputs_of_rows(body["instances"], served, max_rows), True
    return inputs_of_columns(body["inputs"], served, max_rows), False


def read_examples(body: Mapping[str, Any], served: ServedModel, max_rows: int) -> dict[str, Array]:
    """The inputs of a ``:classify`` or ``:regress``: features by the names of the model's columns.

    Raises:
        Fault: 400, they are no examples of this model; 413, there are too many.
        Rejected: as `read_nested` raises.
    """
    _check_signature(body)
    examples, context = body.get("examples"), body.get("context", {})
    if not isinstance(examples, list) or not examples or not isinstance(context, dict):
        raise Fault(400, "examples is a list of an object or more, and context an object")
    if len(examples) > max_rows:
        raise Fault(413, f"{len(examples)} examples; at most {max_rows} are served at once")
    names = [tensor.name for tensor in served.columns]
    for example in (context, *examples):
        if not isinstance(example, dict):
            raise Fault(400, "an example is an object of features")
        if strange := next((name for name in example if name not in names), None):
            raise Fault(400, f"model {served.name!r} has no feature {strange[:80]!r}; it takes {', '.join(names)}")
    found = {}
    for tensor in served.columns:
        values = [_feature(example, context, tensor.name) for example in examples]
        found[tensor.name] = read_nested(values, tensor, max_rows)
    return found


def _feature(example: Mapping[str, Any], context: Mapping[str, Any], name: str) -> Any:
    if name not in example and name not in context:
        raise Fault(400, f"an example has no feature {name!r}")
    value = example[name] if name in example else context[name]
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise Fault(400, f"feature {name!r} has {len(value)} values; the model takes one")
    return value[0]


def _check_signature(body: Mapping[str, Any]) -> None:
    name = body.get("signature_name", SIGNATURE)
    if name not in (SIGNATURE, ""):
        raise Fault(400, f"the model has the signature {SIGNATURE}, not {str(name)[:80]!r}")


def rows_body(answer: Inference) -> bytes:
    """An answer by rows: one output's bare values, or an object a row."""
    if len(answer.outputs) == 1:
        ((tensor, values),) = answer.outputs
        return encode_json({"predictions": _listed(tensor, values)}, finite=finite(values))
    columns = [(tensor.name, _listed(tensor, values)) for tensor, values in answer.outputs]
    rows = [
        dict(zip((name for name, _ in columns), row, strict=True)) for row in zip(*(v for _, v in columns), strict=True)
    ]
    return encode_json({"predictions": rows}, finite=all(finite(values) for _, values in answer.outputs))


def columns_body(answer: Inference) -> bytes:
    """An answer by columns: one output's bare values, or an object of all."""
    columns = {tensor.name: _listed(tensor, values) for tensor, values in answer.outputs}
    found: Any = columns if len(columns) != 1 else next(iter(columns.values()))
    return encode_json({"outputs": found}, finite=all(finite(values) for _, values in answer.outputs))


def numbers_of(answer: Inference) -> Sequence[float]:
    """The score of each row."""
    found: list[float] = answer.outputs[0][1].ravel().tolist()
    return found


def classes_of(answer: Inference) -> list[list[tuple[str, float]]]:
    """Both labels of each row with their probabilities."""
    return [[("false", 1.0 - score), ("true", score)] for score in numbers_of(answer)]


def _listed(tensor: Tensor, values: Array) -> Any:
    found = values.tolist()
    return _texts(found, tensor.name.endswith("_bytes")) if tensor.datatype == "BYTES" else found


def _texts(value: Any, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_texts(inner, as_base64) for inner in value]
    data = value if isinstance(value, bytes) else str(value).encode()
    return {"b64": base64.b64encode(data).decode()} if as_base64 else data.decode("utf-8", "replace")
