"""Talking on a chat page: one form, answered whole as a page or as JSON, or as it comes as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

import orjson
from litestar import Request, Response, post
from litestar.exceptions import HTTPException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

from mainspring.assistants.events import Error, Event, Folded, Retrieval, encode, fold, plain
from mainspring.assistants.service import Asked
from mainspring.console import words
from mainspring.console.asking import Said, TalkForm, identity_row, talk_form
from mainspring.console.showing import HEADERS, Shower, own_page, wants_json
from mainspring.console.state import ConsoleState
from mainspring.errors import MainspringError, UsageError

__all__ = ["STREAMS", "talk_route"]

STREAMS = "streams"
"""Marks a route whose answers go out as they come: nothing may hold them back to compress them."""
_BODY = 1_000_000


def talk_route(state: ConsoleState, show: Shower) -> HTTPRouteHandler:
    """The route that a chat page's form is sent to."""

    @post(
        "/assistants/{name:str}/talk",
        status_code=200,
        guards=[own_page],
        request_max_body_size=_BODY,
        opt={STREAMS: True},
    )
    async def talk(request: Request[Any, Any, Any], name: str) -> Response[Any]:
        """Ask, or decide what a run waits for."""
        node = words.partner_kind(state, name)
        if node is None:
            raise NotFoundException(detail=f"{request.url.path} is not here")
        try:
            form = talk_form({key: str(value) for key, value in (await request.form()).items()})
        except UsageError as error:
            raise HTTPException(detail=error.what, status_code=400) from error
        if form.interrupt and node.kind != "assistant":
            raise HTTPException(detail="only assistants wait for decisions", status_code=400)
        if "text/event-stream" in request.headers.get("accept", ""):
            parts = _parts(state, show, name, form)
            return Stream(parts, media_type="text/event-stream; charset=utf-8", headers=HEADERS)
        told = [event async for event in _events(state, name, form)]
        if wants_json(request):
            return show.json(plain(fold(told)))
        page = await asyncio.to_thread(words.partner, state, name, {}) or {}
        answered = fold(told)
        history = _history(form, answered)
        past = [_past(said) for said in form.history]
        shown = {"who": identity_row(form.who), "history": history, "turns": [*past, _turn(form, answered, state)]}
        return show(request, "partner.html", name, page | shown | {"twin": f"/assistants/{quote(name)}.json"})

    return talk


async def _events(state: ConsoleState, name: str, form: TalkForm) -> AsyncGenerator[Event, None]:
    """A run's events; what is refused before the first is an event too."""
    answering = state.answering
    if form.interrupt:
        events = answering.decide(name, form.thread, form.interrupt, form.decisions, form.who)
    else:
        events = answering.ask(name, Asked(form.messages), form.who)
    try:
        async with aclosing(events) as told:
            async for event in told:
                yield event
    except MainspringError as error:
        message = f"{error.what}. {error.fix}" if error.fix else error.what
        yield Error(code=error.code, kind="refused", message=message, retryable=False)


async def _parts(state: ConsoleState, show: Shower, name: str, form: TalkForm) -> AsyncIterator[bytes]:
    """The events as they are, and rendered for the page: the sources when they are found, the whole turn at the end."""
    told: list[Event] = []
    async with aclosing(_events(state, name, form)) as events:
        async for event in events:
            told.append(event)
            yield b"event: %s\ndata: %s\n\n" % (str(event.__struct_config__.tag).encode(), encode(event))
            if isinstance(event, Retrieval):
                sources = words.turn("", fold(told), None)["sources"]
                yield _part("sources", {"html": show.text("sources.html", {"sources": sources})})
    answered = fold(told)
    history = _history(form, answered)
    values = {"turn": _turn(form, answered, state), "name": name, "who": identity_row(form.who), "history": history}
    yield _part("turn", {"html": show.text("turn.html", values), "history": orjson.dumps(history).decode()})


def _part(kind: str, value: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(value))


def _turn(form: TalkForm, answered: Folded, state: ConsoleState) -> dict[str, object]:
    """A turn with the spans of its run, which is on record when its events are over."""
    record = state.answering.run(answered.run)
    return words.turn(form.question, answered, record)


def _history(form: TalkForm, answered: Folded) -> list[dict[str, str]]:
    """The conversation that the next question goes on with; what failed is no part of it."""
    said = form.history if answered.error is not None else form.after(answered.text)
    return [{"role": one.role, "content": one.content} for one in said]


def _past(said: Said) -> dict[str, object]:
    """A message of the conversation, on a page that was sent whole."""
    empty = words.turn("", Folded(), None)
    return empty | ({"question": said.content} if said.role == "user" else {"text": said.content})
