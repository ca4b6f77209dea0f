"""The console as an ASGI application: HTML for people, the same data as JSON at the same path with ``.json``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import orjson
from litestar import Litestar, Request, Response, get, post
from litestar.config.compression import CompressionConfig
from litestar.exceptions import HTTPException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.static_files import create_static_files_router

from mainspring.console import engines, indexes, monitors, pages, rollouts, words
from mainspring.console.showing import HEADERS, HOMES, Shower, own_page, page_of
from mainspring.console.state import ConsoleState
from mainspring.console.talk import STREAMS, talk_route
from mainspring.errors import DeclarationError, RefusedError, UsageError

__all__ = ["console_app"]

_HERE = Path(__file__).parent
Build = Callable[[ConsoleState, Mapping[str, Any]], "pages.Page | None"]


class _Page(msgspec.Struct, frozen=True):
    """A page: its path, template, title (that of the named thing when empty), and what it shows.

    `build` is given the path's parameters, and under ``?`` those of the query.
    """

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
        lambda state, at: pages.data_detail(state, at["kind"], at["name"], at["?"]),
    ),
    _Page("/models", "models.html", "Models", lambda state, at: pages.models(state)),
    _Page("/models/{name:str}", "model.html", "", lambda state, at: pages.model(state, at["name"])),
    _Page("/serving", "serving.html", "Serving", lambda state, at: pages.serving(state)),
    _Page("/monitors", "monitors.html", "Monitors", lambda state, at: monitors.monitors(state)),
    _Page("/monitors/{name:str}", "monitor.html", "", lambda state, at: monitors.monitor(state, at["name"])),
    _Page("/assistants", "assistants.html", "Assistants", lambda state, at: words.overview(state)),
    _Page("/assistants/{name:str}", "partner.html", "", lambda state, at: words.partner(state, at["name"], at["?"])),
    _Page("/index/{name:str}", "index.html", "", lambda state, at: indexes.index(state, at["name"], at["?"])),
    _Page("/documents/{name:str}", "documents.html", "", lambda state, at: indexes.documents(state, at["name"])),
    _Page("/llm/{name:str}", "engine.html", "", lambda state, at: engines.llm(state, at["name"])),
    _Page("/route/{name:str}", "engine.html", "", lambda state, at: engines.route(state, at["name"])),
    _Page("/prompt/{name:str}", "word.html", "", lambda state, at: words.declared(state, "prompt", at["name"])),
    _Page("/tool/{name:str}", "word.html", "", lambda state, at: words.declared(state, "tool", at["name"])),
    _Page("/mcp/{name:str}", "word.html", "", lambda state, at: words.declared(state, "mcp", at["name"])),
    _Page("/evaluation/{name:str}", "word.html", "", lambda state, at: words.declared(state, "evaluation", at["name"])),
    _Page("/trace/{name:str}", "trace.html", "Trace", lambda state, at: words.trace(state, at["name"])),
    _Page("/conditions", "conditions.html", "Conditions", lambda state, at: pages.conditions(state)),
)


def _paths(path: str) -> list[str]:
    """A page's path and its twin's: that of a named thing ends its name, and has no route of its own."""
    return ["/", "/index.json"] if path == "/" else [path] if "{" in path else [path, f"{path}.json"]


def console_app(state: ConsoleState) -> Litestar:
    """The console over a process's state; it starts nothing and keeps nothing."""
    show = Shower(state)
    return Litestar(
        [
            *(_page(show, path, page) for page in _PAGES for path in _paths(page.path)),
            *(_object(state, kind) for kind in HOMES),
            _log(state),
            _attempt(state, show),
            _decided(state, show),
            _alarm(state, show),
            _alarm_of_data(state, show),
            talk_route(state, show),
            create_static_files_router("/static", directories=[_HERE / "static"], include_in_schema=False),
        ],
        exception_handlers={HTTPException: show.error},
        compression_config=CompressionConfig(backend="gzip", minimum_size=1024, exclude_opt_key=STREAMS),
        openapi_config=None,
        request_max_body_size=65_536,
    )


def _page(show: Shower, path: str, page: _Page) -> HTTPRouteHandler:
    @get(path, sync_to_thread=True)
    def handler(request: Request[Any, Any, Any]) -> Response[bytes]:
        at: dict[str, Any] = {key: str(value).removesuffix(".json") for key, value in request.path_params.items()}
        at["?"] = {key: str(value) for key, value in request.query_params.items()}
        return show(request, page.template, page.title or at["name"], page.build(show.state, at))

    return handler


