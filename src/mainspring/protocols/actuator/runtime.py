"""The pages about the process itself: threads, routes, timetables, its start, exchanges, caches, its log, its end."""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Protocol

import msgspec

from mainspring.protocols.actuator.page import CONTENT_TYPE, Operation, Page, RunBlocking, reading
from mainspring.protocols.http import Fault, Request, Response, json_response

__all__ = [
    "Cache",
    "Exchanges",
    "Routes",
    "Task",
    "caches_page",
    "logfile_page",
    "mappings_page",
    "moment",
    "scheduledtasks_page",
    "shutdown_page",
    "spelled",
    "threaddump_page",
]

_WAITS = frozenset({"wait", "acquire", "select", "poll", "get", "recv", "accept", "sleep", "join", "_wait"})
"""Functions in which a thread waits for somebody."""
_KEPT = 100
"""Exchanges that are kept."""
_PRIVATE = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"})
_MOST_LOG = 64 << 20


Routes = Mapping[str, Sequence[tuple[str, str, str]]]
"""By listener its routes: method, pattern and name of the handler."""


class Cache(Protocol):
    """Something that can be emptied."""

    def clear(self) -> None:
        """Forget all that is in it."""


def spelled(seconds: float) -> str:
    """A time as ISO 8601 spells it: ``PT0.023S``."""
    return f"PT{seconds:.6f}".rstrip("0").rstrip(".") + "S"


