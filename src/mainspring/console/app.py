"""The console as an ASGI application: HTML for people, the same data as JSON at the same path with ``.json``."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jinja2
import orjson
from litestar import Litestar, Request, Response, get, post
from litestar.config.compression import CompressionConfig
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, NotFoundException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.static_files import create_static_files_router

from mainspring.console import monitors, pages
from mainspring.console.state import ConsoleState
from mainspring.errors import DeclarationError, UsageError

__all__ = ["console_app"]

_HERE = Path(__file__).parent
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


_HEADINGS = {400: "Not understood", 403: "Refused", 409: "Too late"}


Build = Callable[[ConsoleState, Mapping[str, Any]], "pages.Page | None"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Page:
    """A page: its path, template, title (that of the named thing when empty), and what it shows."""

    path: str
    template: str
    title: str
    build: Build


_PAGES = (
    _Page("/", "overview.html", "Overview", lambda state, at: pages.overview(state)),
    _Page("/runs", "runs.html", "Runs", lambda state, at: pages.runs(state)),
    _Page("/runs/{name:str}", "run.html", "Run", lambda state, at: pages.run(state, at["name"])),
    _Page("/data", "data.html", "Data", lambda state, at: pages.data(state)),
    _Page(
        "/data/{kind:str}/{name:str}",
        "datum.html",
        "",
        lambda state, at: pages.data_detail(state, at["kind"], at["name"]),
    ),
    _Page("/models", "models.html", "Models", lambda state, at: pages.models(state)),
    _Page("/models/{name:str}", "model.html", "", lambda state, at: pages.model(state, at["name"])),
    _Page("/serving", "serving.html", "Serving", lambda state, at: pages.serving(state)),
    _Page("/monitors", "monitors.html", "Monitors", lambda state, at: monitors.monitors(state)),
    _Page("/monitors/{name:str}", "monitor.html", "", lambda state, at: monitors.monitor(state, at["name"])),
    _Page("/conditions", "conditions.html", "Conditions", lambda state, at: pages.conditions(state)),
)


def _paths(path: str) -> list[str]:
    """A page's path and its twin's: that of a named thing ends its name, and has no route of its own."""
    return ["/", "/index.json"] if path == "/" else [path] if "{" in path else [path, f"{path}.json"]


def console_app(state: ConsoleState) -> Litestar:
    """The console over a process's state; it starts nothing and keeps nothing."""
    show = _Shower(state)
    return Litestar(
        [
            *(_page(show, path, page) for page in _PAGES for path in _paths(page.path)),
            *(_object(state, kind) for kind in _HOMES),
            _log(state),
            _attempt(state, show),
            _alarm(state, show),
            create_static_files_router("/static", directories=[_HERE / "static"], include_in_schema=False),
        ],
        exception_handlers={HTTPException: show.error},
        compression_config=CompressionConfig(backend="gzip", minimum_size=1024),
        openapi_config=None,
        request_max_body_size=65_536,
    )


def _page(show: _Shower, path: str, page: _Page) -> HTTPRouteHandler:
    @get(path, sync_to_thread=True)
    def handler(request: Request[Any, Any, Any]) -> Response[bytes]:
        at = {key: str(value).removesuffix(".json") for key, value in request.path_params.items()}
        return show(request, page.template, page.title or at["name"], page.build(show.state, at))

    return handler


def _log(state: ConsoleState) -> HTTPRouteHandler:
    @get("/runs/{run_id:str}/log/{idx:int}/{map_idx:str}/{attempt:int}", sync_to_thread=True)
    def log(run_id: str, idx: int, map_idx: str, attempt: int) -> Response[bytes]:
        """What one attempt printed."""
        text = pages.step_log(state, run_id, idx, int(map_idx), attempt)
        if text is None:
            raise NotFoundException(detail="nothing was printed")
        return Response(text.encode(), media_type="text/plain; charset=utf-8", headers=_HEADERS)

    return log


