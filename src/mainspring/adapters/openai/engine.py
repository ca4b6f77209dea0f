"""The LLM port on an upstream that speaks the OpenAI wire."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from mainspring.adapters.openai.place import limit_of, place_for
from mainspring.adapters.openai.settings import OpenAISettings
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
from mainspring.upstream.chat_events import ChatEvents
from mainspring.upstream.chat_request import body_for, messages_for, tools_for
from mainspring.upstream.checks import refusal_of
from mainspring.upstream.embeddings import embed_body, embeddings_of
from mainspring.upstream.faults import BrokenError, error_of
from mainspring.upstream.generations import Generations
from mainspring.upstream.passing import passed_paths
from mainspring.upstream.probing import probe
from mainspring.upstream.relaying import relayed
from mainspring.upstream.reply import body_of
from mainspring.upstream.secure import open_client
from mainspring.upstream.stream import Waits, events_of

__all__ = ["OpenAIEngine", "open_engine"]

_MOST_ANSWER = 256 << 20


class OpenAIEngine:
    """An upstream behind the port ``llm``.

    Args:
        settings: where it is and how it is asked.

    Raises:
        ConfigError: MS-3054, MS-3055, as `place_for`; MS-3182, a path that is passed on is none.
    """

    def __init__(self, settings: OpenAISettings) -> None:
        place = place_for(settings)
        self._settings = settings
        self._secret = settings.key or ""
        self._client = open_client(place, settings.ca)
        self._limit = limit_of(settings, place.host)
        self._waits = Waits(settings.first_token, settings.inter_token, settings.total)
        self._under_way = Generations(settings.most)
        self._model = settings.model
        self._counts = True
        self._can = Capabilities(
            models=(settings.model,) if settings.model else (),
            context=settings.context,
            context_from="the setting context" if settings.context else "the upstream",
            chat=settings.chat,
            completion=settings.completion,
            embeddings=settings.embeddings,
            tools=settings.tools,
            grammar=settings.grammar,
            logprobs=True,
            images=settings.images,
            seeds=True,
            choices=True,
            wire="openai",
            passthrough=passed_paths(settings.passthrough),
        )

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> Ready | Failed:
        """Ask for its models, and for one token."""
        begun = time.monotonic()
        self._under_way.draining = False
        try:
            models = await self._models()
        except BrokenError as broken:
            return Failed(broken.event.message, "see that the upstream runs, and llms.NAME.url and llms.NAME.key")
        if not self._model and len(models) != 1:
            listed = f"it lists {', '.join(sorted(models)[:20])}" if models else "it lists none"
            return Failed(f"the upstream has no only model: {listed}", "llms.NAME.model names one")
        self._learn(models)
        health = await self.health(self._settings.first_token)
        if not health.ok:
            others = f"; it lists {', '.join(sorted(models)[:20])}" if models and self._model not in models else ""
            return Failed(f"{health.why}{others}", "see llms.NAME.model and the upstream's own log")
        return Ready(time.monotonic() - begun, self._model)

    async def _models(self) -> Mapping[str, Mapping[str, Any]]:
        """What the upstream lists; nothing where it has no such route."""
        try:
            found = await self._ask("GET", "/models", None)
        except BrokenError as broken:
            if broken.event.status in (400, 404, 405, 501):
                return {}
            raise
        rows = found.get("data") if isinstance(found, dict) else None
        return {str(row["id"]): row for row in rows or () if isinstance(row, dict) and "id" in row}

    def _learn(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        self._model = self._model or next(iter(models))
        row = models.get(self._model, {})
        told = row.get("max_model_len") or (row.get("meta") or {}).get("n_ctx")  # vLLM and SGLang; llama.cpp
        context = self._settings.context or (told if isinstance(told, int) else None)
        self._can = msgspec.structs.replace(self._can, models=(self._model,), context=context)

    async def health(self, deadline: float) -> Health:
        """One token, or one vector of an upstream that only embeds, within the deadline."""
        if not self._can.chat and not self._can.completion:
            return await probe(self._embed_one, deadline, self._under_way)
        sampling = Sampling(max_tokens=1)
        request = Generation("health", "", messages=(Message("user", ("Hello",)),), sampling=sampling)
        if not self._can.chat:
            request = Generation("health", "", prompt="Hello", sampling=sampling)

        async def token() -> str:
            async for event in self._events(request):
                if isinstance(event, Error):
                    return event.message
            return ""

        return await probe(token, deadline, self._under_way)

    async def _embed_one(self) -> str:
        found = await self.embed(EmbedRequest("health", "", ("Hello",)))
        return found.message if isinstance(found, Error) else ""

    async def drain(self, deadline: float) -> None:
        """Let what runs end, then cancel it and close the connections."""
        await self._under_way.drain(deadline)
        await self._client.aclose()

    def capabilities(self) -> Capabilities:
        """What the settings say, and after `start` what the upstream has told."""
        return self._can

    # -- generating ---------------------------------------------------------------------------------------------------

    async def generate(self, request: Generation) -> AsyncIterator[Event]:
        """The answer."""
        refused = self._under_way.refusal() or refusal_of(request, self._can) or await self._too_long(request)
        if refused is not None:
            yield refused
            return
        async for event in self._events(request):
            yield event

    async def _events(self, request: Generation) -> AsyncIterator[Event]:
        body = body_for(request, self._model, self._limit) | self._settings.body
        path = "/chat/completions" if request.messages else "/completions"
        with self._under_way.begin(request.id) as ticket:
            reply = self._client.request("POST", path, orjson.dumps(body))
            decoder = ChatEvents(request.sampling.n, self._secret)
            async for event in events_of(reply, decoder, ticket, self._waits, self._secret):
                yield event

    async def _too_long(self, request: Generation) -> Error | None:
        """A prompt that cannot fit by its length alone is counted; any other is the upstream's to refuse."""
        context = self._can.context
        if context is None or _bytes_of(request) <= context:
            return None  # a token is a byte at least
        count = await self.count(request)
        if count is None or count < context:
            return None
        message = (
            f"the prompt has {count} tokens, the context of {self._model} {context}; {self._can.context_from} sets it"
        )
        return Error("context_length", message, status=400)

    async def cancel(self, id: str) -> None:
        """Close the connections of a generation; nothing when it is over."""
        self._under_way.cancel(id)

    async def relay(
        self, id: str, path: str, body: bytes, *, method: str = "POST", headers: Mapping[str, str] | None = None
    ) -> Relayed | Error:
        """Send a body as it is, with our key."""
        if (refused := self._under_way.refusal()) is not None:
            return refused
        reply = self._client.request(method, path, body if body or method == "POST" else None, headers)
        return await relayed(reply, self._under_way.begin(id), self._waits, self._secret)

    # -- the rest -----------------------------------------------------------------------------------------------------

    async def embed(self, request: EmbedRequest) -> Embeddings | Error:
        """The vectors of texts."""
        if self._can.models and request.model and request.model not in self._can.models:
            return Error("not_found", f"model {request.model!r} is not served here", status=404)
        if not self._can.embeddings:
            return Error("invalid", "this upstream does not embed, or llms.NAME.embeddings is not set", status=400)
        if (refused := self._under_way.refusal()) is not None:
            return refused
        with self._under_way.begin(request.id) as ticket:
            reply = self._client.request("POST", "/embeddings", embed_body(request, self._model))
            ticket.stop = reply.close
            try:
                await reply.head(self._waits.total)
                body = await body_of(reply, self._waits.total, _MOST_ANSWER)
                if reply.status != 200:
                    return error_of(reply.status, reply.headers, body, self._secret)
                return embeddings_of(body, len(request.inputs))
            except BrokenError as broken:
                return broken.event
            finally:
                reply.close()

    async def tokenize(self, text: str) -> Sequence[int] | None:
        """The tokens of a text, where the upstream has ``/tokenize`` beside its version (vLLM, SGLang, llama.cpp)."""
        found = await self._tokens({"model": self._model, "prompt": text, "content": text, "add_special_tokens": False})
        tokens = found.get("tokens") if found else None
        return [int(token) for token in tokens] if isinstance(tokens, list) else None

    async def count(self, request: Generation) -> int | None:
        """Tokens of the prompt, where the upstream counts conversations (vLLM)."""
        if isinstance(request.prompt, tuple) and not request.messages:
            return len(request.prompt)
        asked: dict[str, object] = {"model": self._model}
        if request.messages:
            asked["messages"] = messages_for(request.messages)
            if request.tools:
                asked["tools"] = tools_for(request.tools)
        else:
            asked |= {"prompt": request.prompt, "content": request.prompt, "add_special": True}
        found = await self._tokens(asked)
        if not found:
            return None
        count, tokens = found.get("count"), found.get("tokens")
        if isinstance(count, int):
            return count
        return len(tokens) if isinstance(tokens, list) and not request.messages else None

    async def _tokens(self, asked: Mapping[str, object]) -> Mapping[str, Any] | None:
        if not self._counts:
            return None
        path = self._client.place.path.removesuffix("/v1")
        try:
            found = await self._ask("POST", f"/{path}/tokenize", asked)
        except BrokenError as broken:
            self._counts = broken.event.status not in (404, 405, 501)
            return None
        return found if isinstance(found, dict) else None

    async def _ask(self, method: str, path: str, value: Mapping[str, object] | None) -> Any:
        reply = self._client.request(method, path, None if value is None else orjson.dumps(value))
        seconds = min(30.0, self._waits.first_token)
        try:
            await reply.head(seconds)
            body = await body_of(reply, seconds, _MOST_ANSWER)
        finally:
            reply.close()
        if reply.status != 200:
            raise BrokenError(error_of(reply.status, reply.headers, body, self._secret))
        try:
            return orjson.loads(body)
        except ValueError as error:
            raise BrokenError(Error("upstream", "the upstream sent garbage")) from error


def _bytes_of(request: Generation) -> int:
    if not request.messages:
        prompt = request.prompt or ""
        return len(prompt) if isinstance(prompt, tuple) else len(prompt.encode())
    return sum(len(message.text.encode()) for message in request.messages)


def open_engine(settings: OpenAISettings, place: Path) -> OpenAIEngine:
    """The engine that the settings describe, not asked yet.

    Raises:
        ConfigError: MS-3054, no usable URL; MS-3055, a header that cannot be sent.
    """
    return OpenAIEngine(settings)
