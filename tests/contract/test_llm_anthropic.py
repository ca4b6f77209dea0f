"""Anthropic's wire, against a server that answers as its reference says, and against every fault of a script."""

import asyncio
import json

import msgspec
import pytest

from llm_upstreams import END, HANG, HEAD, KEY, LOSE, Scripted, chunked, response
from mainspring.adapters.anthropic import ADAPTER
from mainspring.adapters.anthropic.engine import AnthropicEngine, open_engine
from mainspring.adapters.anthropic.health import health
from mainspring.adapters.anthropic.settings import AnthropicSettings
from mainspring.choose.services import Services
from mainspring.errors import ConfigError
from mainspring.ports.llm import (
    EmbedRequest,
    End,
    Engine,
    Error,
    Failed,
    Generation,
    Image,
    Message,
    Ready,
    Reasoning,
    Relay,
    Sampling,
    Schema,
    Start,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolDelta,
    Usage,
)
from mainspring.testing.llm import all_of, calls_of, chat, ended, text_of

QUICK = AnthropicSettings(model="claude", key=KEY, first_token=5.0, inter_token=5.0)
TOOL = Tool("weather", "of a city", {"type": "object", "properties": {"city": {"type": "string"}}})


def stream(*payloads):
    """Events with their names, as the reference has them."""
    return chunked(b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in payloads))


def begun(**usage):
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude"}
    return {"type": "message_start", "message": {**message, "usage": {"input_tokens": 25, "output_tokens": 1, **usage}}}


def block(index, kind, **more):
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **more}}


def piece(index, kind, **more):
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **more}}


def stopped(reason, output=15, **more):
    delta = {"stop_reason": reason, "stop_sequence": None, **more}
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": output}}


CLOSED = {"type": "content_block_stop", "index": 0}
STOP = {"type": "message_stop"}
PING = {"type": "ping"}
TEXT = [
    begun(),
    block(0, "text", text=""),
    PING,
    piece(0, "text_delta", text="Hel"),
    piece(0, "text_delta", text="lo"),
    CLOSED,
]
GOOD = [HEAD, stream(*TEXT), stream(stopped("end_turn"), STOP), END]


def asked(*scripts, request=None, settings=QUICK, play=None):
    async def run():
        async with Scripted(*scripts) as server:
            engine = AnthropicEngine(msgspec.structs.replace(settings, url=server.url.removesuffix("/v1")))
            found = await (play(engine, server) if play else all_of(engine.generate(request or chat("Hi"))))
            await engine.drain(0.0)
            return found, server

    return asyncio.run(run())


def test_events_of_a_plain_stream():
    events, server = asked(GOOD)
    assert events == [Start(25, 0), Text("Hel"), Text("lo"), End(("stop",), Usage(25, 15), stopped_by=("",))]
    head = server.requests[0][0].decode()
    assert head.startswith("POST /v1/messages HTTP/1.1\r\n")
    assert f"x-api-key: {KEY}\r\n" in head
    assert "anthropic-version: 2023-06-01\r\n" in head
    assert server.bodies() == [
        {
            "model": "claude",
            "stream": True,
            "max_tokens": 24,
            "temperature": 0.0,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        }
    ]


def test_input_tokens_leave_the_cache_out_and_ours_do_not():
    start = begun(cache_read_input_tokens=1000, cache_creation_input_tokens=200)
    events, _ = asked([HEAD, stream(start, *TEXT[1:], stopped("max_tokens"), STOP), END])
    assert events[0] == Start(1225, 1000)
    assert ended(events) == End(("length",), Usage(1225, 15, 1000, 200), stopped_by=("",))


@pytest.mark.parametrize(
    ("reason", "more", "ours", "by"),
    [
        ("end_turn", {}, "stop", ""),
        ("stop_sequence", {"stop_sequence": "###"}, "stop", "###"),
        ("max_tokens", {}, "length", ""),
        ("model_context_window_exceeded", {}, "length", ""),
        ("refusal", {}, "content_filter", ""),
        ("something_new", {}, "stop", ""),
    ],
)
def test_reasons(reason, more, ours, by):
    events, _ = asked([HEAD, stream(*TEXT, stopped(reason, **more), STOP), END])
    assert (ended(events).reasons, ended(events).stopped_by) == ((ours,), (by,))


def test_thoughts_text_and_tools():
    payloads = [
        begun(),
        block(0, "thinking", thinking=""),
        piece(0, "thinking_delta", thinking="hm"),
        piece(0, "signature_delta", signature="x"),
        block(1, "text", text=""),
        piece(1, "text_delta", text="Let me look."),
        block(2, "tool_use", id="toolu_1", name="weather", input={}),
        piece(2, "input_json_delta", partial_json=""),
        piece(2, "input_json_delta", partial_json='{"city": "Ro'),
        piece(2, "input_json_delta", partial_json='me"}'),
        block(3, "tool_use", id="toolu_2", name="clock", input={}),
        block(4, "something_new"),
        stopped("tool_use"),
        STOP,
    ]
    events, _ = asked([HEAD, stream(*payloads), END])
    assert [event for event in events if isinstance(event, Reasoning)] == [Reasoning("hm")]
    assert text_of(events) == "Let me look."
    assert calls_of(events) == {0: ("toolu_1", "weather", '{"city": "Rome"}'), 1: ("toolu_2", "clock", "")}
    assert ended(events).reasons == ("tool_calls",)


