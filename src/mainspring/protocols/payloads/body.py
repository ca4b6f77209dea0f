"""A body by its content type to a model's inputs, and an answer by what the client accepts."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.lazy import lazy
from mainspring.protocols.arrays import finite
from mainspring.protocols.bodies import decode_json, encode_json
from mainspring.protocols.http import Fault, Request
from mainspring.protocols.payloads.records import read_lines, read_records
from mainspring.protocols.payloads.tables import read_arrow, read_csv, read_npy, read_parquet
from mainspring.serving.calls import Array, Inference
from mainspring.serving.served import ServedModel

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.ipc as ipc
    import pyarrow.parquet as pq
else:
    pa, ipc, pq = lazy("pyarrow"), lazy("pyarrow.ipc"), lazy("pyarrow.parquet")

__all__ = ["content_type", "is_oip", "read_body", "wanted_type", "write_body"]

JSON, LINES, CSV, NPY = "application/json", "application/jsonlines", "text/csv", "application/x-npy"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"

_NAMES: Mapping[str, str] = {
    "": JSON,
    "application/json": JSON,
    "text/json": JSON,
    "application/x-www-form-urlencoded": JSON,  # what curl says of -d
    "text/plain": JSON,
    "application/octet-stream": JSON,
    "application/jsonlines": LINES,
    "application/x-jsonlines": LINES,
    "application/x-ndjson": LINES,
    "text/csv": CSV,
    "application/x-npy": NPY,
    "application/vnd.apache.arrow.stream": ARROW,
    "application/vnd.apache.arrow.file": ARROW,
    "application/x-parquet": PARQUET,
    "application/parquet": PARQUET,
    "application/vnd.apache.parquet": PARQUET,
}
_READ: Mapping[str, Callable[[bytes, ServedModel, int], dict[str, Array]]] = {
    LINES: read_lines,
    CSV: read_csv,
    NPY: read_npy,
    ARROW: read_arrow,
    PARQUET: read_parquet,
}


def content_type(request: Request) -> str:
    """The content type of a request's body, by the name that we know it by.

    Raises:
        Fault: 415, it is none that is served.
    """
    told = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    if told not in _NAMES:
        raise Fault(415, f"the content type {told[:80]!r} is not served; send one of {', '.join(filter(None, _NAMES))}")
    return _NAMES[told]


def wanted_type(request: Request, kind: str) -> str:
    """The content type of the answer: what the client accepts; without a wish lines, CSV and NPY are answered alike.

    Raises:
        Fault: 406, none of what it accepts is served.
    """
    accepted = request.headers.get(b"accept", b"").decode("latin-1").lower()
    names = [part.partition(";")[0].strip() for part in accepted.split(",")]
    if not accepted.strip() or "*/*" in names:
        return kind if kind in (LINES, CSV, NPY) else JSON
    for name in names:
        if name == "application/*":
            return JSON
        if name == "text/*":
            return CSV
        if name in _NAMES and name not in ("text/plain", "application/octet-stream"):
            return _NAMES[name]
    raise Fault(406, f"no answer is {accepted[:80]!r}; accept one of {', '.join((JSON, CSV, NPY, ARROW, PARQUET))}")


def is_oip(body: bytes) -> bool:
    """Whether JSON is an inference request of the Open Inference Protocol, which has its own reading and answer."""
    if b'"datatype"' not in body:
        return False
    found = decode_json(body)
    inputs = found.get("inputs") if isinstance(found, dict) else None
    return isinstance(inputs, list) and all(isinstance(item, dict) and "datatype" in item for item in inputs)


def read_body(body: bytes, kind: str, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """A body as a model's inputs.

    Raises:
        Fault: as the readers of each content type raise.
        Rejected: as `check_shape` raises.
    """
    read = _READ.get(kind)
    return read_records(decode_json(body), served, max_rows) if read is None else read(body, served, max_rows)


def write_body(answer: Inference, kind: str, wrap: Callable[[Any], Any]) -> bytes:
    """An answer's first output as a content type.

    Args:
        answer: of the model.
        kind: the content type.
        wrap: makes the whole JSON of the list of scores.
    """
    tensor, values = answer.outputs[0]
    if kind == JSON:
        return encode_json(wrap(values.tolist()), finite=finite(values))
    if kind == LINES:
        return b"".join(encode_json(value, finite=False) + b"\n" for value in values.tolist())
    if kind == CSV:
        return "".join(f"{value!r}\n" for value in values.tolist()).encode()
    sink = io.BytesIO()
    if kind == NPY:
        np.lib.format.write_array(sink, np.ascontiguousarray(values), allow_pickle=False)
        return sink.getvalue()
    table = pa.table({tensor.name: values})
    if kind == PARQUET:
        pq.write_table(table, sink)
        return sink.getvalue()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
