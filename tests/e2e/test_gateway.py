"""The gateway over real sockets: streams, clients that leave or read slowly, faults, keys, limits and shut-down."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway_kit import CHAT, Live, Scripted, deltas, live, route, says
from mainspring.llm.gateway import Gateway
from mainspring.llm.keys import digest_of
from mainspring.llm.prompts import Prompt, PromptRegistry, PromptVariable
from mainspring.llm.values import Key, Limits, Timeouts
from mainspring.ports.llm import End, Error, Event, Generation, Start, Text, ToolDelta, Usage
from mainspring.protocols.llm import asking

STREAM = {**CHAT, "stream": True}
ENDLESS: list[Event | float] = [Start(5), Text("one ", 1), 60.0]
WIRES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", {"model": "chat", "prompt": "hi"}),
    ("/v1/responses", {"model": "chat", "input": "hi"}),
    ("/v1/messages", {**CHAT, "max_tokens": 9}),
]


def send(port: int, path: str, body: dict[str, Any]) -> socket.socket:
    """A request on a socket of its own."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def until(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.001)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("path", "body"), WIRES)
def test_trap_1_a_client_that_leaves_cancels_the_engine(path: str, body: dict[str, Any], stream: bool) -> None:
    engine = Scripted(ENDLESS)
    with live(engine) as server:
        connection = send(server.port, path, {**body, "stream": stream})
        until(lambda: engine.pulled >= 2)
        if stream:
            seen = b""
            while b"one " not in seen:
                seen += connection.recv(65536)
        assert engine.under_way == 1
        connection.close()
        until(lambda: engine.under_way == 0)
        until(lambda: server.seen)
        assert server.seen[0][1] == 499
        assert len(engine.gone) == 1
        assert not server.faults
        assert server.call("/v1/models")[0] == 200


def test_a_client_that_leaves_before_the_engine_accepts_cancels_it_too() -> None:
    engine = Scripted([60.0])
    with live(engine) as server:
        connection = send(server.port, "/v1/chat/completions", STREAM)
        until(lambda: engine.under_way == 1)
        connection.close()
        until(lambda: engine.under_way == 0)


def test_trap_2_the_first_piece_is_sent_before_the_second_is_made() -> None:
    gate: dict[str, bool] = {}

    async def held(request: Generation) -> AsyncIterator[Event]:
        import asyncio

        yield Start(1)
        yield Text("first", 1)
        while "go" not in gate:  # the second piece is made only when the client says that it has the first
            await asyncio.sleep(0.001)
        yield Text("second", 1)
        yield End(("stop",), Usage(1, 2))

    for path, body in WIRES:
        gate.clear()
        with live(Scripted(lambda request: held(request))) as server:
            connection = send(server.port, path, {**body, "stream": True})
            seen = b""
            while b"first" not in seen:
                seen += connection.recv(65536)
            assert b"second" not in seen
            gate["go"] = True
            while b"second" not in seen:
                seen += connection.recv(65536)
            connection.close()


def test_trap_4_a_slow_reader_pauses_the_engine_and_memory_stays_flat() -> None:
    piece = "x" * 1000

    async def flood(request: Generation) -> AsyncIterator[Event]:
        yield Start(1)
        for _ in range(200_000):
            engine.pulled += 1
            yield Text(piece, 1)
        yield End(("stop",), Usage(1, 1))

    engine = Scripted(lambda request: flood(request))
    with live(engine) as server:
        connection = send(server.port, "/v1/chat/completions", STREAM)
        connection.recv(1000)
        until(lambda: engine.pulled > 100)
        before = -1
        while before != engine.pulled:  # until nothing moves any more
            before = engine.pulled
            time.sleep(0.3)
        assert engine.pulled < 20_000, "200 MB were on offer; sockets hold a few"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        time.sleep(0.3)
        assert engine.pulled == before
        end = time.monotonic() + 60
        while engine.pulled == before and time.monotonic() < end:
            connection.recv(1 << 16)
        assert engine.pulled > before, "reading on lets it go on"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 50_000
        connection.close()
        until(lambda: engine.under_way == 0)


