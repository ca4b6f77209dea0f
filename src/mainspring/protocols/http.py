"""The seam between wire formats and the host: a request in, a response out; no framework knows of either."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from urllib.parse import unquote_to_bytes

import msgspec
import orjson

from mainspring.errors import (
    ConfigError,
    DataError,
    MainspringError,
    RefusedError,
    ServiceError,
    UsageError,
)
from mainspring.serving.calls import Reason, Rejected

__all__ = [
    "Bears",
    "Errors",
    "Fault",
    "Handler",
    "Long",
    "NotAllowed",
    "Request",
    "Response",
    "Route",
    "Router",
    "check_once",
    "error_response",
    "fault_of",
    "json_response",
]

JSON = b"application/json"


class Request(msgspec.Struct, frozen=True):
    """One request, its body whole.

    Attributes:
        method: upper case.
        path: percent-decoded, without the query.
        query: the raw query string.
        headers: names in lower case.
        body: at most ``server.max_body`` bytes.
        parameters: the parts of the path that the route names.
        client: the peer's address, for logs.
    """

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    body: bytes
    parameters: tuple[str, ...] = ()
    client: str = ""


class Response(msgspec.Struct, frozen=True):
    """What goes back: a whole body, or a stream of parts.

    Attributes:
        status: of HTTP.
        body: all of it, when there is no stream.
        content_type: of the body.
        headers: further ones.
        stream: the parts, each sent as soon as it is there; the next is asked for when the client has room for it.
        closed: awaited once when a stream is over, however it ended: read to its end, broken off, or never begun.
        heartbeat: what is sent after so many seconds without a part.
    """

    status: int
    body: bytes = b""
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    stream: AsyncIterator[bytes] | None = None
    closed: Callable[[], Awaitable[None]] | None = None
    heartbeat: tuple[float, bytes] | None = None


Handler = Callable[[Request], Awaitable[Response]]
Errors = Callable[[Exception], Response]
"""Makes the response of a failed request, in a wire's own shape."""
Bears = Callable[[Mapping[bytes, bytes], Response], Response]
"""Puts on a response what every reply of a wire bears, whoever has made it; it is given the request's headers."""


class Fault(Exception):  # noqa: N818 - it becomes a response, not a traceback
    """Ends a request with a status; the text is shown to the client and holds no internals.

    Args:
        status: of HTTP.
        message: for the client.
        retry_after: seconds after which another try makes sense.
        challenge: how a caller may say who it is (RFC 9110, section 11.6.1), where the status is 401.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None, challenge: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.challenge = challenge


class NotAllowed(Fault):
    """A path that is served, and not by this method.

    Args:
        message: for the client.
        allowed: the methods that it is served by.
        route: one of those that the path has.
    """

    def __init__(self, message: str, allowed: Sequence[str], route: Route) -> None:
        super().__init__(405, message)
        self.allowed = tuple(allowed)
        self.route = route

    def response(self) -> Response:
        """In the shape of the path's wire, with what it is served by (RFC 9110, section 15.5.6)."""
        found = self.route.errors(Fault(self.status, self.message))
        allow = (b"allow", ", ".join(self.allowed).encode())
        return msgspec.structs.replace(found, headers=(*found.headers, allow))


_ONCE = frozenset(
    {b"authorization", b"x-api-key", b"content-type", b"content-encoding", b"inference-header-content-length"}
)
"""Headers of which a request has one: by a second one, a server before this one could have read another request."""


def check_once(names: Iterable[bytes]) -> None:
    """Refuse a request that says twice who asks, or what its body is.

    Args:
        names: of its headers, in lower case.

    Raises:
        Fault: 400.
    """
    seen: set[bytes] = set()
    for name in names:
        if name in seen and name in _ONCE:
            raise Fault(400, f"the request has two headers {name.decode()}")
        seen.add(name)


