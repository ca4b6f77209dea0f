"""Answers a body of any content type with the model's scores in what the client accepts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from mainspring.protocols.bodies import decoded, id_headers
from mainspring.protocols.http import Request, Response
from mainspring.protocols.payloads.body import JSON, content_type, is_oip, read_body, wanted_type, write_body
from mainspring.protocols.payloads.vendor import answer_vendor, vendor_type
from mainspring.serving.calls import Call
from mainspring.serving.inference import ServedModels
from mainspring.serving.served import ServedModel

__all__ = ["answer_payload", "predictions"]


def predictions(scores: Any) -> Mapping[str, Any]:
    """The JSON of scores: ``{"predictions": [..]}``."""
    return {"predictions": scores}


async def answer_payload(
    models: ServedModels,
    served: ServedModel,
    request: Request,
    protocol: str,
    wrap: Callable[[Any], Any] = predictions,
) -> Response:
    """Answer a request that is whatever its content type says.

    Args:
        models: the models of this process.
        served: who answers.
        request: what is asked.
        protocol: the wire, for metrics.
        wrap: makes the whole JSON of the list of scores.

    Raises:
        Fault: 400, 413; 406, 415, a content type that is not served.
        Rejected: as `ServedModels.infer` raises.
    """
    vendor = vendor_type(request)
    if vendor is not None:
        return await answer_vendor(models, served, request, vendor, protocol)
    kind = content_type(request)
    wanted = wanted_type(request, kind)
    if kind == JSON and is_oip(request.body):
        return await answer_vendor(models, served, request, None, protocol)
    begun = time.perf_counter_ns()
    inputs = await decoded(len(request.body), read_body, request.body, kind, served, models.max_rows)
    decode_ns = time.perf_counter_ns() - begun
    answer = await models.infer(Call(served.name, inputs, protocol, decode_ns=decode_ns), served)
    body = write_body(answer, wanted, wrap)
    return Response(200, body, wanted.encode(), id_headers(answer.ids))