def _log(state: ConsoleState) -> HTTPRouteHandler:
    @get("/runs/{run_id:str}/log/{idx:int}/{map_idx:str}/{attempt:int}", sync_to_thread=True)
    def log(run_id: str, idx: int, map_idx: str, attempt: int) -> Response[bytes]:
        """What one attempt printed."""
        text = pages.step_log(state, run_id, idx, int(map_idx), attempt)
        if text is None:
            raise NotFoundException(detail="nothing was printed")
        return Response(text.encode(), media_type="text/plain; charset=utf-8", headers=HEADERS)

    return log


def _attempt(state: ConsoleState, show: Shower) -> HTTPRouteHandler:
    @post("/serving/{name:str}/try", status_code=200, guards=[own_page])
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


def _decided(state: ConsoleState, show: Shower) -> HTTPRouteHandler:
    @post("/serving/{name:str}/versions/{act:str}", status_code=200, guards=[own_page])
    async def decided(request: Request[Any, Any, Any], name: str, act: str) -> Response[bytes]:
        """Try a version, let it take over, or take it back; then the endpoint's page, or as JSON how it stands."""
        form = {key: str(value) for key, value in (await request.form()).items()}
        try:
            row = await asyncio.to_thread(rollouts.decide, state, name, act, form)
        except (UsageError, RefusedError) as error:
            status = 400 if isinstance(error, UsageError) else 409
            why = f": {error.why}" if error.why else ""
            raise HTTPException(detail=f"{error.what}{why}", status_code=status) from error
        if row is None:
            raise NotFoundException(detail=f"{request.url.path} is not here")
        if "text/html" in request.headers.get("accept", "text/html"):
            place = f"/serving#{quote(name)}"
            return Response(b"", status_code=303, headers={**HEADERS, "location": place})
        return show.json(row)

    return decided


def _alarm(state: ConsoleState, show: Shower) -> HTTPRouteHandler:
    @post("/monitors/{name:str}/alerts/{alert:str}/{act:str}", status_code=200, guards=[own_page])
    async def alarm(request: Request[Any, Any, Any], name: str, alert: str, act: str) -> Response[bytes]:
        """Acknowledge or mute an alarm, and go back to its monitor; asked for JSON, answer with the alarm."""
        return await _changed(state, show, request, (name, alert, act), f"/monitors/{quote(name)}")

    return alarm


def _alarm_of_data(state: ConsoleState, show: Shower) -> HTTPRouteHandler:
    @post("/data/{kind:str}/{name:str}/alerts/{alert:str}/{act:str}", status_code=200, guards=[own_page])
    async def alarm_of_data(
        request: Request[Any, Any, Any], kind: str, name: str, alert: str, act: str
    ) -> Response[bytes]:
        """The same for an alarm of a source or a feature view."""
        home = f"/data/{quote(kind)}/{quote(name)}"
        return await _changed(state, show, request, (f"{kind}/{name}", alert, act), home)

    return alarm_of_data


async def _changed(
    state: ConsoleState, show: Shower, request: Request[Any, Any, Any], which: tuple[str, str, str], home: str
) -> Response[bytes]:
    form = {key: str(value) for key, value in (await request.form()).items()}
    try:
        row = await asyncio.to_thread(monitors.change_alarm, state, *which, form)
    except UsageError as error:
        raise HTTPException(detail=error.what, status_code=409) from error
    except DeclarationError as error:
        raise HTTPException(detail=error.what, status_code=400) from error
    if row is None:
        raise NotFoundException(detail=f"{request.url.path} is not here")
    if "text/html" in request.headers.get("accept", "text/html"):
        return Response(b"", status_code=303, headers={**HEADERS, "location": home})
    return show.json(row)


def _object(state: ConsoleState, kind: str) -> HTTPRouteHandler:
    @get(f"/{kind}/{{name:str}}", sync_to_thread=False)
    def lead(name: str) -> Response[bytes]:
        """Lead from an object's URL, the same in CLI and API, to the page that shows it; to its twin from ``.json``."""
        plain = name.removesuffix(".json")
        if kind != "run" and state.plan().node(f"/{kind}/{plain}") is None:
            raise NotFoundException(detail=f"/{kind}/{plain} is not here")
        home, _, place = page_of(kind, plain).partition("#")
        ending = ".json" if plain != name else f"#{place}" if place else ""
        return Response(b"", status_code=302, headers={**HEADERS, "location": home + ending})

    return lead


def _typed(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return {"true": True, "false": False}.get(text, text)
