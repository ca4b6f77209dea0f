"""Faults of an upstream: one exception that holds the `Error` event, and the event that an HTTP status means."""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from collections.abc import Mapping

import orjson

from mainspring.ports.llm import Error, ErrorKind

__all__ = ["BrokenError", "crashed", "error_of", "late", "refused_of_body", "retry_after"]

_KINDS: dict[int, tuple[ErrorKind, bool]] = {
    401: ("auth", False),
    403: ("auth", False),
    404: ("not_found", False),
    408: ("timeout", True),
    429: ("rate", True),
    500: ("upstream", True),
    501: ("upstream", False),
    502: ("upstream", True),
    503: ("overloaded", True),
    504: ("timeout", True),
    529: ("overloaded", True),
}
_MEANT_FOR_CLIENTS = frozenset({400, 404, 413, 422})
"""Statuses whose message speaks of the request; any other may tell of the upstream's own affairs."""

_TOO_LONG = re.compile(r"context[ _](length|size|window)|max_model_len|prompt is too long|maximum context", re.I)
_SECONDS = re.compile(r"-?\d{1,9}(\.\d{0,9})?")
_LONGEST = 600


class BrokenError(Exception):
    """An exchange that came to nothing.

    Attributes:
        event: what its client is told.
    """

    def __init__(self, event: Error) -> None:
        super().__init__(event.message)
        self.event = event


def crashed(
    message: str = "the connection was lost before the answer was whole", *, retryable: bool = True
) -> BrokenError:
    """The upstream went away."""
    return BrokenError(Error("upstream", message, retryable))


def late(what: str, seconds: float) -> BrokenError:
    """Nothing came in time: `what` did not within `seconds`."""
    return BrokenError(Error("timeout", f"{what} took longer than {seconds:g} s", retryable=True))


def error_of(status: int, headers: Mapping[str, str], body: bytes, secret: str = "") -> Error:
    """The event for an answer that is no success.

    Args:
        status: the HTTP status.
        headers: by lower-case name.
        body: as it came; JSON of any shape, HTML, garbage.
        secret: a text that must not be told, should the upstream repeat it.
    """
    told, code, kind_told = _told(body)
    if secret:
        told = told.replace(secret, "***")
    kind, retryable = _KINDS.get(status, ("upstream", status >= 500))
    if status not in _KINDS and 400 <= status < 500:
        kind, retryable = "invalid", False
    if kind == "invalid" and (code in ("context_length_exceeded",) or _TOO_LONG.search(f"{kind_told} {told}")):
        kind = "context_length"
    if code == "insufficient_quota":
        retryable = False
    message = told[:_LONGEST] if status in _MEANT_FOR_CLIENTS and told else _plain(status)
    return Error(kind, message, retryable, retry_after(headers) if retryable else None, status)


def _plain(status: int) -> str:
    if 300 <= status < 400:
        return f"the upstream answered {status}: redirects are not followed, so that the key goes nowhere else"
    return f"the upstream answered {status}"


def _told(body: bytes) -> tuple[str, str, str]:
    """Message, code and type of an error's body, each empty when it is not there."""
    try:
        found = orjson.loads(body)
    except ValueError:
        return "", "", ""
    inner = found.get("error", found) if isinstance(found, dict) else {}
    if isinstance(inner, str):
        return inner, "", ""
    if not isinstance(inner, dict):
        return "", "", ""
    message = inner.get("message") or inner.get("detail") or ""
    return str(message), str(inner.get("code") or ""), str(inner.get("type") or "")


def refused_of_body(payload: Mapping[str, object], secret: str = "") -> Error | None:
    """The event for an error object that came inside a stream of status 200, or None when there is none."""
    inner = payload.get("error")
    if not inner:
        return None
    code = inner.get("code") if isinstance(inner, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return error_of(status, {}, orjson.dumps({"error": inner}), secret)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the upstream asks to wait: from ``retry-after-ms``, or ``retry-after`` in seconds or as a date."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if _SECONDS.fullmatch(text):
            return max(0.0, float(text) / scale)
    return _until(headers.get("retry-after", ""))


def _until(date: str) -> float | None:
    try:
        moment = email.utils.parsedate_to_datetime(date)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, (moment - dt.datetime.now(dt.UTC)).total_seconds())
