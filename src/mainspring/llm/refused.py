"""Why the gateway does not answer a request."""

from __future__ import annotations

import msgspec

from mainspring.llm.limits import Denied, Left
from mainspring.ports.llm import Error, ErrorKind

__all__ = ["Refused", "busy", "denied", "refused"]


class Refused(msgspec.Struct, frozen=True):
    """A request that the gateway does not answer, or cannot.

    Attributes:
        error: what went wrong.
        code: what OpenAI's wire calls it, where it has a name for it.
        param: the field of the request that it is about, or empty.
        left: what the limits have left, where that is known.
        hopeless: whether the same request will never be answered, however long its client waits.
    """

    error: Error
    code: str = ""
    param: str = ""
    left: Left | None = None
    hopeless: bool = False


def refused(kind: ErrorKind, message: str, *, code: str = "", param: str = "") -> Refused:
    """A refusal of the gateway's own."""
    return Refused(Error(kind, message), code, param, hopeless=kind == "invalid")


def busy(waiting: int, left: Left | None) -> Refused:
    """The refusal of a request that finds as many waiting as may."""
    error = Error("rate", f"the model is busy: {waiting} requests wait already", retryable=True, retry_after=1.0)
    return Refused(error, "rate_limit_exceeded", left=left)


_SAYS = {
    "requests": "too many requests",
    "tokens": "too many tokens",
    "concurrency": "too many requests at once",
    "money": "the budget is used up",
}


def denied(found: Denied) -> Refused:
    """The refusal of a request that a limit denies, or that cannot be counted."""
    if found.what == "store":
        message = f"what {found.account} has used cannot be counted now; nothing is answered beyond its limits"
        return Refused(Error("overloaded", message, retryable=True, retry_after=found.wait_s))
    unit = "micro-units" if found.what == "money" else found.what
    message = (
        f"{_SAYS[found.what]} for {found.account}: it may use {found.limit} {unit}, {max(found.left, 0)} are left, "
        f"and this request may take {found.asked}"
    )
    code = "insufficient_quota" if found.what == "money" else "rate_limit_exceeded"
    error = Error("rate", message, retryable=found.wait_s is not None, retry_after=found.wait_s)
    return Refused(error, code, left=Left(), hopeless=found.wait_s is None)