def test_a_silent_stream_is_kept_alive_with_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asking._BEAT_S == 15.0
    monkeypatch.setattr(asking, "_BEAT_S", 0.05)
    steps = [Start(1), 0.3, Text("late", 1), End(("stop",), Usage(1, 1))]
    with live(Scripted(steps)) as server:
        events = server.events("/v1/chat/completions", STREAM)
        assert events.count(": ping") >= 2
        assert events[-1] == "data: [DONE]"
        events = server.events("/v1/messages", {**STREAM, "max_tokens": 5})
        assert events.count('event: ping\ndata: {"type":"ping"}') >= 2
        assert "late" in events[-4]


def test_a_chat_stream_has_the_shape_of_the_wire() -> None:
    call: list[Event] = [
        Start(5, 2),
        Text("Let me", 2),
        ToolDelta(0, "call_1", "look", '{"a'),
        ToolDelta(0, arguments='":1}'),
        End(("tool_calls",), Usage(5, 9, cached=2, reasoning=1)),
    ]
    body = {**STREAM, "tools": [{"type": "function", "function": {"name": "look"}}]}
    with live(Scripted(call)) as server:
        events = server.events("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
        assert events[-1] == "data: [DONE]"
        chunks = deltas(events)
        assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
        assert chunks[0]["model"] == "chat"
        assert chunks[0]["choices"] == [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        ]
        pieces = [chunk["choices"][0]["delta"].get("tool_calls", [None])[0] for chunk in chunks[2:5]]
        assert pieces == [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"a'}},
            {"index": 0, "function": {"arguments": '":1}'}},
        ]
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 5 + ["tool_calls"]
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"] == {
            "prompt_tokens": 5,
            "completion_tokens": 9,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 1},
        }
        without = deltas(server.events("/v1/chat/completions", body))
        assert all("usage" not in chunk for chunk in without)
        assert all(chunk["choices"] for chunk in without)


def test_trap_5_anthropics_input_tokens_leave_out_what_a_cache_gave() -> None:
    events: list[Event] = [Start(10), Text("x", 1), End(("stop",), Usage(10, 3, cached=4, cache_write=1))]
    with live(Scripted(events)) as server:
        body = {**CHAT, "max_tokens": 9}
        usage = json.loads(server.call("/v1/messages", body)[2])["usage"]
        told = deltas(server.events("/v1/messages", {**body, "stream": True}))
        assert usage == told[-2]["usage"]
        assert usage["input_tokens"] == 5
        assert usage["cache_read_input_tokens"] == 4
        assert usage["cache_creation_input_tokens"] == 1


BROKEN = Error("crashed", "the engine died", retryable=True)


@pytest.mark.parametrize(
    ("error", "status", "kind", "anthropic"),
    [
        (Error("invalid", "x"), 400, "invalid_request_error", "invalid_request_error"),
        (Error("context_length", "x"), 400, "invalid_request_error", "invalid_request_error"),
        (Error("not_found", "x"), 404, "invalid_request_error", "not_found_error"),
        (Error("auth", "x sk-secret"), 502, "server_error", "api_error"),
        (Error("rate", "x", retry_after=99.5), 429, "rate_limit_error", "rate_limit_error"),
        (Error("overloaded", "x"), 503, "service_unavailable_error", "overloaded_error"),
        (Error("timeout", "x"), 504, "timeout_error", "timeout_error"),
        (Error("upstream", "x"), 502, "server_error", "api_error"),
        (BROKEN, 502, "server_error", "api_error"),
    ],
)
def test_trap_10_a_fault_before_the_engine_accepts_has_its_status(
    error: Error, status: int, kind: str, anthropic: str
) -> None:
    for stream in (False, True):
        with live(Scripted([error])) as server:
            found, headers, raw = server.call("/v1/chat/completions", {**CHAT, "stream": stream})
        value = json.loads(raw)["error"]
        assert (found, value["type"]) == (status, kind)
        assert set(value) == {"message", "type", "param", "code"}
        assert "secret" not in value["message"]
        assert len(headers["x-request-id"]) == 24
        assert headers.get("retry-after") == ("100" if error.kind == "rate" else None)
        with live(Scripted([error])) as server:
            found, _, raw = server.call("/v1/messages", {**CHAT, "max_tokens": 9, "stream": stream})
        assert found == status
        assert json.loads(raw)["type"] == "error"
        assert json.loads(raw)["error"]["type"] == anthropic


