"""What a request costs, counted in calls and not in time: a step that is added by accident shows here."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType
from typing import Any

from mainspring.llm.cost import Price, PriceTable
from mainspring.llm.gateway import Gateway
from mainspring.llm.keys import digest_of
from mainspring.llm.record import Recorder
from mainspring.llm.stored import StoredResponses
from mainspring.llm.values import Key, Limits, Route, Target
from mainspring.ports.llm import Capabilities, End, Event, Generation, Start, Text, Usage
from mainspring.protocols.http import Router
from mainspring.protocols.llm.mount import add_llm_routes
from mainspring.server.http.asgi import Limits as Sizes
from mainspring.server.http.asgi import Listener

OURS = str(Path(sys.modules["mainspring"].__file__ or "").parent)
MOST = 130
"""Calls of our own functions, and resumptions of our coroutines, for one plain request with every step on."""
BODY = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}).encode()
SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v1/chat/completions",
    "raw_path": b"/v1/chat/completions",
    "query_string": b"",
    "headers": [(b"authorization", b"Bearer sk-1"), (b"content-length", b"%d" % len(BODY))],
    "client": ("127.0.0.1", 1),
}


class Memory:
    def capabilities(self) -> Capabilities:
        return Capabilities()

    async def generate(self, request: Generation) -> AsyncIterator[Event]:
        yield Start(5)
        yield Text("hello", 1)
        yield End(("stop",), Usage(5, 1))


def listener() -> Listener:
    limits = Limits(requests=100, tokens=10_000, concurrent=10, money_micro=10**9)
    targets = tuple(Target(name=name, engine=Memory(), model="m", provider="p") for name in ("a", "b"))  # type: ignore[arg-type]
    gateway = Gateway(
        [Route(name="chat", targets=targets, limits=limits)],
        keys=[Key(id="k", digest=digest_of("sk-1"), tenant="t", limits=limits)],
        tenants={"t": limits},
        prices=PriceTable([Price(provider="p", model="m", version="1", input=150_000, output=600_000)]),
        recorder=Recorder([]),
    )
    router = Router()
    add_llm_routes(router, gateway, StoredResponses(None, time.time))
    return Listener(router, Sizes(1 << 20, 30.0))


def test_a_plain_request_takes_no_more_calls_than_it_did() -> None:
    app = listener()
    sent: list[Any] = []
    calls: list[str] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            calls.append(frame.f_code.co_qualname)

    async def scenario() -> None:
        await app(SCOPE, receive, send)  # what is made once is made
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            await app(SCOPE, receive, send)
        finally:
            sys.setprofile(before)

    asyncio.run(scenario())
    assert [message["status"] for message in sent if "status" in message] == [200, 200]
    assert json.loads(sent[-1]["body"])["choices"][0]["message"]["content"] == "hello"
    assert len(calls) <= MOST, f"{len(calls)} calls: {calls}"