def moment(seconds: float) -> str:
    """A moment as ISO 8601 spells it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def threaddump_page(run: RunBlocking) -> Page:
    """``threaddump``: every thread with its stack, as JSON or, where the Accept header says so, as text."""

    async def dumped(request: Request) -> Response:
        accept = request.headers.get(b"accept", b"")
        if b"text/plain" in accept and b"json" not in accept:
            return Response(200, (await run(_text)).encode(), b"text/plain;charset=UTF-8")
        return json_response({"threads": await run(_threads)}, content_type=CONTENT_TYPE)

    return Page("threaddump", (Operation("GET", dumped),))


def _threads() -> list[dict[str, object]]:
    known = {thread.ident: thread for thread in threading.enumerate()}
    found = []
    for number, frame in sys._current_frames().items():
        thread = known.get(number)
        found.append(
            {
                "threadName": "?" if thread is None else thread.name,
                "threadId": number,
                "threadState": "WAITING" if frame.f_code.co_name in _WAITS else "RUNNABLE",
                "daemon": thread is not None and thread.daemon,
                "blockedTime": -1,
                "blockedCount": -1,
                "waitedTime": -1,
                "waitedCount": -1,
                "lockOwnerId": -1,
                "inNative": False,
                "suspended": False,
                "priority": 5,
                "stackTrace": _stack(frame),
                "lockedMonitors": [],
                "lockedSynchronizers": [],
            }
        )
    return found


def _stack(frame: FrameType) -> list[dict[str, object]]:
    """The frames of a thread, the innermost first."""
    found = []
    for one, line in traceback.walk_stack(frame):
        found.append(
            {
                "className": one.f_globals.get("__name__", "?"),
                "methodName": one.f_code.co_qualname if sys.version_info >= (3, 11) else one.f_code.co_name,
                "fileName": Path(one.f_code.co_filename).name,
                "lineNumber": line,
                "nativeMethod": False,
            }
        )
    return found


def _text() -> str:
    parts = []
    for thread in _threads():
        parts.append(f'"{thread["threadName"]}" - Thread t@{thread["threadId"]}')
        parts.append(f"   java.lang.Thread.State: {thread['threadState']}")
        for one in thread["stackTrace"]:  # type: ignore[attr-defined]
            parts.append(f"\tat {one['className']}.{one['methodName']}({one['fileName']}:{one['lineNumber']})")
        parts.append("")
    return "\n".join(parts)


def mappings_page(app: str, routes: Callable[[], Routes], run: RunBlocking) -> Page:
    """``mappings``: which path is answered by whom.

    Args:
        app: the app's name.
        routes: called for those of each listener.
        run: runs what is read in a thread.
    """

    def mapped(request: Request) -> object:
        handlers = {
            listener: [_mapping(method, pattern, handler) for method, pattern, handler in found]
            for listener, found in routes().items()
        }
        return {"contexts": {app: {"mappings": {"dispatcherHandlers": handlers}}}}

    return Page("mappings", (Operation("GET", reading(mapped, run)),))


def _mapping(method: str, pattern: str, handler: str) -> dict[str, object]:
    owner, _, name = handler.rpartition(".")
    return {
        "handler": handler,
        "predicate": f"{{{method} [{pattern}]}}",
        "details": {
            "handlerMethod": {"className": owner, "name": name, "descriptor": ""},
            "requestMappingConditions": {
                "consumes": [],
                "headers": [],
                "methods": [method],
                "params": [],
                "patterns": [pattern],
                "produces": [],
            },
        },
    }


class Task(msgspec.Struct, frozen=True):
    """Something that is done again and again.

    Attributes:
        target: what.
        expression: its cron; empty for what has a pause.
        next: when it is due, seconds since 1970.
        last: when it was done, and how that ended: STARTED, SUCCESS or ERROR.
        pause: seconds between two times.
    """

    target: str
    expression: str = ""
    next: float | None = None
    last: tuple[float, str] | None = None
    pause: float = 0.0

    def shown(self) -> dict[str, object]:
        """As the page shows it."""
        found: dict[str, object] = {"runnable": {"target": self.target}}
        if self.expression:
            found["expression"] = self.expression
        else:
            found |= {"initialDelay": 0, "interval": round(self.pause * 1000)}
        if self.next is not None:
            found["nextExecution"] = {"time": moment(self.next)}
        if self.last is not None:
            found["lastExecution"] = {"time": moment(self.last[0]), "status": self.last[1]}
        return found


def scheduledtasks_page(tasks: Callable[[], Sequence[Task]], run: RunBlocking) -> Page:
    """``scheduledtasks``: the timetables of the app, and what the server does beside answering."""

    def shown(request: Request) -> object:
        found = tasks()
        return {
            "cron": [one.shown() for one in found if one.expression],
            "fixedDelay": [one.shown() for one in found if not one.expression],
            "fixedRate": [],
            "custom": [],
        }

    return Page("scheduledtasks", (Operation("GET", reading(shown, run)),))


class Exchanges:
    """The last requests and how they were answered, without what could be a secret.

    Args:
        clock: seconds since 1970.
        base: the listener's own URL.
    """

    def __init__(self, clock: Callable[[], float], base: Callable[[], str]) -> None:
        self._clock = clock
        self._base = base
        self._kept: deque[tuple[float, Request, int, float]] = deque(maxlen=_KEPT)

    def add(self, request: Request | None, name: str, status: int, seconds: float) -> None:
        """Keep an exchange; its body is let go of."""
        if request is not None:
            asked = Request(request.method, request.path, request.query, request.headers, b"", (), request.client)
            self._kept.append((self._clock() - seconds, asked, status, seconds))

    def page(self, run: RunBlocking) -> Page:
        """``httpexchanges``."""

        def shown(request: Request) -> object:
            return {"exchanges": [self._shown(*one) for one in reversed(list(self._kept))]}

        return Page("httpexchanges", (Operation("GET", reading(shown, run)),))

    def _shown(self, begun: float, request: Request, status: int, seconds: float) -> dict[str, object]:
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            text = name.decode("latin-1")
            if text not in _PRIVATE:
                headers[text] = [value.decode("latin-1")]
        return {
            "timestamp": moment(begun),
            "request": {
                "method": request.method,
                "uri": self._base() + request.path,  # a query may hold a key
                "headers": headers,
                "remoteAddress": request.client,
            },
            "response": {"status": status, "headers": {}},
            "timeTaken": spelled(seconds),
        }


def logfile_page(path: Path, run: RunBlocking) -> Page:
    """``logfile``: the file, or the part of it that a Range header asks for.

    Args:
        path: of the file.
        run: reads it in a thread.
    """

    async def read(request: Request) -> Response:
        status, body, headers = await run(_part, path, request.headers.get(b"range", b""))
        return Response(status, body, b"text/plain;charset=UTF-8", ((b"accept-ranges", b"bytes"), *headers))

    return Page("logfile", (Operation("GET", read),))


def _part(path: Path, asked: bytes) -> tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if not asked:
                first = max(0, size - _MOST_LOG)
                file.seek(first)
                return 200, file.read(size - first), ()
            first, last = _range(asked, size)
            file.seek(first)
            body = file.read(min(last - first + 1, _MOST_LOG))
    except OSError:
        raise Fault(404, "there is no log yet") from None
    return 206, body, ((b"content-range", b"bytes %d-%d/%d" % (first, first + len(body) - 1, size)),)


def _range(asked: bytes, size: int) -> tuple[int, int]:
    """The first and the last byte of ``bytes=0-9``, ``bytes=10-`` or ``bytes=-5`` (RFC 9110, section 14).

    Raises:
        Fault: 416.
    """
    unit, _, span = asked.partition(b"=")
    start, dash, end = span.strip().partition(b"-")
    if unit.strip() != b"bytes" or not dash or not (start + end).isdigit():
        raise Fault(416, "one range of bytes is served")
    first = int(start) if start else max(0, size - int(end))
    last = min(int(end), size - 1) if end and start else size - 1
    if first > last:
        raise Fault(416, f"the log has {size} bytes")
    return first, last


def caches_page(app: str, caches: Callable[[], Mapping[str, Cache]], run: RunBlocking) -> Page:
    """``caches``: which there are; a DELETE empties one, or all.

    Args:
        app: the app's name.
        caches: called for them, by name.
        run: runs what is read in a thread.
    """

    def shown(request: Request) -> object:
        found = {name: {"target": _target(cache)} for name, cache in caches().items()}
        return {"cacheManagers": {app: {"caches": found}}}

    def one(request: Request) -> object:
        name = _known(request)
        return {"target": _target(caches()[name]), "name": name, "cacheManager": app}

    async def emptied(request: Request) -> Response:
        for name in [_known(request)] if request.parameters else list(caches()):
            caches()[name].clear()
        return Response(204, content_type=CONTENT_TYPE)

    def _known(request: Request) -> str:
        (name,) = request.parameters
        if name not in caches():
            raise Fault(404, f"there is no cache {name[:80]!r}")
        return name

    return Page(
        "caches",
        (
            Operation("GET", reading(shown, run)),
            Operation("DELETE", emptied),
            Operation("GET", reading(one, run), "*", "{cache}", "cache"),
            Operation("DELETE", emptied, "*"),
        ),
    )


def _target(cache: object) -> str:
    return f"{type(cache).__module__}.{type(cache).__qualname__}"


def shutdown_page(stop: Callable[[], None]) -> Page:
    """``shutdown``: let the server drain and end."""

    async def stopped(request: Request) -> Response:
        stop()
        return json_response({"message": "Shutting down, bye..."}, content_type=CONTENT_TYPE)

    return Page("shutdown", (Operation("POST", stopped),))
