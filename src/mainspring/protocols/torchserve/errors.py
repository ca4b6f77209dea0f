"""TorchServe's faults: ``{"code", "type", "message"}``."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.protocols.http import Response, fault_of, json_response
from mainspring.serving.calls import Reason, Rejected

__all__ = ["torchserve_error"]

_TYPES: Mapping[int, str] = {
    400: "BadRequestException",
    401: "InvalidKeyException",
    403: "InvalidKeyException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    409: "ConflictStatusException",
    413: "RequestEntityTooLargeException",
    429: "ServiceUnavailableException",
    501: "NotImplementedException",
    503: "ServiceUnavailableException",
    504: "RequestTimeoutException",
    507: "InsufficientStorageException",
}
_MISSING: Mapping[Reason, str] = {
    Reason.NO_MODEL: "ModelNotFoundException",
    Reason.NO_VERSION: "ModelVersionNotFoundException",
}


def torchserve_error(error: Exception) -> Response:
    """The response of a failed request."""
    fault = fault_of(error)
    kind = _MISSING.get(error.reason) if isinstance(error, Rejected) else None
    if kind is None:
        kind = _TYPES.get(fault.status, "BadRequestException" if fault.status < 500 else "InternalServerException")
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if fault.retry_after is not None:
        headers = ((b"retry-after", b"%d" % fault.retry_after),)
    if fault.challenge:
        headers = (*headers, (b"www-authenticate", fault.challenge.encode()))
    return json_response({"code": fault.status, "type": kind, "message": fault.message}, fault.status, headers=headers)
