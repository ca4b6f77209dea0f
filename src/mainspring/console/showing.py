"""How the console shows things: pages as HTML or JSON, errors, and the page that each object has."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jinja2
import msgspec
import orjson
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, NotFoundException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler

from mainspring.console import pages
from mainspring.console.state import ConsoleState

__all__ = ["HEADERS", "HOMES", "IN_WORDS", "Shower", "own_page", "page_of", "wants_json"]

_HERE = Path(__file__).parent
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


_HEADINGS = {400: "Not understood", 403: "Refused", 409: "Too late"}


def own_page(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Refuse a form that a page of another site sends: a browser says where it comes from."""
    site, origin = connection.headers.get("sec-fetch-site"), connection.headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        own = origin is None or urlsplit(origin).netloc == connection.headers.get("host")
    if not own:
        raise PermissionDeniedException(detail="the form was sent by a page of another site")


class Shower:
    """Renders a page as HTML, or its data as JSON."""

    def __init__(self, state: ConsoleState) -> None:
        self.state = state
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        filters: dict[str, Any] = {
            "moment": _moment,
            "number": _number,
            "length": _length_or_zero,
            "bytes": _bytes,
            "told": _told,
        }
        filters |= {"ms": _ms, "money": _money}
        self._templates.filters |= filters

    def __call__(
        self, request: Request[Any, Any, Any], template: str, title: str, page: dict[str, Any] | None
    ) -> Response[bytes]:
        """A page as it is asked for.

        Raises:
            NotFoundException: there is no page.
        """
        if page is None:
            raise NotFoundException(detail=f"{request.url.path} is not here")
        if wants_json(request):
            return self.json(page)
        return self._html(template, self._frame(request, title) | page)

    def json(self, values: Mapping[str, Any]) -> Response[bytes]:
        """Data as JSON."""
        return Response(_json(values), media_type="application/json", headers=HEADERS)

    def part(self, template: str, values: dict[str, Any]) -> Response[bytes]:
        """A piece of a page."""
        return self._html(template, values)

    def text(self, template: str, values: Mapping[str, Any]) -> str:
        """A template filled in."""
        return self._templates.get_template(template).render(values)

    def error(self, request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
        """An error as a page, or as JSON."""
        if wants_json(request):
            return Response(
                _json({"error": error.detail}), status_code=error.status_code, media_type="application/json"
            )
        frame = self._frame(request, _HEADINGS.get(error.status_code, "Not here"))
        page = frame | {"status": error.status_code, "detail": error.detail}
        return self._html("error.html", page, error.status_code)

    def _html(self, template: str, values: dict[str, Any], status: int = 200) -> Response[bytes]:
        body = self.text(template, values).encode()
        return Response(body, status_code=status, media_type="text/html; charset=utf-8", headers=HEADERS)

    def _frame(self, request: Request[Any, Any, Any], title: str) -> dict[str, Any]:
        plan, path, asked = self.state.plan(), request.url.path, request.url.query
        here = path.strip("/").split("/")[0]
        return {
            "title": title,
            "app": plan.app,
            "profile": self.state.services.settings.profile,
            "pages": pages.PAGES,
            "here": "/assistants" if here in IN_WORDS else f"/{here}",
            "twin": ("/index.json" if path == "/" else f"{path}.json") + (f"?{asked}" if asked else ""),
            "palette": [(node.url, page_of(node.kind, node.name)) for node in plan.nodes],
        }


def wants_json(request: Request[Any, Any, Any]) -> bool:
    """Whether an answer is wanted as data: by the path's ending, or by what the client accepts."""
    if request.url.path.endswith(".json"):
        return True
    return "text/html" not in request.headers.get("accept", "text/html") and "hx-request" not in request.headers


IN_WORDS = frozenset(("documents", "index", "llm", "route", "prompt", "tool", "mcp", "evaluation", "trace"))
"""What has its page at its own URL, ``/kind/name``, below Assistants in the navigation."""

HOMES = {
    "source": "/data/source/{name}",
    "feature_view": "/data/feature_view/{name}",
    "vector_index": "/data/vector_index/{name}",
    "model": "/models/{name}",
    "endpoint": "/serving",
    "monitor": "/monitors/{name}",
    "assistant": "/assistants/{name}",
    "run": "/runs/{name}",
}
"""The page that shows an object of a kind; the object's own URL, ``/kind/name``, leads there."""


def page_of(kind: str, name: str) -> str:
    """The path of an object's page."""
    if kind in IN_WORDS:
        return f"/{kind}/{quote(name)}"
    if kind not in HOMES:
        return "/runs"
    return HOMES[kind].format(name=quote(name)) + (f"#{quote(name)}" if kind == "endpoint" else "")


def _json(page: object) -> bytes:
    return orjson.dumps(page, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def _moment(us: int | None) -> str:
    return "never" if us is None else datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return "n/a" if math.isnan(value) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _length_or_zero(value: Any) -> int:
    return 0 if value is None else len(value)


def _told(data: Mapping[str, Any]) -> str:
    """What an event says, in a line: the version, what the gate found, why; all of it is in the JSON twin."""
    parts = [f"version {data['version']}"] if "version" in data else []
    if "delta" in data:
        found = f"{data['metric']} {data['delta']:+.4f} [{data['low']:+.4f}, {data['high']:+.4f}]"
        parts.append(f"{found} against version {data.get('against', '?')} on {data['rows']:,} rows")
    if "chosen" in data:
        parts.append(", ".join(f"{rows} rows: {form}" for rows, form in data["chosen"].items()))
    if data.get("why"):
        parts.append(str(data["why"]))
    if not parts[1:] and "run" in data:
        parts.append(f"run {data['run']}")
    return ", ".join(parts)


def _ms(us: int | None) -> str:
    """Microseconds as milliseconds."""
    return "" if us is None else f"{us / 1e3:,.1f}" if us < 1e5 else f"{us / 1e3:,.0f}"


def _money(micro: int) -> str:
    """Micro-units as units, to the last digit that is not 0."""
    return f"{micro / 1e6:,.6f}".rstrip("0").rstrip(".")


def _bytes(size: int) -> str:
    for unit, limit in (("B", 1 << 10), ("KiB", 1 << 20), ("MiB", 1 << 30)):
        if size < limit:
            return f"{size / (limit >> 10):.0f} {unit}"
    return f"{size / (1 << 30):.1f} GiB"
