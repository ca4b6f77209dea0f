"""Failed calls as gRPC's statuses (grpc/doc/statuscodes.md), by the same rules as HTTP's."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.errors import MainspringError
from mainspring.protocols.http import Fault, error_response, fault_of
from mainspring.serving.calls import Reason, Rejected

__all__ = ["CODES", "is_ours", "status_of"]

CODES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    409: "ALREADY_EXISTS",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""The statuses of HTTP that have one of gRPC; of the others those below 500 are the client's fault."""


def status_of(error: Exception) -> tuple[str, str, int | None]:
    """The code and the text of a failed call, and the seconds after which another try makes sense.

    Faults of ours say only that they are ours.
    """
    if isinstance(error, MainspringError) and not isinstance(error, Fault):
        response = error_response(error)
        later = next((int(value) for name, value in response.headers if name == b"retry-after"), None)
        if response.status >= 500:
            return _code(response.status), f"the server cannot answer now ({error.code})", later
        return _code(response.status), f"{error.what}; {error.fix}" if error.fix else error.what, later
    if isinstance(error, Rejected) and error.reason is Reason.CONFLICT:
        return "FAILED_PRECONDITION", error.message, None
    fault = fault_of(error)
    return _code(fault.status), fault.message, fault.retry_after


def is_ours(error: Exception) -> bool:
    """Whether somebody should be told of a failed call: it is no refusal of what a client sent."""
    return not isinstance(error, (Fault, Rejected))


def _code(status: int) -> str:
    return CODES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