def test_an_upstream_that_does_not_stream():
    whole = {
        "type": "message",
        "content": [{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    }
    events, _ = asked([response(json.dumps(whole).encode())])
    assert events == [
        Start(3, 0), Text("Hi"), ToolDelta(0, "t", "f"), ToolDelta(0, arguments='{"a":1}'),
        End(("tool_calls",), Usage(3, 4), stopped_by=("",)),
    ]  # fmt: skip


def test_a_schema_is_a_tool_that_must_be_called_and_its_arguments_are_the_text():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    payloads = [
        begun(),
        block(0, "tool_use", id="t", name="answer", input={}),
        piece(0, "input_json_delta", partial_json='{"a"'),
        piece(0, "input_json_delta", partial_json=": 1}"),
        stopped("tool_use"),
        STOP,
    ]
    request = msgspec.structs.replace(chat("Hi"), schema=Schema(schema))
    events, server = asked([HEAD, stream(*payloads), END], request=request)
    assert (text_of(events), calls_of(events), ended(events).reasons) == ('{"a": 1}', {}, ("stop",))
    body = server.bodies()[0]
    assert body["tool_choice"] == {"type": "tool", "name": "answer"}
    assert body["tools"][0]["input_schema"] == schema


def test_everything_that_can_be_asked_for():
    turns = (
        Message("system", ("Be kind.",)),
        Message("user", ("look", Image(b"abc", "image/png"))),
        Message(
            "assistant", ("So.",), calls=(ToolCall("c1", "weather", '{"city":"Rome"}'), ToolCall("c2", "f", "{bad"))
        ),
        Message("tool", ("Sunny",), answers="c1"),
        Message("tool", ("?",), answers="c2"),
        Message("user", ("And?",)),
        Message("system", ("Be brief.",)),
    )
    sampling = Sampling(temperature=0.5, top_p=0.9, top_k=5, stop=("x",))
    request = Generation(
        "r", "", turns, sampling=sampling, tools=(TOOL,), choice=ToolChoice("required", parallel=False), user="u",
        extra={"service_tier": "auto", "model": "evil"},
    )  # fmt: skip
    _, server = asked(GOOD, request=request, settings=msgspec.structs.replace(QUICK, max_tokens=99, body={"top_k": 6}))
    assert server.bodies()[0] == {
        "service_tier": "auto",
        "model": "claude",
        "stream": True,
        "max_tokens": 99,
        "system": "Be kind.\n\nBe brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "YWJj"}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "So."},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}},
                    {"type": "tool_use", "id": "c2", "name": "f", "input": {"arguments": "{bad"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "Sunny"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "?"},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 6,
        "stop_sequences": ["x"],
        "metadata": {"user_id": "u"},
        "tools": [{"name": "weather", "description": "of a city", "input_schema": dict(TOOL.parameters)}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }
    for choice, wire in (("auto", {"type": "auto"}), ("none", {"type": "none"})):
        _, server = asked(GOOD, request=msgspec.structs.replace(chat("x"), tools=(TOOL,), choice=ToolChoice(choice)))
        assert server.bodies()[0]["tool_choice"] == wire
    _, server = asked(
        GOOD, request=msgspec.structs.replace(chat("x"), tools=(TOOL,), choice=ToolChoice("named", "weather"))
    )
    assert server.bodies()[0]["tool_choice"] == {"type": "tool", "name": "weather"}


def test_what_this_wire_cannot():
    cases = [
        chat("x", sampling=Sampling(n=2)),
        chat("x", sampling=Sampling(logprobs=1)),
        chat("x", sampling=Sampling(logit_bias={1: 1.0})),
        chat("x", sampling=Sampling(temperature=1.5)),
        msgspec.structs.replace(chat("x"), tools=(TOOL,), schema=Schema()),
        Generation("r", "", prompt="bare"),
        msgspec.structs.replace(chat("x"), messages=()),
    ]
    for request in cases:
        (error,), server = asked(GOOD, request=request)
        assert (error.kind, server.requests) == ("invalid", [])
    assert asked(GOOD, play=lambda engine, _: engine.embed(EmbedRequest("e", "", ("a",))))[0].kind == "invalid"
    assert asked(GOOD, play=lambda engine, _: engine.tokenize("a"))[0] is None


def fault(status, kind, message="", **headers):
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    return [response(body, status=f"{status} Oh", **headers)]


def failing(kind, message=""):
    return [HEAD, stream(*TEXT[:4], {"type": "error", "error": {"type": kind, "message": message}}), END]


@pytest.mark.parametrize(
    ("script", "kind", "retryable", "after", "told"),
    [
        (
            fault(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
            "context_length",
            False,
            None,
            "210000",
        ),
        (fault(400, "invalid_request_error", "messages: odd"), "invalid", False, None, "odd"),
        (fault(401, "authentication_error", f"invalid x-api-key {KEY}"), "auth", False, None, "401"),
        (fault(404, "not_found_error", "model: claude-9"), "not_found", False, None, "claude-9"),
        (fault(413, "request_too_large", "32 MB"), "invalid", False, None, "32 MB"),
        (fault(429, "rate_limit_error", "slow", retry_after="11"), "rate", True, 11.0, "429"),
        (fault(500, "api_error", "Internal at /srv"), "upstream", True, None, "500"),
        (fault(529, "overloaded_error", "Overloaded"), "overloaded", True, None, "529"),
        (failing("overloaded_error", "Overloaded"), "overloaded", True, None, "failed while"),
        (failing("api_error", "/srv/x.py"), "upstream", True, None, "failed while"),
        (failing("invalid_request_error", "odd"), "invalid", False, None, "odd"),
        ([HEAD, stream(*TEXT), END], "upstream", True, None, "ended early"),
        ([HEAD, stream(*TEXT), LOSE], "upstream", True, None, "lost"),
        ([HEAD, chunked(b"data: nothing\n\n"), END], "upstream", True, None, "garbage"),
        ([HEAD, chunked(b"data: 3\n\n"), END], "upstream", True, None, "garbage"),
    ],
)
def test_faults(script, kind, retryable, after, told):
    events, _ = asked(script)
    error = events[-1]
    assert isinstance(error, Error)
    assert (error.kind, error.retryable, error.retry_after) == (kind, retryable, after)
    assert told in error.message
    assert KEY not in error.message
    assert "/srv" not in error.message


def test_who_leaves_closes_the_upstream():
    async def play(engine, server):
        events = []
        async for event in engine.generate(chat("Hi")):
            events.append(event)
            if isinstance(event, Text):
                await engine.cancel("r")
        for _ in range(6000):
            if server.left:
                break
            await asyncio.sleep(0.01)
        return events, server.left

    (events, left), _ = asked([HEAD, stream(*TEXT[:4]), HANG], play=play)
    assert (ended(events).reasons, ended(events).usage, left) == (("cancelled",), Usage(25, 1), 1)


def test_starting_counting_and_health():
    async def play(engine, server):
        assert isinstance(engine, Engine)
        assert isinstance(engine, Relay)
        return await engine.start(), health(engine)

    (ready, shown), server = asked(GOOD, play=play)
    assert isinstance(ready, Ready)
    assert shown == {"models": ["claude"], "context": None}
    assert server.bodies()[0]["max_tokens"] == 1
    (failed, _), _ = asked(fault(401, "authentication_error"), play=play)
    assert isinstance(failed, Failed)
    assert failed.fix
    counted = [response(b'{"input_tokens": 120}')]
    limited = msgspec.structs.replace(QUICK, context=100)
    events, server = asked(counted, request=chat("x" * 500), settings=limited)
    assert events == [
        Error(
            "context_length",
            "the prompt has 120 tokens, the context of claude 100; the setting context sets it",
            status=400,
        )
    ]
    assert server.requests[0][0].startswith(b"POST /v1/messages/count_tokens ")
    assert set(server.bodies()[0]) == {"model", "messages"}
    events, _ = asked(fault(404, "not_found_error"), GOOD, request=chat("x" * 500), settings=limited)
    assert text_of(events) == "Hello"


def test_bytes_pass_as_they_are():
    async def play(engine, server):
        relayed = await engine.relay("x", "/messages", b'{"any": 1}')
        return relayed.status, b"".join([data async for data in relayed.chunks])

    (status, data), server = asked(GOOD, play=play)
    assert status == 200
    assert data.endswith(b'data: {"type": "message_stop"}\n\n')
    assert server.requests[0][1] == b'{"any": 1}'


def test_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", KEY)
    (tmp_path / "mainspring.toml").write_text(
        'app = "a:app"\n[llms.chat]\nadapter = "anthropic"\nmodel = "claude"\nkey = "env:A_KEY"\n', "utf-8"
    )
    engine = Services.of_project(tmp_path).engine("chat")
    assert engine._client.place.tls
    assert engine._client.place.host == "api.anthropic.com"
    shown = [repr(engine._settings), repr(engine._client.place), repr(engine)]
    assert not [text for text in shown if KEY in text]
    for settings in (
        AnthropicSettings(model="m", url="api.anthropic.com"),
        AnthropicSettings(model="m", key="a\nb"),
        AnthropicSettings(model="m", headers={"x": "\x00"}),
    ):
        with pytest.raises(ConfigError) as caught:
            open_engine(settings, tmp_path)
        assert caught.value.code == "MS-3056"
    assert ADAPTER.schemes == ()
