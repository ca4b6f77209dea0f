"""A gateway whose upstream is a gateway: through our own client and wire, nothing is lost and nobody is forgotten."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_kit import CHAT, Live, Scripted, deltas, route, says
from mainspring.adapters.openai.engine import open_engine
from mainspring.adapters.openai.settings import OpenAISettings
from mainspring.llm.gateway import Gateway
from mainspring.ports.llm import End, Error, Event, Generation, Start, Text, ToolDelta, Usage
from mainspring.testing.engine import Answer, FakeEngine

STREAM = {**CHAT, "stream": True}


def answer(request: Generation) -> list[Event | float]:
    said = request.messages[-1].text
    if said == "wait":
        return [Start(5), Text("one ", 1), 60.0]
    if said == "break":
        return [Start(5), Text("one ", 1), Error("crashed", "the engine died")]
    if request.tools:
        call = [ToolDelta(0, "c1", "look", '{"a":'), ToolDelta(0, arguments="1}")]
        return [Start(5), *call, End(("tool_calls",), Usage(5, 4))]
    return [*says("Grüezi, ", "漢字 ", "🙂")]


@pytest.fixture
def inner() -> Scripted:
    return Scripted(answer)


@pytest.fixture
def outer(inner: Scripted) -> Iterator[Live]:
    with Live(Gateway([route(inner, "inner")])) as behind:
        engine = open_engine(OpenAISettings(url=f"{behind.url}/v1", model="inner"), Path())
        with Live(Gateway([route(engine)])) as front:
            yield front
            asyncio.run_coroutine_threadsafe(engine.drain(1.0), front.loop).result(60)


def test_an_answer_comes_through_two_gateways_unchanged(outer: Live) -> None:
    status, _, raw = outer.call("/v1/chat/completions", CHAT)
    assert status == 200, raw
    whole = json.loads(raw)
    assert whole["choices"][0]["message"]["content"] == "Grüezi, 漢字 🙂"
    assert whole["model"] == "chat"
    assert whole["usage"]["total_tokens"] == 8
    chunks = deltas(outer.events("/v1/chat/completions", STREAM))
    said = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert said == ["", "Grüezi, ", "漢字 ", "🙂", ""], "no piece waits for the next"
    assert all("usage" not in chunk for chunk in chunks), "asked for upstream, and kept from who did not ask"
    tools = [{"type": "function", "function": {"name": "look"}}]
    call = json.loads(outer.call("/v1/chat/completions", {**CHAT, "tools": tools})[2])["choices"][0]
    assert call["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"a":1}'}
    assert call["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels_the_engine_behind_both(outer: Live, inner: Scripted, stream: bool) -> None:
    data = json.dumps({**CHAT, "messages": [{"role": "user", "content": "wait"}], "stream": stream}).encode()
    connection = socket.create_connection(("127.0.0.1", outer.port), timeout=60)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    end = time.monotonic() + 60
    while inner.pulled < 2 and time.monotonic() < end:
        time.sleep(0.005)
    assert inner.under_way == 1
    connection.close()
    while inner.under_way and time.monotonic() < end:
        time.sleep(0.005)
    assert inner.under_way == 0


def test_a_fault_behind_both_is_an_error_event(outer: Live) -> None:
    events = outer.events("/v1/chat/completions", {**STREAM, "messages": [{"role": "user", "content": "break"}]})
    assert "[DONE]" not in events[-1]
    assert "error" in json.loads(events[-1].removeprefix("data: "))


def test_the_scripted_engine_of_users_tests_stands_behind_a_gateway() -> None:
    engine = FakeEngine([Answer(when="refund", text="Within 30 days.")], models=("inner",))
    with Live(Gateway([route(engine)])) as server:
        body = {**CHAT, "messages": [{"role": "user", "content": "a refund?"}]}
        found = json.loads(server.call("/v1/chat/completions", body)[2])
        assert found["choices"][0]["message"]["content"] == "Within 30 days."
        assert found["usage"]["completion_tokens"] > 0
        long = {**CHAT, "messages": [{"role": "user", "content": "word " * 5000}]}
        status, _, raw = server.call("/v1/chat/completions", long)
        assert status == 400
        assert "(set by the fake engine)" in json.loads(raw)["error"]["message"]
