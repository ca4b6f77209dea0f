"""The LLM port on Anthropic's Messages API."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import orjson

from mainspring.adapters.anthropic.events import MessageEvents
from mainspring.adapters.anthropic.problems import unusable
from mainspring.adapters.anthropic.request import body_for, refused
from mainspring.adapters.anthropic.settings import AnthropicSettings
from mainspring.ports.llm import (
    Capabilities,
    Embeddings,
    EmbedRequest,
    Error,
    Event,
    Failed,
    Generation,
    Health,
    Message,
    Ready,
    Relayed,
    Sampling,
)
from mainspring.upstream.checks import refusal_of
from mainspring.upstream.client import Place, place_of, sendable
from mainspring.upstream.faults import BrokenError
from mainspring.upstream.generations import Generations
from mainspring.upstream.passing import passed_paths
from mainspring.upstream.probing import probe
from mainspring.upstream.relaying import relayed
from mainspring.upstream.reply import body_of
from mainspring.upstream.secure import open_client
from mainspring.upstream.stream import Waits, events_of

__all__ = ["AnthropicEngine", "open_engine"]

_HELLO = Generation("health", "", messages=(Message("user", ("Hello",)),), sampling=Sampling(max_tokens=1))


class AnthropicEngine:
    """An upstream behind the port ``llm``.

    Args:
        settings: which model, and how it is asked.

    Raises:
        ConfigError: MS-3056, the address or a header cannot be used; MS-3182, a path that is passed on is none.
    """

    def __init__(self, settings: AnthropicSettings) -> None:
        self._settings = settings
        self._secret = settings.key or ""
        self._client = open_client(_place(settings), settings.ca)
        self._waits = Waits(settings.first_token, settings.inter_token, settings.total)
        self._under_way = Generations(settings.most)
        self._counts = True
        self._can = Capabilities(
            models=(settings.model,),
            context=settings.context,
            context_from="the setting context" if settings.context else "the upstream",
            completion=False,
            tools=True,
            grammar=True,
            images=settings.images,
            wire="anthropic",
            passthrough=passed_paths(settings.passthrough),
        )

    async def start(self) -> Ready | Failed:
        """Ask for one token."""
        begun = time.monotonic()
        self._under_way.draining = False
        health = await self.health(self._settings.first_token)
        if not health.ok:
            return Failed(health.why, "see llms.NAME.url, llms.NAME.key and llms.NAME.model")
        return Ready(time.monotonic() - begun, self._settings.model)

    async def health(self, deadline: float) -> Health:
        """One token within the deadline."""

        async def token() -> str:
            async for event in self._events(_HELLO):
                if isinstance(event, Error):
                    return event.message
            return ""

        return await probe(token, deadline, self._under_way)

    async def generate(self, request: Generation) -> AsyncIterator[Event]:
        """The answer."""
        refusal = self._under_way.refusal() or refusal_of(request, self._can) or await self._unfit(request)
        if refusal is not None:
            yield refusal
            return
        async for event in self._events(request):
            yield event

    async def _unfit(self, request: Generation) -> Error | None:
        if why := refused(request):
            return Error("invalid", why, status=400)
        context = self._can.context
        if context is None or sum(len(message.text.encode()) for message in request.messages) <= context:
            return None
        count = await self.count(request)
        if count is None or count < context:
            return None
        told = f"the prompt has {count} tokens, the context of {self._settings.model} {context}"
        return Error("context_length", f"{told}; {self._can.context_from} sets it", status=400)

    async def _events(self, request: Generation) -> AsyncIterator[Event]:
        body = body_for(request, self._settings.model, self._settings.max_tokens) | self._settings.body
        with self._under_way.begin(request.id) as ticket:
            reply = self._client.request("POST", "/v1/messages", orjson.dumps(body))
            decoder = MessageEvents(as_text=request.schema is not None)
            async for event in events_of(reply, decoder, ticket, self._waits, self._secret):
                yield event

    async def cancel(self, id: str) -> None:
        """Close the connection of a generation; nothing when it is over."""
        self._under_way.cancel(id)

    async def relay(
        self, id: str, path: str, body: bytes, *, method: str = "POST", headers: Mapping[str, str] | None = None
    ) -> Relayed | Error:
        """Send a body as it is, with our key."""
        if (refusal := self._under_way.refusal()) is not None:
            return refusal
        reply = self._client.request(method, f"/v1{path}", body if body or method == "POST" else None, headers)
        return await relayed(reply, self._under_way.begin(id), self._waits, self._secret)

    async def embed(self, request: EmbedRequest) -> Embeddings | Error:
        """Refuse: this wire has no embeddings."""
        return Error("invalid", "this upstream does not embed", status=400)

    async def tokenize(self, text: str) -> Sequence[int] | None:
        """None: this wire tells no tokens."""
        return None

    async def count(self, request: Generation) -> int | None:
        """Tokens of the prompt, by the upstream's own route; None where it has none."""
        if not self._counts or not request.messages:
            return None
        asked = body_for(request, self._settings.model, 1)
        wanted = {key: asked[key] for key in ("model", "messages", "system", "tools", "tool_choice") if key in asked}
        reply = self._client.request("POST", "/v1/messages/count_tokens", orjson.dumps(wanted))
        try:
            await reply.head(self._waits.first_token)
            body = await body_of(reply, self._waits.first_token, 1 << 20)
            self._counts = reply.status not in (404, 405, 501)
            found = orjson.loads(body) if reply.status == 200 else {}
        except (BrokenError, ValueError):
            return None
        finally:
            reply.close()
        count = found.get("input_tokens") if isinstance(found, dict) else None
        return count if isinstance(count, int) else None

    async def drain(self, deadline: float) -> None:
        """Let what runs end, then cancel it and close the connections."""
        await self._under_way.drain(deadline)
        await self._client.aclose()

    def capabilities(self) -> Capabilities:
        """What this wire can."""
        return self._can


def _place(settings: AnthropicSettings) -> Place:
    headers = {name.lower(): value for name, value in settings.headers.items()}
    headers["anthropic-version"] = settings.version
    if settings.key:
        headers["x-api-key"] = settings.key.strip()
    for name, value in headers.items():
        if not sendable(name) or not sendable(value):
            raise unusable(f"header {name!r}", "its name or its value has a line end or a sign beyond Latin-1")
    try:
        return place_of(settings.url, headers=headers, connect=settings.connect, idle=settings.idle)
    except ValueError as error:
        raise unusable("address", str(error)) from error


def open_engine(settings: AnthropicSettings, place: Path) -> AnthropicEngine:
    """The engine that the settings describe, not asked yet.

    Raises:
        ConfigError: MS-3056, the address or a header cannot be used.
    """
    return AnthropicEngine(settings)