def test_trap_10_a_fault_after_the_first_piece_ends_the_stream_without_done() -> None:
    with live(Scripted([Start(1), Text("half", 1), BROKEN])) as server:
        events = server.events("/v1/chat/completions", STREAM)
        assert json.loads(events[-1].removeprefix("data: "))["error"]["message"] == "the engine died"
        assert "data: [DONE]" not in events
        events = server.events("/v1/messages", {**STREAM, "max_tokens": 9})
        assert events[-1].startswith("event: error\n")
        assert "message_stop" not in "".join(events)


def test_trap_10_a_response_always_gets_a_last_event_and_keeps_its_calls() -> None:
    called: list[Event] = [Start(1), Text("so", 1), ToolDelta(0, "c1", "look", '{"a":'), BROKEN]
    body = {"model": "chat", "input": "hi", "stream": True, "tools": [{"type": "function", "name": "look"}]}
    with live(Scripted(called)) as server:
        last = deltas(server.events("/v1/responses", body))[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["error"]["message"] == "the engine died"
        assert [item["type"] for item in last["response"]["output"]] == ["message", "function_call"]
        assert last["response"]["output"][1]["arguments"] == '{"a":'
        assert server.call(f"/v1/responses/{last['response']['id']}")[0] == 404, "it failed: it is not kept"
    with live(Scripted(says("cut", reason="length"))) as server:
        last = deltas(server.events("/v1/responses", body))[-1]
        assert last["type"] == "response.incomplete"
        assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_an_engine_that_says_nothing_more_ends_the_stream_with_a_timeout() -> None:
    with Live(Gateway([route(Scripted(ENDLESS), timeouts=Timeouts(between=0.05))])) as server:
        events = server.events("/v1/chat/completions", STREAM)
        assert json.loads(events[-1].removeprefix("data: "))["error"]["type"] == "timeout_error"


def key(name: str, **fields: Any) -> Key:
    return Key(id=name, digest=digest_of(f"key-{name}"), **fields)


def test_keys_models_and_limits() -> None:
    keys = [
        key("web", limits=Limits(requests=2, tokens=20_000)),
        key("tiny", models=frozenset({"other"})),
        key("poor", limits=Limits(tokens=10)),
    ]
    routes = [route(Scripted(says("x"))), route(Scripted(says("y")), "other")]
    with Live(Gateway(routes, keys=keys)) as server:
        for headers in ({}, {"authorization": "Bearer no"}, {"x-api-key": "no"}):
            status, found, raw = server.call("/v1/chat/completions", CHAT, headers)
            assert status == 401
            assert json.loads(raw)["error"]["type"] == "authentication_error"
            assert found["www-authenticate"] == "Bearer"
            status, _, raw = server.call("/v1/messages", {**CHAT, "max_tokens": 1}, headers)
            assert (status, json.loads(raw)["error"]["type"]) == (401, "authentication_error")
            assert server.call("/v1/models", headers=headers)[0] == 401
        web = {"authorization": "Bearer key-web"}
        status, found, _ = server.call("/v1/chat/completions", CHAT, web)
        assert status == 200
        assert (found["x-ratelimit-limit-requests"], found["x-ratelimit-remaining-requests"]) == ("2", "1")
        assert found["x-ratelimit-limit-tokens"] == "20000"
        assert int(found["x-ratelimit-remaining-tokens"]) < 20_000
        assert found["x-ratelimit-reset-tokens"].endswith("s")
        assert server.events("/v1/chat/completions", STREAM, web)[-1] == "data: [DONE]"
        status, found, raw = server.call("/v1/chat/completions", CHAT, web)
        assert status == 429
        assert 1 <= int(found["retry-after"]) <= 60
        assert json.loads(raw)["error"]["code"] == "rate_limit_exceeded"
        tiny = {"x-api-key": "key-tiny"}
        assert server.call("/v1/chat/completions", CHAT, tiny)[0] == 404
        assert server.call("/v1/chat/completions", {**CHAT, "model": "other"}, tiny)[0] == 200
        assert [m["id"] for m in json.loads(server.call("/v1/models", headers=tiny)[2])["data"]] == ["other"]
        status, found, raw = server.call("/v1/chat/completions", CHAT, {"x-api-key": "key-poor"})
        assert status == 429
        assert "retry-after" not in found
        assert found["x-should-retry"] == "false"
        assert b"key-" not in raw


def test_declared_prompts_are_used_by_name_on_the_wires() -> None:
    greet = Prompt(
        name="greet",
        system="Be {{ mood }}.",
        template="Greet {{ who }}.",
        variables=(PromptVariable("who"), PromptVariable("mood", default="kind")),
        model="chat",
        max_tokens=7,
    )
    engine = Scripted(says("x"))
    with Live(Gateway([route(engine)], prompts=PromptRegistry([greet]))) as server:
        use = {"id": "greet", "variables": {"who": "Ann"}}
        assert server.call("/v1/chat/completions", {"prompt": use})[0] == 200
        status, _, raw = server.call("/v1/responses", {"prompt": use, "input": "And Bob."})
        assert status == 200
        assert json.loads(raw)["model"] == "chat"
        texts = [[message.text for message in request.messages] for request in engine.requests]
        assert texts == [["Be kind.", "Greet Ann."], ["Be kind.", "Greet Ann.", "And Bob."]]
        assert engine.requests[0].sampling.max_tokens == 7
        for wrong, why in (
            ({"id": "nope"}, "no prompt"),
            ({"id": "greet"}, "missing"),
            ({**use, "version": "x"}, "'x'"),
        ):
            status, _, raw = server.call("/v1/chat/completions", {"prompt": wrong})
            assert status == 400
            assert why in json.loads(raw)["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "no"}}, "tools": []}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}, "response_format"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}
                ]
            },
            "messages[0].content[0].image_url",
        ),
    ],
)
def test_bad_requests_name_the_field_and_are_not_sent(body: dict[str, Any], param: str) -> None:
    engine = Scripted(says("x"))
    with live(engine) as server:
        status, _, raw = server.call("/v1/chat/completions", {**CHAT, **body})
        assert status == 400, raw
        assert json.loads(raw)["error"]["param"] == param
        assert not engine.requests


