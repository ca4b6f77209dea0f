"""``/actuator/health``: the worst of all parts, and each part by itself or in its group."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

from mainspring.protocols.actuator.page import CONTENT_TYPE, Operation, Page
from mainspring.protocols.http import Fault, Request, Response, json_response

__all__ = ["Components", "health_page"]

Components = Mapping[str, tuple[str, Mapping[str, object]]]
"""By the part's name its status, UP, DOWN, OUT_OF_SERVICE or UNKNOWN, and facts."""

_WORST_FIRST = ("DOWN", "OUT_OF_SERVICE", "UP", "UNKNOWN")
_FAILING = frozenset({"DOWN", "OUT_OF_SERVICE"})


def health_page(
    components: Callable[[], Awaitable[Components]],
    groups: Mapping[str, Collection[str]],
    detailed: Callable[[Request], bool],
) -> Page:
    """The page.

    Args:
        components: asked for all parts.
        groups: the parts of each group, by its name; a group of none is the process itself.
        detailed: whether who asks may see more than the status.
    """

    async def whole(request: Request) -> Response:
        return _health(await components(), detailed(request), groups)

    async def part(request: Request) -> Response:
        name, *below = request.parameters
        found = await components()
        if name in groups:
            found = {key: value for key, value in found.items() if key in groups[name]}
            if not below:
                return _health(found, detailed(request))
            (name,) = below
        elif below:
            raise Fault(404, f"health knows no {name[:80]!r} with parts")
        if name not in found:
            raise Fault(404, f"health knows no {name[:80]!r}")
        status, facts = found[name]
        details = {"details": facts} if detailed(request) and facts else {}
        return json_response({"status": status, **details}, _code(status), content_type=CONTENT_TYPE)

    return Page(
        "health",
        (
            Operation("GET", whole),
            Operation("GET", part, "*", "{*path}", "path"),
            Operation("GET", part, "*/*"),
        ),
    )


def _health(components: Components, detailed: bool, groups: Collection[str] = ()) -> Response:
    found = {status for status, _ in components.values()}
    status = next((word for word in _WORST_FIRST if word in found), "UP")
    body: dict[str, object] = {"status": status}
    if groups:
        body["groups"] = sorted(groups)
    if components and detailed:
        body["components"] = {
            name: {"status": word, **({"details": facts} if facts else {})}
            for name, (word, facts) in components.items()
        }
    return json_response(body, _code(status), content_type=CONTENT_TYPE)


def _code(status: str) -> int:
    return 503 if status in _FAILING else 200
