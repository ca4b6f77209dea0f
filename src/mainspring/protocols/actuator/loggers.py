"""``/actuator/loggers``: the levels of Python's loggers, read and changed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping

from mainspring.protocols.actuator.page import CONTENT_TYPE, Operation, Page, RunBlocking, reading
from mainspring.protocols.http import Fault, Request, Response

__all__ = ["LEVELS", "ROOT", "apply_level", "loggers_page"]

LEVELS: Mapping[str, int] = {
    "OFF": logging.CRITICAL + 10,
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "TRACE": 5,
}
"""Spring Boot's levels, the quietest first, with Python's."""
ROOT = "ROOT"
_LONGEST = 200


def loggers_page(change: Callable[[str, str | None], None], run: RunBlocking) -> Page:
    """The page.

    Args:
        change: lets a logger of a name have a level, or none of its own, in every worker.
        run: runs what is read in a thread.
    """

    def whole(request: Request) -> object:
        names = sorted(name for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger))
        return {"levels": list(LEVELS), "loggers": {name: _shown(name) for name in (ROOT, *names)}, "groups": {}}

    def one(request: Request) -> object:
        return _shown(_known(request))

    async def changed(request: Request) -> Response:
        name = _known(request, new=True)
        await run(change, name, _asked(request.body))
        return Response(204, content_type=CONTENT_TYPE)

    return Page(
        "loggers",
        (
            Operation("GET", reading(whole, run)),
            Operation("GET", reading(one, run), "*", "{name}", "name"),
            Operation("POST", changed, "*"),
        ),
    )


def apply_level(name: str, level: str | None) -> None:
    """Let a logger of this process have a level; None leaves it to the one above, and the root to Python's default."""
    logger = logging.getLogger(None if name == ROOT else name)
    without = logging.WARNING if name == ROOT else logging.NOTSET
    logger.setLevel(without if level is None else LEVELS[level])


def _shown(name: str) -> Mapping[str, object]:
    logger = logging.getLogger(None if name == ROOT else name)
    own = {} if logger.level == logging.NOTSET else {"configuredLevel": _level(logger.level)}
    return {**own, "effectiveLevel": _level(logger.getEffectiveLevel())}


def _level(number: int) -> str:
    """The quietest level that lets through what the number does."""
    return next((name for name, least in LEVELS.items() if number >= least), "TRACE")


def _known(request: Request, *, new: bool = False) -> str:
    (name,) = request.parameters
    if name != ROOT and not isinstance(logging.root.manager.loggerDict.get(name), logging.Logger) and not new:
        raise Fault(404, f"there is no logger {name[:80]!r}")
    if len(name) > _LONGEST or not name.isprintable():
        raise Fault(400, "that is no name of a logger")
    return name


def _asked(body: bytes) -> str | None:
    """The level that a body asks for; None clears it.

    Raises:
        Fault: 400.
    """
    try:
        asked = json.loads(body or b"{}")
    except ValueError:
        raise Fault(400, "the body is no JSON") from None
    level = asked.get("configuredLevel") if isinstance(asked, dict) else ""
    if level is None:
        return None
    if not isinstance(level, str) or level.upper() not in LEVELS:
        raise Fault(400, f"configuredLevel takes {', '.join(LEVELS)}, or null")
    return level.upper()
