"""The actuator over HTTP, with the shapes of Spring Boot's (API version 3)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from mainspring.protocols.actuator.page import CONTENT_TYPE, Page
from mainspring.protocols.http import Handler, Request, Response, Router, json_response

__all__ = ["ACCESSES", "PAGES", "add_actuator_routes"]

PAGES = (
    "health", "info", "metrics", "prometheus", "loggers", "env", "configprops", "conditions", "mappings",
    "scheduledtasks", "httpexchanges", "threaddump", "sbom", "startup", "caches", "logfile", "shutdown",
    "models", "features", "labels", "pipelines", "rollouts", "drift",
)  # fmt: skip
"""The pages that can be exposed."""

ACCESSES = ("none", "read-only", "unrestricted")
"""What may be asked of the exposed ones."""

_HOST = re.compile(rb"[A-Za-z0-9._\-]{1,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


def add_actuator_routes(
    router: Router, pages: Sequence[Page], expose: Collection[str], access: str, base: Callable[[], str]
) -> None:
    """Serve the exposed pages below ``/actuator``.

    Args:
        router: where the routes go.
        pages: those that this server has.
        expose: the names of those that are shown.
        access: one of `ACCESSES`.
        base: called for the listener's own address, where a request names none.
    """
    shown = [page for page in pages if page.name in expose and access != "none"]
    allowed: dict[str, list[str]] = {"/actuator": ["GET"]}
    links: list[tuple[str, str, bool]] = []
    for page in shown:
        for one in page.operations:
            if access == "read-only" and one.method != "GET":
                continue
            path = "/".join(part for part in ("/actuator", page.name, one.path) if part)
            router.add(one.method, path, one.answer)
            allowed.setdefault(path, []).append(one.method)
            key = f"{page.name}-{one.key}" if one.key else page.name
            link = "/".join(part for part in (page.name, one.link) if part)
            if not one.path or one.key:
                links.append((key, link, bool(one.link)))

    async def index(request: Request) -> Response:
        root = f"{_base(request, base())}/actuator"
        found: dict[str, object] = {"self": {"href": root, "templated": False}}
        for key, link, templated in links:
            found[key] = {"href": f"{root}/{link}", "templated": templated}
        return json_response({"_links": found}, content_type=CONTENT_TYPE)

    router.add("GET", "/actuator", index)
    for path, methods in allowed.items():
        router.add("OPTIONS", path, _options(methods))


def _options(methods: Sequence[str]) -> Handler:
    allow = ", ".join(dict.fromkeys([*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"])).encode()

    async def options(request: Request) -> Response:
        return Response(200, b"", headers=((b"allow", allow),))

    return options


def _base(request: Request, own: str) -> str:
    """The address under which the listener was asked: who reads the index asks again there."""
    host = request.headers.get(b"host", b"")
    scheme = own.partition("://")[0] or "http"
    return f"{scheme}://{host.decode()}" if _HOST.fullmatch(host) else own
