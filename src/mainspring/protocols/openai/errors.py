"""Faults in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import orjson

from mainspring.llm.refused import Refused
from mainspring.ports.llm import Error
from mainspring.protocols.http import Fault, Response, error_response
from mainspring.protocols.llm.faults import LLMFault, as_fault, status_of

__all__ = ["error_chunk", "openai_error", "type_of"]

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


def type_of(status: int) -> str:
    """What the wire calls a status."""
    found = _TYPES.get(status)
    return found or ("invalid_request_error" if status < 500 else "server_error")


def openai_error(error: Exception) -> Response:
    """The response of a failed request; faults of ours say only that they are ours."""
    if not isinstance(error, Fault):
        plain = error_response(error)
        message = orjson.loads(plain.body).get("error", "internal error")
        return Response(plain.status, _body(message, plain.status, "", ""))
    headers: tuple[tuple[bytes, bytes], ...] = ()
    code = param = ""
    if isinstance(error, LLMFault):
        code, param, headers = error.code, error.param, error.headers
    if error.retry_after is not None:
        headers = (*headers, (b"retry-after", b"%d" % error.retry_after))
    if error.challenge:
        headers = (*headers, (b"www-authenticate", error.challenge.encode()))
    return Response(error.status, _body(error.message, error.status, param, code), headers=headers)


def error_chunk(error: Error) -> bytes:
    """A fault after the answer has begun, as a server-sent event."""
    fault = as_fault(Refused(error), "")
    return b"data: " + _body(fault.message, status_of(error), "", fault.code) + b"\n\n"


def _body(message: str, status: int, param: str, code: str) -> bytes:
    value = {"message": message, "type": type_of(status), "param": param or None, "code": code or None}
    return orjson.dumps({"error": value})
