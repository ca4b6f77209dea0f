"""An engine that says exactly what a test gives it, and a gateway on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import uvloop

from mainspring.llm.gateway import Gateway
from mainspring.llm.stored import StoredResponses
from mainspring.llm.values import Route, Target
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
    Start,
    Text,
    Usage,
)
from mainspring.protocols.http import Router
from mainspring.protocols.llm.mount import add_llm_routes
from mainspring.server.http.asgi import Limits, Listener
from mainspring.server.http.host import _server, bind

Script = Callable[[Generation], Sequence[Event | float] | AsyncIterator[Event]]


def says(*pieces: str, prompt: int = 5, reason: Any = "stop", usage: bool = True) -> list[Event]:
    """The events of a plain answer."""
    end = End((reason,), Usage(prompt, len(pieces)) if usage else None)
    return [Start(prompt), *(Text(piece, 1) for piece in pieces), end]


class Scripted:
    """An engine of the port: events (and pauses, as numbers) are what the script returns for a request."""

    def __init__(self, script: Script | Sequence[Event | float], can: Capabilities | None = None) -> None:
        self.script: Script = script if callable(script) else (lambda request: list(script))
        self.can = can or Capabilities(
            embeddings=True, tools=True, grammar=True, logprobs=True, images=True, seeds=True, choices=True
        )
        self.requests: list[Generation] = []
        self.pulled = 0
        self.under_way = 0
        self.most_under_way = 0
        self.gone: list[float] = []
        self.counted = 0

    async def start(self) -> Ready | Failed:
        return Ready(0.0)

    async def generate(self, request: Generation) -> AsyncIterator[Event]:
        self.requests.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        whole = False
        try:
            events = self.script(request)
            if isinstance(events, AsyncIterator):
                async for event in events:
                    whole = isinstance(event, (End, Error))
                    yield event
                return
            for step in events:
                if isinstance(step, (int, float)):
                    await asyncio.sleep(step)
                    continue
                self.pulled += 1
                whole = isinstance(step, (End, Error))
                yield step
        finally:
            self.under_way -= 1
            if not whole:
                self.gone.append(time.monotonic())

    async def cancel(self, id: str) -> None: ...

    async def embed(self, request: EmbedRequest) -> Embeddings | Error:
        import struct

        vectors = tuple(struct.pack("<3f", float(len(str(text))), 0.5, -1.25) for text in request.inputs)
        return Embeddings(vectors, 3, Usage(len(request.inputs), 0))

    async def tokenize(self, text: str) -> Sequence[int] | None:
        return list(range(len(text.split())))

    async def count(self, request: Generation) -> int | None:
        self.counted += 1
        return sum(len(message.text.split()) for message in request.messages) or len(str(request.prompt).split())

    async def health(self, deadline: float) -> Health:
        return Health(True)

    async def drain(self, deadline: float) -> None: ...

    def capabilities(self) -> Capabilities:
        return self.can


def route(engine: Any, name: str = "chat", **options: Any) -> Route:
    """A route with one target."""
    return Route(name=name, targets=(Target(name=f"{name}-1", engine=engine, model="inner", provider="p"),), **options)


class Live:
    """A gateway that listens on a free port of loopback, in a thread of its own."""

    def __init__(self, gateway: Gateway, *, body: int = 1 << 20) -> None:
        self.gateway = gateway
        self.seen: list[tuple[str, int]] = []
        router = Router()
        self.stored = StoredResponses(None, time.time)
        add_llm_routes(router, gateway, self.stored)
        self.listener = Listener(
            router,
            Limits(body, 30.0),
            watch=lambda request, name, status, seconds, sent: self.seen.append((name, status)),
        )
        self.faults: list[Exception] = []
        self.listener._on_error = self.faults.append
        self._bound = bind("server", self.listener, "127.0.0.1", 0, "here")
        self.port = self._bound.port
        self.url = self._bound.url
        self._server = _server(self._bound, 5)
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self._server._serve(sockets=[self._bound.socket])

    def __enter__(self) -> Live:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self.stored.close()

    def call(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request: status, headers, body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method or ("GET" if data is None else "POST"), path, data, headers or {})
        answer = connection.getresponse()
        found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return found

    def events(self, path: str, body: Any, headers: dict[str, str] | None = None) -> list[str]:
        """The server-sent events of one request."""
        status, _, raw = self.call(path, body, headers)
        assert status == 200, raw
        return [event for event in raw.decode().split("\n\n") if event]


@contextlib.contextmanager
def live(engine: Any, **options: Any) -> Iterator[Live]:
    """A gateway with one route, ``chat``."""
    with Live(Gateway([route(engine)], **options)) as found:
        yield found


CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hi there"}]}


def deltas(events: Sequence[str]) -> list[dict[str, Any]]:
    """The JSON values of ``data:`` lines, [DONE] left out."""
    lines = [line for event in events for line in event.split("\n") if line.startswith("data: ")]
    return [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]
