"""Faults in Anthropic's shape: ``{"type": "error", "error": {"type", "message"}}``."""

from __future__ import annotations

import orjson

from mainspring.llm.refused import Refused
from mainspring.ports.llm import Error
from mainspring.protocols.http import Fault, Response, error_response
from mainspring.protocols.llm.faults import LLMFault, as_fault, status_of

__all__ = ["anthropic_error", "error_event"]

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_error(error: Exception) -> Response:
    """The response of a failed request; faults of ours say only that they are ours."""
    if not isinstance(error, Fault):
        plain = error_response(error)
        return Response(plain.status, _body(orjson.loads(plain.body).get("error", "internal error"), plain.status))
    headers: tuple[tuple[bytes, bytes], ...] = error.headers if isinstance(error, LLMFault) else ()
    if error.retry_after is not None:
        headers = (*headers, (b"retry-after", b"%d" % error.retry_after))
    if error.challenge:
        headers = (*headers, (b"www-authenticate", error.challenge.encode()))
    return Response(error.status, _body(error.message, error.status), headers=headers)


def error_event(error: Error) -> bytes:
    """A fault after the answer has begun, as a server-sent event."""
    body = _body(as_fault(Refused(error), "").message, status_of(error))
    return b"event: error\ndata: " + body + b"\n\n"


def _body(message: str, status: int) -> bytes:
    kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})
