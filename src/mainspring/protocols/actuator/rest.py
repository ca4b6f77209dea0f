"""The actuator's pages, with the shapes of Spring Boot's (API version 3)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mainspring.protocols.http import Fault, Request, Response, Router, json_response

__all__ = ["PAGES", "Actuator", "add_actuator_routes"]

PAGES = ("health", "info", "conditions", "prometheus", "rollouts")
"""The pages that can be exposed."""

CONTENT_TYPE = b"application/vnd.spring-boot.actuator.v3+json"
_WORST_FIRST = ("DOWN", "OUT_OF_SERVICE", "UP", "UNKNOWN")
_FAILING = frozenset({"DOWN", "OUT_OF_SERVICE"})


@dataclass(frozen=True, slots=True)
class Actuator:
    """What the pages show; each is called when its page is asked for.

    Attributes:
        components: health of each part: name to (status, details); statuses are UP, DOWN, OUT_OF_SERVICE, UNKNOWN.
        ready: the components that readiness depends on.
        info: git, build, process and mainspring facts.
        conditions: every port with its outcomes, as the conditions report has them.
        prometheus: the metrics page for an Accept header: content type and text.
        base: the listener's own base URL.
        rollouts: the newest rollout of each model, with what was seen of it.
    """

    components: Callable[[], Mapping[str, tuple[str, Mapping[str, object]]]]
    ready: Collection[str]
    info: Callable[[], Mapping[str, object]]
    conditions: Callable[[], Mapping[str, Any]]
    prometheus: Callable[[bytes], tuple[bytes, bytes]]
    base: Callable[[], str]
    rollouts: Callable[[], Mapping[str, object]] = lambda: {}


def add_actuator_routes(router: Router, actuator: Actuator, expose: Collection[str]) -> None:
    """Serve the exposed pages below ``/actuator``."""
    routes = _Routes(actuator, expose)
    router.add("GET", "/actuator", routes.index)
    pages = {
        "health": (("/actuator/health", routes.health), ("/actuator/health/*", routes.health_part)),
        "info": (("/actuator/info", routes.info),),
        "conditions": (("/actuator/conditions", routes.conditions),),
        "prometheus": (("/actuator/prometheus", routes.prometheus),),
        "rollouts": (("/actuator/rollouts", routes.rollouts),),
    }
    for page, handlers in pages.items():
        if page in expose:
            for path, handler in handlers:
                router.add("GET", path, handler)


class _Routes:
    def __init__(self, actuator: Actuator, expose: Collection[str]) -> None:
        self._actuator = actuator
        self._expose = expose

    async def index(self, request: Request) -> Response:
        base = f"{self._actuator.base()}/actuator"
        links = {"self": {"href": base, "templated": False}}
        for page in PAGES:
            if page in self._expose:
                links[page] = {"href": f"{base}/{page}", "templated": False}
        if "health" in self._expose:
            links["health-path"] = {"href": f"{base}/health/{{*path}}", "templated": True}
        return json_response({"_links": links}, content_type=CONTENT_TYPE)

    async def health(self, request: Request) -> Response:
        components = self._actuator.components()
        return _health(components, groups=True)

    async def health_part(self, request: Request) -> Response:
        components = self._actuator.components()
        (name,) = request.parameters
        if name == "liveness":
            return _health({})
        if name == "readiness":
            return _health({key: value for key, value in components.items() if key in self._actuator.ready})
        if name not in components:
            raise Fault(404, f"health knows no {name!r}")
        status, details = components[name]
        return json_response({"status": status, "details": details}, _code(status), content_type=CONTENT_TYPE)

    async def info(self, request: Request) -> Response:
        return json_response(self._actuator.info(), content_type=CONTENT_TYPE)

    async def conditions(self, request: Request) -> Response:
        report = self._actuator.conditions()
        positive: dict[str, Any] = {}
        negative: dict[str, Any] = {}
        for port in report["ports"]:
            for candidate in port["candidates"]:
                name = f"{port['port']}.{candidate['adapter']}"
                told = [{"condition": c["name"], "message": c["message"]} for c in candidate["conditions"]]
                if candidate["fits"]:
                    positive[name] = told
                else:
                    failed = [t for t, c in zip(told, candidate["conditions"], strict=True) if not c["ok"]]
                    held = [t for t, c in zip(told, candidate["conditions"], strict=True) if c["ok"]]
                    negative[name] = {"notMatched": failed, "matched": held}
        context = {"positiveMatches": positive, "negativeMatches": negative, "unconditionalClasses": []}
        return json_response({"contexts": {"mainspring": context}}, content_type=CONTENT_TYPE)

    async def prometheus(self, request: Request) -> Response:
        content_type, text = self._actuator.prometheus(request.headers.get(b"accept", b""))
        return Response(200, text, content_type)

    async def rollouts(self, request: Request) -> Response:
        return json_response({"rollouts": self._actuator.rollouts()}, content_type=CONTENT_TYPE)


def _health(components: Mapping[str, tuple[str, Mapping[str, object]]], *, groups: bool = False) -> Response:
    found = {status for status, _ in components.values()}
    status = next((word for word in _WORST_FIRST if word in found), "UP")
    body: dict[str, object] = {"status": status}
    if groups:
        body["groups"] = ["liveness", "readiness"]
    if components:
        body["components"] = {
            name: {"status": word, "details": details} for name, (word, details) in components.items()
        }
    return json_response(body, _code(status), content_type=CONTENT_TYPE)


def _code(status: str) -> int:
    return 503 if status in _FAILING else 200
