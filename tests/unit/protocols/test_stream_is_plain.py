"""A plain answer is the fold of the stream: on every wire, for a thousand made-up answers, however they are cut."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_kit import Scripted, deltas, route
from mainspring.llm.gateway import Gateway
from mainspring.llm.stored import StoredResponses
from mainspring.ports.llm import End, Event, Reasoning, Start, Text, TokenLogprob, ToolDelta, Usage
from mainspring.protocols.http import Request, Router
from mainspring.protocols.llm.mount import add_llm_routes

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
WORDS = st.text(st.sampled_from('ab \n"\\é漢🙂{}:,'), max_size=8)
COUNTS = st.integers(0, 50)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[Event], int, tuple[str, ...]]:
    """Events of an answer with texts, thoughts and tool calls in any order, choices interleaved; n; stop texts."""
    choices = draw(st.integers(1, 3))
    lanes: list[list[Event]] = []
    for choice in range(choices):
        events: list[Event] = []
        calls = 0
        for kind in draw(st.lists(st.sampled_from(["text", "text", "think", "call"]), max_size=4)):
            pieces = draw(st.lists(draw(st.sampled_from([TEXT, WORDS])), min_size=1, max_size=4))
            if kind == "text":
                logs = draw(st.booleans())
                events += [
                    Text(piece, 1, choice, (TokenLogprob(piece, -0.5, 7, (TokenLogprob("x", -1.0),)),) if logs else ())
                    for piece in pieces
                ]
            elif kind == "think":
                events += [Reasoning(piece, 1, choice) for piece in pieces]
            else:
                events.append(ToolDelta(calls, f"call_{choice}{calls}", f"tool{calls}", pieces[0], choice))
                events += [ToolDelta(calls, "", "", piece, choice) for piece in pieces[1:]]
                calls += 1
        lanes.append(events)
    mixed: list[Event] = []
    while any(lanes):
        lane = draw(st.sampled_from([lane for lane in lanes if lane]))
        mixed.append(lane.pop(0))
    reasons = tuple(draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"])) for _ in range(choices))
    cached = draw(COUNTS)
    usage = Usage(cached + draw(COUNTS), draw(COUNTS) + 5, cached=cached, reasoning=draw(st.integers(0, 5)))
    stops = tuple(draw(st.lists(st.sampled_from(["ab", "b ", "é漢", '"']), max_size=2)))
    return [Start(usage.prompt, cached), *mixed, End(reasons, draw(st.sampled_from([usage, None])))], choices, stops


class Wires:
    def __init__(self, events: list[Event]) -> None:
        self.router = Router()
        stored = StoredResponses(None, lambda: 1e9)
        add_llm_routes(self.router, Gateway([route(Scripted(events))]), stored, lambda: 1e9)

    async def ask(self, path: str, body: dict[str, Any]) -> bytes:
        handler, _, stars = self.router.find("POST", path.encode())
        answer = await handler(Request("POST", path, b"", {}, json.dumps(body).encode(), stars))
        if answer.stream is None:
            return answer.body
        parts = b"".join([part async for part in answer.stream])
        assert answer.closed is not None
        await answer.closed()
        return parts

    async def both(self, path: str, body: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
        plain = json.loads(await self.ask(path, body))
        stream = await self.ask(path, {**body, "stream": True})
        return plain, deltas(stream.decode().split("\n\n"))


TOOLS = [{"name": f"tool{n}", "parameters": {"type": "object"}} for n in range(4)]


def chat_of(chunks: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"text": "", "think": "", "calls": {}, "logs": []} for _ in range(n)]
    for chunk in chunks:
        for part in chunk["choices"]:
            choice, delta = found[part["index"]], part["delta"]
            choice["text"] += delta.get("content") or ""
            choice["think"] += delta.get("reasoning_content") or ""
            choice["logs"] += (part.get("logprobs") or {}).get("content") or []
            for call in delta.get("tool_calls", ()):
                kept = choice["calls"].setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                kept["id"] += call.get("id", "")
                kept["name"] += call["function"].get("name", "")
                kept["arguments"] += call["function"]["arguments"]
            if part["finish_reason"] is not None:
                assert "finish" not in choice, "a choice ends once"
                choice["finish"] = part["finish_reason"]
    return found


def chat_of_plain(plain: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "text": choice["message"]["content"] or "",
            "think": choice["message"].get("reasoning_content", ""),
            "calls": {
                n: {"id": call["id"], **call["function"]}
                for n, call in enumerate(choice["message"].get("tool_calls", ()))
            },
            "logs": (choice["logprobs"] or {}).get("content") or [],
            "finish": choice["finish_reason"],
        }
        for choice in plain["choices"]
    ]


def response_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    items: dict[int, dict[str, Any]] = {}
    for event in events:
        kind = event["type"]
        if kind == "response.output_item.added":
            items[event["output_index"]] = {"item": event["item"], "text": ""}
        elif kind.endswith(".delta"):
            assert items[event["output_index"]]["item"]["id"] == event["item_id"]
            items[event["output_index"]]["text"] += event["delta"]
        elif kind == "response.output_item.done":
            items[event["output_index"]]["done"] = event["item"]
    for found in items.values():
        done = found["done"]
        assert found["text"] == (done["arguments"] if done["type"] == "function_call" else done["content"][0]["text"])
    return [items[place]["done"] for place in sorted(items)]


def message_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    texts: list[str] = []
    last: dict[str, Any] = {}
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(content)
            content.append(event["content_block"])
            texts.append("")
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            texts[event["index"]] += delta.get("text") or delta.get("thinking") or delta.get("partial_json") or ""
        elif event["type"] == "message_delta":
            last = {**event["delta"], "usage": event["usage"]}
    for block, text in zip(content, texts, strict=True):
        if block["type"] == "tool_use":
            try:
                value = json.loads(text or "{}")
            except ValueError:
                value = {}
            block["input"] = value if isinstance(value, dict) else {}
        else:
            block["text" if block["type"] == "text" else "thinking"] = text
    return {"content": content, **last}


async def compare(events: list[Event], n: int, stops: tuple[str, ...]) -> None:
    wires = Wires(events)
    functions = [{"type": "function", "function": tool} for tool in TOOLS]
    chat = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "n": n, "logprobs": True}
    chat |= {"tools": functions, "stop": list(stops)}
    plain, chunks = await wires.both("/v1/chat/completions", {**chat, "stream_options": {"include_usage": True}})
    assert chat_of(chunks, n) == chat_of_plain(plain)
    assert chunks[-1]["usage"] == plain["usage"]

    texts = {"model": "chat", "prompt": "hi", "n": n, "logprobs": 1, "stop": list(stops)}
    plain, chunks = await wires.both("/v1/completions", texts)
    streamed = ["".join(c["text"] for k in chunks for c in k["choices"] if c["index"] == choice) for choice in range(n)]
    assert streamed == [choice["text"] for choice in plain["choices"]]

    if n > 1:
        return
    flat = [{"type": "function", **tool} for tool in TOOLS]
    body = {"model": "chat", "input": "hi", "tools": flat, "top_logprobs": 1}
    plain, told = await wires.both("/v1/responses", body)
    assert response_of(told) == told[-1]["response"]["output"]
    assert unnamed(told[-1]["response"]["output"]) == unnamed(plain["output"])
    assert {k: v for k, v in told[-1]["response"].items() if k not in ("id", "output")} == {
        k: v for k, v in plain.items() if k not in ("id", "output")
    }

    tools = [{"name": tool["name"], "input_schema": tool["parameters"]} for tool in TOOLS]
    body = {"model": "chat", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "tools": tools}
    plain, told = await wires.both("/v1/messages", {**body, "stop_sequences": list(stops)})
    found = message_of(told)
    assert found == {name: plain[name] for name in ("content", "stop_reason", "stop_sequence", "usage")}
    assert [event["type"] for event in told][-1] == "message_stop"


def unnamed(value: Any) -> Any:
    """Ids differ from request to request."""
    if isinstance(value, dict):
        return {name: unnamed(part) for name, part in value.items() if name not in ("id", "item_id")}
    return [unnamed(part) for part in value] if isinstance(value, list) else value


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(answers())
def test_plain_is_the_folded_stream(case: tuple[list[Event], int, tuple[str, ...]]) -> None:
    asyncio.run(compare(*case))
