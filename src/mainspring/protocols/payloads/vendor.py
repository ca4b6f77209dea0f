"""The clouds' content type of the binary tensor extension: how much is JSON is said in the type, not in a header."""

from __future__ import annotations

import re

from mainspring.protocols.http import Request, Response
from mainspring.protocols.oip.rest import answer_infer, binary_length
from mainspring.serving.inference import ServedModels
from mainspring.serving.served import ServedModel

__all__ = ["answer_vendor", "vendor_type"]

_TYPE = re.compile(
    rb"(application/vnd\.(?:sagemaker|vertex-ai)-triton\.binary\+json)\s*;\s*json-header-size\s*=\s*\"?([^\s;\"]+)\"?",
    re.IGNORECASE,
)


def vendor_type(request: Request) -> tuple[bytes, int] | None:
    """The cloud's content type of a request and the size of its JSON; None when it has another.

    Raises:
        Fault: 400, the size is no number.
    """
    found = _TYPE.match(request.headers.get(b"content-type", b""))
    if found is None:
        return None
    length = binary_length(found[2])
    return found[1].lower(), length or 0


async def answer_vendor(
    models: ServedModels, served: ServedModel, request: Request, vendor: tuple[bytes, int] | None, protocol: str
) -> Response:
    """Answer an inference request of the Open Inference Protocol, binary in the cloud's content type.

    Raises:
        Fault: 400.
        Rejected: as `ServedModels.infer` raises.
    """
    length = None if vendor is None else vendor[1]
    body, head = await answer_infer(models, served, None, request.body, length, protocol)
    if head is None:
        return Response(200, body)
    kind = b"application/vnd.sagemaker-triton.binary+json" if vendor is None else vendor[0]
    return Response(200, body, b"%s;json-header-size=%d" % (kind, head))