def _attempt(state: ConsoleState, show: _Shower) -> HTTPRouteHandler:
    @post("/serving/{name:str}/try", status_code=200, guards=[_own_page])
    async def attempt(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
        """Send the form to an endpoint, and show the answer beside it."""
        form = await request.form()
        body = {key: _typed(str(value)) for key, value in form.items() if str(value) != ""}
        status, answer = await state.ask(name, orjson.dumps(body))
        text = orjson.dumps(orjson.loads(answer), option=orjson.OPT_INDENT_2).decode()
        if "hx-request" in request.headers:
            return show.part("answer.html", {"status": status, "text": text})
        return show(request, "tried.html", name, {"name": name, "status": status, "text": text})

    return attempt


def _alarm(state: ConsoleState, show: _Shower) -> HTTPRouteHandler:
    @post("/monitors/{name:str}/alerts/{alert:str}/{act:str}", status_code=200, guards=[_own_page])
    async def alarm(request: Request[Any, Any, Any], name: str, alert: str, act: str) -> Response[bytes]:
        """Acknowledge or mute an alarm, and go back to its monitor; asked for JSON, answer with the alarm."""
        form = {key: str(value) for key, value in (await request.form()).items()}
        try:
            row = await asyncio.to_thread(monitors.change_alarm, state, name, alert, act, form)
        except UsageError as error:
            raise HTTPException(detail=error.what, status_code=409) from error
        except DeclarationError as error:
            raise HTTPException(detail=error.what, status_code=400) from error
        if row is None:
            raise NotFoundException(detail=f"{request.url.path} is not here")
        if "text/html" in request.headers.get("accept", "text/html"):
            return Response(b"", status_code=303, headers={**_HEADERS, "location": f"/monitors/{quote(name)}"})
        return show.json(row)

    return alarm


def _own_page(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Refuse a form that a page of another site sends: a browser says where it comes from."""
    site, origin = connection.headers.get("sec-fetch-site"), connection.headers.get("origin")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        own = origin is None or urlsplit(origin).netloc == connection.headers.get("host")
    if not own:
        raise PermissionDeniedException(detail="the form was sent by a page of another site")


class _Shower:
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
        filters = {"moment": _moment, "number": _number, "length": _length_or_zero, "bytes": _bytes, "told": _told}
        self._templates.filters |= filters

    def __call__(
        self, request: Request[Any, Any, Any], template: str, title: str, page: dict[str, Any] | None
    ) -> Response[bytes]:
        if page is None:
            raise NotFoundException(detail=f"{request.url.path} is not here")
        if request.url.path.endswith(".json") or "text/html" not in request.headers.get("accept", "text/html"):
            return self.json(page)
        return self._html(template, self._frame(request.url.path, title) | page)

    def json(self, values: Mapping[str, Any]) -> Response[bytes]:
        """Data as JSON."""
        return Response(_json(values), media_type="application/json", headers=_HEADERS)

    def part(self, template: str, values: dict[str, Any]) -> Response[bytes]:
        """A piece of a page."""
        return self._html(template, values)

    def error(self, request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
        """An error as a page, or as JSON."""
        if request.url.path.endswith(".json") or "text/html" not in request.headers.get("accept", "text/html"):
            return Response(
                _json({"error": error.detail}), status_code=error.status_code, media_type="application/json"
            )
        frame = self._frame(request.url.path, _HEADINGS.get(error.status_code, "Not here"))
        page = frame | {"status": error.status_code, "detail": error.detail}
        return self._html("error.html", page, error.status_code)

    def _html(self, template: str, values: dict[str, Any], status: int = 200) -> Response[bytes]:
        text = self._templates.get_template(template).render(values)
        return Response(text.encode(), status_code=status, media_type="text/html; charset=utf-8", headers=_HEADERS)

    def _frame(self, path: str, title: str) -> dict[str, Any]:
        plan = self.state.plan()
        return {
            "title": title,
            "app": plan.app,
            "profile": self.state.services.settings.profile,
            "pages": pages.PAGES,
            "here": "/" + path.strip("/").split("/")[0],
            "twin": "/index.json" if path == "/" else f"{path}.json",
            "palette": [(node.url, _page_of(node.kind, node.name)) for node in plan.nodes],
        }


_HOMES = {
    "source": "/data/source/{name}",
    "feature_view": "/data/feature_view/{name}",
    "model": "/models/{name}",
    "endpoint": "/serving",
    "monitor": "/monitors/{name}",
    "run": "/runs/{name}",
}
"""The page that shows an object of a kind; the object's own URL, ``/kind/name``, leads there."""


def _page_of(kind: str, name: str) -> str:
    if kind not in _HOMES:
        return "/runs"
    return _HOMES[kind].format(name=quote(name)) + (f"#{quote(name)}" if kind == "endpoint" else "")


def _object(state: ConsoleState, kind: str) -> HTTPRouteHandler:
    @get(f"/{kind}/{{name:str}}", sync_to_thread=False)
    def lead(name: str) -> Response[bytes]:
        """Lead from an object's URL, the same in CLI and API, to the page that shows it; to its twin from ``.json``."""
        plain = name.removesuffix(".json")
        if kind != "run" and state.plan().node(f"/{kind}/{plain}") is None:
            raise NotFoundException(detail=f"/{kind}/{plain} is not here")
        home, _, place = _page_of(kind, plain).partition("#")
        ending = ".json" if plain != name else f"#{place}" if place else ""
        return Response(b"", status_code=302, headers={**_HEADERS, "location": home + ending})

    return lead


def _json(page: object) -> bytes:
    return orjson.dumps(page, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def _typed(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return {"true": True, "false": False}.get(text, text)


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
    if data.get("why"):
        parts.append(str(data["why"]))
    if not parts[1:] and "run" in data:
        parts.append(f"run {data['run']}")
    return ", ".join(parts)


def _bytes(size: int) -> str:
    for unit, limit in (("B", 1 << 10), ("KiB", 1 << 20), ("MiB", 1 << 30)):
        if size < limit:
            return f"{size / (limit >> 10):.0f} {unit}"
    return f"{size / (1 << 30):.1f} GiB"
