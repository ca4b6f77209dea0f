"""Faults of LLM requests: one table from their kinds to HTTP; each wire writes them in its own shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NoReturn, TypeVar

import msgspec

from mainspring.errors import MainspringError, UsageError
from mainspring.llm.limits import Left
from mainspring.llm.refused import Refused
from mainspring.ports.llm import Error, ErrorKind
from mainspring.protocols.http import Fault

__all__ = ["LLMFault", "as_fault", "bad", "decoded", "limit_headers", "status_of", "turned"]

_CODES: Mapping[str, str] = {"context_length": "context_length_exceeded", "not_found": "model_not_found"}
T = TypeVar("T")

_STATUS: Mapping[ErrorKind, int] = {
    "invalid": 400,
    "context_length": 400,
    "not_found": 404,
    "auth": 502,  # the upstream refuses the gateway's key, not the client's
    "rate": 429,
    "overloaded": 503,
    "timeout": 504,
    "upstream": 502,
    "crashed": 502,
}


def status_of(error: Error) -> int:
    """The HTTP status of a fault."""
    return _STATUS[error.kind]


class LLMFault(Fault):
    """Ends a request with a status, and with what the wires say beside their message.

    Args:
        status: of HTTP.
        message: for the client.
        code: what OpenAI's wire calls it, where it has a name for it.
        param: the field of the request that it is about, or empty.
        retry_after: whole seconds after which another try makes sense.
        headers: further ones.
        retry: False where the official clients should not try again by themselves.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        param: str = "",
        retry_after: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        retry: bool = True,
    ) -> None:
        super().__init__(status, message, retry_after=retry_after)
        self.code = code
        self.param = param
        self.retry = retry
        self.headers = headers if retry else (*headers, (b"x-should-retry", b"false"))


def bad(message: str, param: str = "", code: str = "") -> LLMFault:
    """400."""
    return LLMFault(400, message, param=param, code=code)


def as_fault(refused: Refused, request_id: str) -> LLMFault:
    """The fault of a refusal."""
    error = refused.error
    after = None if error.retry_after is None else max(math.ceil(error.retry_after), 1)
    code = refused.code or _CODES.get(error.kind, "")
    message = error.message
    if error.kind == "auth":
        message = "the upstream refuses the gateway's own credentials"
    return LLMFault(
        status_of(error),
        message,
        code=code,
        param=refused.param,
        retry_after=after,
        headers=((b"x-request-id", request_id.encode()), *limit_headers(refused.left)),
        retry=not refused.hopeless,
    )


def limit_headers(left: Left | None) -> tuple[tuple[bytes, bytes], ...]:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}`` of the tightest limits."""
    if left is None:
        return ()
    found: tuple[tuple[bytes, bytes], ...] = ()
    reset, written = -1.0, b""
    if left.requests is not None:
        limit, remaining, reset = left.requests
        written = b"%.3fs" % reset
        found = (
            (b"x-ratelimit-limit-requests", b"%d" % limit),
            (b"x-ratelimit-remaining-requests", b"%d" % remaining),
            (b"x-ratelimit-reset-requests", written),
        )
    if left.tokens is not None:
        limit, remaining, seconds = left.tokens
        found += (
            (b"x-ratelimit-limit-tokens", b"%d" % limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % remaining),
            (b"x-ratelimit-reset-tokens", written if seconds == reset else b"%.3fs" % seconds),
        )
    return found


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """A request's body as its type.

    Raises:
        LLMFault: 400, it is no JSON, a type or a range is wrong; the message names the place.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise bad(message + (f" at {place.strip('.`')}" if place else ""), _field(place)) from None
    except msgspec.DecodeError as error:
        raise bad(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise bad("the body is nested too deeply") from None


def _field(place: str) -> str:
    return place.strip("`").lstrip(".")


def turned(error: MainspringError) -> NoReturn:
    """A usage error of ours as 400.

    Raises:
        LLMFault: 400.
        MainspringError: what is no usage error.
    """
    if isinstance(error, UsageError):
        raise bad(f"{error.what}: {error.why}") from None
    raise error