def json_response(
    value: object, status: int = 200, *, content_type: bytes = JSON, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Response:
    """A value as JSON; NumPy arrays and datetimes included."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z)
    return Response(status, body, content_type, headers)


_STATUS: tuple[tuple[type[MainspringError], int], ...] = (
    (UsageError, 400),
    (DataError, 400),
    (RefusedError, 403),
    (ConfigError, 503),
    (ServiceError, 503),
)


_LATER = {"MS-5046": 1}
"""Codes of what is refused for now: 429, with the seconds after which another try makes sense."""

_SOON = 1
"""Seconds after which another try makes sense, where a model is not ready or a service does not answer."""

_CONFLICTS = ("MS-2121",)
"""Codes of requests that are at odds with an earlier one: 409."""


_UNFIT = ("MS-2180",)
"""Codes of rows that are understood, and refused for what they say: 422, with the rows of the client's own."""


_REASONS: Mapping[Reason, int] = {
    Reason.INVALID: 400,
    Reason.NO_MODEL: 404,
    Reason.NO_VERSION: 404,
    Reason.TOO_LARGE: 413,
    Reason.NOT_READY: 503,
    Reason.EXPIRED: 504,
    Reason.BUSY: 429,
    Reason.FORBIDDEN: 403,
    Reason.CONFLICT: 409,
    Reason.NOT_SERVED: 501,
}


def fault_of(error: Exception) -> Fault:
    """A failed request as a fault, for wires with a shape of their own; faults of ours say only that they are ours."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, Rejected):
        later = _SOON if error.reason is Reason.NOT_READY else None
        return Fault(_REASONS[error.reason], error.message, retry_after=error.retry_after or later)
    response = error_response(error)
    later = _SOON if response.status == 503 else None
    return Fault(response.status, orjson.loads(response.body)["error"], retry_after=later)


def error_response(error: Exception) -> Response:
    """The response of a failed request: ``{"error": text}``; faults of ours say only that they are ours."""
    if isinstance(error, Rejected):
        error = fault_of(error)
    if isinstance(error, NotAllowed):
        return error.response()
    if isinstance(error, Fault):
        headers = [] if error.retry_after is None else [(b"retry-after", str(error.retry_after).encode())]
        if error.challenge:
            headers.append((b"www-authenticate", error.challenge.encode()))
        return json_response({"error": error.message}, error.status, headers=tuple(headers))
    if isinstance(error, MainspringError):
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        by_code = {**dict.fromkeys(_CONFLICTS, 409), **dict.fromkeys(_UNFIT, 422), **dict.fromkeys(_LATER, 429)}
        status = by_code.get(error.code, status)
        if status < 500:
            told = {"why": error.why} if error.code in _UNFIT else {}
            later = ((b"retry-after", str(_LATER[error.code]).encode()),) if status == 429 else ()
            answer = {"error": error.what, "code": error.code, **told, "fix": error.fix}
            return json_response(answer, status, headers=later)
        later = ((b"retry-after", b"%d" % _SOON),) if status == 503 else ()
        return json_response({"error": "the server cannot answer now", "code": error.code}, status, headers=later)
    return json_response({"error": "internal error"}, 500)


class Long(msgspec.Struct, frozen=True):
    """Of a handler that waits for others: it keeps its own time limits, and is cancelled when its client leaves.

    Attributes:
        errors: the response of a fault in the wire's own shape.
    """

    errors: Callable[[Exception], Response] = error_response


class Route(msgspec.Struct, frozen=True):
    """Who answers a path.

    Attributes:
        handler: it answers.
        name: of the route, in metrics.
        errors: the response of a failed request.
        long: whether it waits for others: see `Long`.
        asks: whether it changes nothing, so that it is given up when its client leaves.
        bears: what every reply bears, refusals before the handler included; None is nothing.
    """

    handler: Handler
    name: str
    errors: Errors
    long: bool
    asks: bool = False
    bears: Bears | None = None


Found = tuple[Route, str, tuple[str, ...]]
_MOST_FOUND = 1024
"""Paths whose routes are kept at hand."""
_LONGEST_KEPT = 256
"""Bytes of a path that is kept so."""


class _Branch(msgspec.Struct):
    exact: dict[str, _Branch] = msgspec.field(default_factory=dict)
    folded: dict[str, _Branch] = msgspec.field(default_factory=dict)
    any: _Branch | None = None
    rest: _Branch | None = None
    routes: dict[str, Route] = msgspec.field(default_factory=dict)


class Router:
    """Paths to handlers: ``/v2/models/*/infer``; a star is one percent-decoded segment, two are all that follow.

    Built once, then read only.
    """

    def __init__(self) -> None:
        self._root = _Branch()
        self._exact: dict[tuple[str, bytes], Found] = {}
        self._found: dict[tuple[str, bytes], Found] = {}
        self._paths: list[tuple[str, str, str]] = []

    def add(
        self,
        method: str,
        pattern: str,
        handler: Handler,
        *,
        long: Long | None = None,
        errors: Errors | None = None,
        any_case: bool = False,
        asks: bool = False,
        bears: Bears | None = None,
    ) -> None:
        """Route a method and a pattern to a handler; the first added stays.

        Args:
            method: of HTTP.
            pattern: of the path.
            handler: who answers.
            long: set for a handler that waits for others.
            errors: the shape of its failed requests.
            any_case: whether the pattern's words may be written in capitals, too.
            asks: set for a handler that changes nothing: it is given up when its client leaves.
            bears: what every reply bears, refusals before the handler included.
        """
        shape = errors or error_response
        name = getattr(handler, "__name__", type(handler).__name__)
        route = Route(handler, name, shape if long is None else long.errors, long is not None, asks, bears)
        self._paths.append((method, pattern, getattr(handler, "__qualname__", repr(handler))))
        if "*" not in pattern:
            self._exact.setdefault((method, pattern.encode()), (route, pattern, ()))
        branch = self._root
        for segment in pattern.strip("/").split("/"):
            if segment == "**":
                branch.rest = branch.rest or _Branch()
                branch = branch.rest
            elif segment == "*":
                branch.any = branch.any or _Branch()
                branch = branch.any
            else:
                following = branch.exact.setdefault(segment, _Branch())
                if any_case:
                    branch.folded.setdefault(segment, following)
                branch = following
        branch.routes.setdefault(method, route)
        self._found.clear()

    def routes(self) -> tuple[tuple[str, str, str], ...]:
        """Every route: method, pattern and handler's name."""
        return tuple(self._paths)

    def find(self, method: str, raw_path: bytes) -> tuple[Handler, str, tuple[str, ...]]:
        """The handler of a raw path, the decoded path, and what its stars stand for.

        Raises:
            Fault: 404 no such path, 405 no such method there.
        """
        route, path, stars = self.route(method, raw_path)
        return route.handler, path, stars

    def route(self, method: str, raw_path: bytes) -> Found:
        """The route of a raw path, the decoded path, and what its stars stand for.

        Raises:
            Fault: 404 no such path, 405 no such method there.
        """
        asked = (method, raw_path)
        found = self._exact.get(asked) or self._found.get(asked)
        if found is not None:
            return found
        found = self._exact.get((method, unquote_to_bytes(raw_path))) or self._search(method, raw_path)
        if len(raw_path) <= _LONGEST_KEPT:
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            self._found[asked] = found
        return found

    def _search(self, method: str, raw_path: bytes) -> Found:
        path = unquote_to_bytes(raw_path).decode("utf-8", "replace")
        branch, stars = self._root, []
        # Of "//v2" the first part is empty: a server in front may know that path by no rule that it has for "/v2".
        raws = raw_path.removeprefix(b"/").removesuffix(b"/").split(b"/")
        parts = [unquote_to_bytes(raw).decode("utf-8", "replace") for raw in raws]
        for place, segment in enumerate(parts):
            following = branch.exact.get(segment)
            if following is None and branch.folded:
                following = branch.folded.get(segment.lower())
            if following is None:
                following = branch.any
                stars.append(segment)
            if following is None and branch.rest is not None:
                stars[-1:] = ["/".join(parts[place:])]
                branch = branch.rest
                break
            if following is None:
                raise Fault(404, f"no such path: {path}")
            branch = following
        route = branch.routes.get(method) or (branch.routes.get("GET") if method == "HEAD" else None)
        if route is None and branch.routes:
            one = next(iter(branch.routes.values()))
            raise NotAllowed(f"{method} {path} is not served", sorted(branch.routes), one)
        if route is None:
            raise Fault(404, f"{method} {path} is not served")
        return route, path, tuple(stars)