def test_bodies_that_are_no_json_or_too_large_are_refused_in_the_wires_shape() -> None:
    with live(Scripted(says("x"))) as server:
        for body in (b"", b"{", b"[]", b"\xff", b'{"model": "chat", "messages": ' + b"[" * 100_000):
            status, _, raw = server.call("/v1/chat/completions", body, method="POST")
            assert status == 400
            assert json.loads(raw)["error"]["type"] == "invalid_request_error"
        status, _, raw = server.call("/v1/chat/completions", b"x" * ((1 << 20) + 1))
        assert status == 413
        assert set(json.loads(raw)["error"]) == {"message", "type", "param", "code"}
        assert (
            json.loads(server.call("/v1/messages", b"x" * ((1 << 20) + 1))[2])["error"]["type"] == "request_too_large"
        )
        assert not server.faults


def test_sigterm_lets_streams_end_and_takes_nothing_new(tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "gateway_server.py"
    process = subprocess.Popen(
        [sys.executable, str(program), "0.4"], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ""}
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        connection = send(port, "/v1/chat/completions", STREAM)
        seen = connection.recv(65536)
        while b"first" not in seen:
            seen += connection.recv(65536)
        process.send_signal(signal.SIGTERM)
        while part := connection.recv(65536):
            seen += part
            if b"[DONE]" in seen:
                break
        assert b"second" in seen
        assert b"data: [DONE]" in seen
        with pytest.raises(ConnectionError):
            send(port, "/v1/chat/completions", STREAM)
        assert process.wait(60) == 0
        connection.close()
    finally:
        process.kill()
        process.communicate()
