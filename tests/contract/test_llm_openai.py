"""The OpenAI wire, against the one contract (llama.cpp's own server) and every fault that a script can do."""

import asyncio
import contextlib
import datetime as dt
import email.utils
import json

import msgspec
import orjson
import pytest

from llm_upstreams import (
    END,
    HANG,
    HEAD,
    KEY,
    LOSE,
    Scripted,
    certificates,
    chunked,
    delta,
    llama_server,
    response,
    sse,
)
from mainspring.adapters.openai import ADAPTER
from mainspring.adapters.openai.engine import OpenAIEngine, open_engine
from mainspring.adapters.openai.health import health
from mainspring.adapters.openai.settings import OpenAISettings
from mainspring.choose.services import Services
from mainspring.errors import ConfigError
from mainspring.ports.llm import (
    Embeddings,
    EmbedRequest,
    End,
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
from mainspring.testing.llm import EngineContract, OnLoop, all_of, calls_of, chat, ended, text_of

QUICK = OpenAISettings(model="m", key=KEY, first_token=5.0, inter_token=5.0)
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
DONE = b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def upstream():
    with llama_server(embedding=True) as url:
        yield OpenAISettings(url=url, model="smollm2", key=KEY, embeddings=True, total=300.0, first_token=120.0)


@pytest.fixture(scope="module")
def llm(upstream):
    with OnLoop(lambda: OpenAIEngine(upstream)) as one:
        yield one


class TestOpenAI(EngineContract):
    """llama.cpp's server ignores a tool that must be called when its template knows none, and cannot count a chat."""

    exact = False
    refuses_keywords = False

    @pytest.fixture
    def another(self, upstream):
        with contextlib.ExitStack() as stack:
            yield lambda: stack.enter_context(OnLoop(lambda: OpenAIEngine(upstream)))

    def test_a_named_tool_is_called(self):
        """Our own engine does that better than its server, which leaves it to the template."""

    test_some_tool_is_required = test_what_a_tool_answered_is_part_of_the_conversation = test_a_named_tool_is_called


def asked(*scripts, request=None, settings=QUICK, play=None, tls=None):
    """Events of a request, or what `play` gives, with an upstream that answers so; and the upstream."""

    async def run():
        async with Scripted(*scripts, tls=tls) as server:
            engine = OpenAIEngine(msgspec.structs.replace(settings, url=server.url))
            found = await (play(engine, server) if play else all_of(engine.generate(request or chat("Hi"))))
            await engine.drain(0.0)
            return found, server

    return asyncio.run(run())


def failure(*scripts, **more):
    events, _ = asked(*scripts, **more)
    assert isinstance(events[-1], Error), events
    return events[-1]


GOOD = [
    HEAD,
    sse(delta("")),
    sse(delta("Hel")),
    sse(delta("lo")),
    sse(delta(finish="stop")),
    sse({"choices": [], "usage": USAGE}),
    chunked(DONE),
    END,
]


def test_events_of_a_plain_stream():
    events, server = asked(GOOD)
    assert events == [Start(), Text("Hel"), Text("lo"), End(("stop",), Usage(7, 3, 2), stopped_by=("",))]
    (body,) = server.bodies()
    assert body["stream_options"] == {"include_usage": True}
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    head = server.requests[0][0].decode()
    assert head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert f"authorization: Bearer {KEY}\r\n" in head


# -- usage, wherever it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "usage"),
    [
        ([delta("a", finish="stop")], None),
        ([delta("a", usage=USAGE), delta(finish="stop")], Usage(7, 3, 2)),
        ([delta("a"), delta(finish="stop", usage=USAGE)], Usage(7, 3, 2)),
        (
            [
                delta("a", usage={"prompt_tokens": 7, "completion_tokens": 1}),
                delta(finish="stop"),
                {"choices": [], "usage": USAGE},
            ],
            Usage(7, 3, 2),
        ),
        ([delta("a", usage=None), delta(finish="stop"), {"choices": None, "usage": USAGE}], Usage(7, 3, 2)),
        ([delta("a"), delta(finish="stop", x_groq={"usage": USAGE})], Usage(7, 3, 2)),
        (
            [
                delta("a"),
                delta(finish="stop"),
                {
                    "choices": [],
                    "usage": {
                        "prompt_tokens": 1,
                        "completion_tokens": 2,
                        "prompt_tokens_details": None,
                        "completion_tokens_details": {"reasoning_tokens": 1},
                    },
                },
            ],
            Usage(1, 2, 0, 0, 1),
        ),
    ],
    ids=["never", "beside", "last delta", "twice", "no choices", "groq", "reasoning"],
)
def test_usage(chunks, usage):
    for end in ([chunked(DONE), END], [END]):
        events, _ = asked([HEAD, sse(*chunks), *end])
        assert events[-1] == End(("stop",), usage, stopped_by=("",))


# -- bytes, however they are cut ---------------------------------------------------------------------------------------


def test_any_cut_of_the_bytes_gives_the_same_events():
    """Also inside a character, a line end, a chunk's head."""
    payload = (
        b"\xef\xbb\xbf"[:0]
        + b": ping\r\n\r\nevent: x\r\ndata: "
        + json.dumps(delta("né🙂"), ensure_ascii=False).encode()
        + b"\r\n\r\n"
    )
    whole = (
        HEAD
        + chunked(payload)
        + sse(delta(" ﷽日本", finish="stop"))
        + chunked(b'data: {"choices":\ndata: []}\n\n')
        + chunked(DONE)
        + END
    )
    expected, _ = asked([whole])
    assert text_of(expected) == "né🙂 ﷽日本"
    assert ended(expected).reasons == ("stop",)
    cuts = [[whole[at : at + size] for at in range(0, len(whole), size)] for size in (1, 2, 3, 7, 64)]
    for cut in cuts:
        events, _ = asked(cut)
        assert events == expected


def test_characters_cut_by_the_upstream_itself():
    """Surrogates in two events, raw bytes in two events, and half of one at the end: a sign that says so, once."""
    raw = json.dumps(delta("@"), ensure_ascii=False).encode()
    halves = [raw.replace(b"@", half) for half in ("🙂".encode()[:2], "🙂".encode()[2:])]
    surrogates = [
        b'{"choices":[{"index":0,"delta":{"content":"a\\ud83d"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"\\ude00b"}}]}',
    ]
    events, _ = asked([HEAD, sse(*surrogates, *halves, halves[0], delta(finish="stop")), chunked(DONE), END])
    assert [event.text for event in events if isinstance(event, Text)] == ["a", "😀b", "🙂", "\ufffd"]


def test_an_upstream_that_does_not_stream():
    whole = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "length"}],
        "usage": USAGE,
    }
    events, _ = asked([response(json.dumps(whole).encode())])
    assert events == [Start(), Text("Hello"), End(("length",), Usage(7, 3, 2), stopped_by=("",))]


def test_an_answer_that_ends_with_its_connection():
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    data = b"data: " + json.dumps(delta("a", finish="stop")).encode() + b"\n\n"

    async def play(engine, server):
        return await all_of(engine.generate(chat("Hi")))

    class Closing(Scripted):
        async def _step(self, step, reader, writer):
            await super()._step(step, reader, writer)
            if step is data:
                raise asyncio.IncompleteReadError(b"", 1)

    async def run():
        async with Closing([head, data]) as server:
            return await all_of(OpenAIEngine(msgspec.structs.replace(QUICK, url=server.url)).generate(chat("Hi")))

    assert asyncio.run(run()) == [Start(), Text("a"), End(("stop",), stopped_by=("",))]


# -- faults ------------------------------------------------------------------------------------------------------------


def fault(status, message="", **headers):
    body = json.dumps(
        {"error": {"message": message, "type": headers.pop("type", "t"), "code": headers.pop("code", None)}}
    )
    return [response(body.encode(), status=f"{status} Oh", **headers)]


@pytest.mark.parametrize(
    ("script", "kind", "retryable", "after", "told"),
    [
        (fault(400, "temperature is odd"), "invalid", False, None, "temperature is odd"),
        (
            fault(400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"),
            "context_length",
            False,
            None,
            "5000",
        ),
        (fault(400, "too much", code="context_length_exceeded"), "context_length", False, None, "too much"),
        (fault(401, f"Incorrect API key: {KEY}"), "auth", False, None, "401"),
        (fault(403, "who?"), "auth", False, None, "403"),
        (fault(404, "The model `m` does not exist"), "not_found", False, None, "does not exist"),
        (fault(422, f"no {KEY} here"), "invalid", False, None, "no *** here"),
        (fault(429, "slow", retry_after="7"), "rate", True, 7.0, "429"),
        (fault(429, "slow", retry_after_ms="1500", retry_after="9"), "rate", True, 1.5, "429"),
        (fault(429, "pay", code="insufficient_quota"), "rate", False, None, "429"),
        (fault(500, "Traceback: /srv/app.py"), "upstream", True, None, "500"),
        (fault(501), "upstream", False, None, "501"),
        (fault(503, retry_after="2"), "overloaded", True, 2.0, "503"),
        (fault(504), "timeout", True, None, "504"),
        (fault(302, location="http://elsewhere.invalid/"), "upstream", False, None, "redirects are not followed"),
        (
            [response(b"<html>bad gateway</html>", status="502 Bad Gateway", kind="text/html")],
            "upstream",
            True,
            None,
            "502",
        ),
        ([response(b'{"detail": [{"x": 1}]}', status="400 Bad")], "invalid", False, None, "x"),
        ([b"SSH-2.0-OpenSSH_9.9\r\n", 0.05, LOSE], "upstream", True, None, "no HTTP"),
        ([LOSE], "upstream", True, None, "lost"),
        ([HEAD, sse(b"<garbage>"), END], "upstream", True, None, "garbage"),
        ([HEAD, sse(b"[1]"), END], "upstream", True, None, "garbage"),
        ([HEAD, sse(delta("a", index=3)), END], "upstream", False, None, "not asked for"),
        (
            [HEAD, sse({"error": {"message": "CUDA out of memory at 0x7f", "code": 500}}), END],
            "upstream",
            True,
            None,
            "500",
        ),
        (
            [HEAD, sse({"error": {"message": "too many tokens, context length is 9", "code": 400}}), END],
            "context_length",
            False,
            None,
            "is 9",
        ),
        ([HEAD, END], "upstream", True, None, "ended early"),
        ([HEAD, sse(delta("a")), END], "upstream", True, None, "ended early"),
        ([HEAD, sse(delta("a")), LOSE], "upstream", True, None, "lost"),
        ([HEAD, chunked(b"data: " + b"x" * (9 << 20)), END], "upstream", False, None, "larger than 8 MiB"),
        (
            [b"HTTP/1.1 200 OK\r\n" + b"x-y: " + b"z" * 70_000 + b"\r\n\r\n"],
            "upstream",
            False,
            None,
            "headers are too large",
        ),
    ],
)
def test_faults(script, kind, retryable, after, told):
    error = failure(script)
    assert (error.kind, error.retryable, error.retry_after) == (kind, retryable, after)
    assert told in error.message
    assert KEY not in error.message
    assert "/srv" not in error.message


def test_a_moment_to_come_back_at():
    moment = email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=90), usegmt=True)
    error = failure(fault(429, retry_after=moment))
    assert 60 < error.retry_after <= 90
    assert failure(fault(429, retry_after="whenever")).retry_after is None
    assert failure(fault(429, retry_after=email.utils.formatdate(0))).retry_after == 0.0


@pytest.mark.parametrize(
    ("script", "settings", "told"),
    [
        ([HANG], {"first_token": 0.05}, "the upstream's answer"),
        ([HEAD, HANG], {"first_token": 0.05}, "the first token took"),
        ([HEAD, sse(delta("")), HANG], {"first_token": 0.05}, "the first token took"),
        ([HEAD, sse(delta("a")), HANG], {"inter_token": 0.05}, "the next token took"),
        (
            [HEAD, sse(delta("a")), *[0.02, chunked(b": ping\n\n")] * 20, HANG],
            {"inter_token": 0.1},
            "the next token took",
        ),
        ([HEAD, *[sse(delta("a")), 0.02] * 40, HANG], {"total": 0.2}, "the whole answer took"),
    ],
)
def test_a_stall_is_a_timeout_and_the_connection_is_closed(script, settings, told):
    async def play(engine, server):
        events = await all_of(engine.generate(chat("Hi")))
        for _ in range(6000):
            if server.left:
                break
            await asyncio.sleep(0.01)
        return events[-1], server.left, engine._under_way

    (error, left, under_way), _ = asked(script, settings=msgspec.structs.replace(QUICK, **settings), play=play)
    assert (error.kind, error.retryable) == ("timeout", True)
    assert told in error.message
    assert len(under_way) == 0
    assert left == 1


def test_nobody_is_there():
    async def run(url):
        engine = OpenAIEngine(msgspec.structs.replace(QUICK, url=url))
        found = await all_of(engine.generate(chat("Hi"))), await engine.start(), await engine.health(2.0)
        await engine.drain(0.0)
        return found

    for url in ("http://127.0.0.1:9/v1", "https://127.0.0.1:9/v1"):
        (error,), failed, found = asyncio.run(run(url))
        assert (error.kind, error.retryable) == ("upstream", True)
        assert isinstance(failed, Failed)
        assert failed.fix
        assert not found.ok


# -- leaving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "close", "task"])
@pytest.mark.parametrize(
    "script", [[HANG], [HEAD, HANG], [HEAD, sse(delta("a")), HANG]], ids=["head", "first", "middle"]
)
def test_who_leaves_closes_the_upstream(script, how):
    """By a cancel, by closing the iterator, by cancelling the reader: the upstream sees it, whatever it was doing."""

    async def play(engine, server):
        events = []

        async def read(stream):
            async for event in stream:
                events.append(event)

        stream = engine.generate(chat("Hi"))
        reading = asyncio.ensure_future(read(stream))
        while not server.requests or (len(script) == 3 and len(events) < 2):
            await asyncio.sleep(0.001)
        if how == "cancel":
            await engine.cancel("r")
            await reading
        else:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            await stream.aclose()
        for _ in range(6000):
            if server.left:
                break
            await asyncio.sleep(0.01)
        return events, server.left, len(engine._under_way)

    (events, left, under_way), _ = asked(script, play=play)
    assert (left, under_way) == (1, 0)
    if how == "cancel":
        assert ended(events).reasons == ("cancelled",)


def test_a_slow_reader_holds_the_upstream_back():
    """What is buffered stays bounded: the upstream cannot write on."""
    piece = sse(*[delta("x" * 1000)] * 50)

    async def play(engine, server):
        stream = engine.generate(chat("Hi"))
        await anext(stream)
        sent = -1
        while sent != server.sent:
            sent = server.sent
            await asyncio.sleep(0.1)
        held = stream.ag_frame  # it is open, and nothing more has come
        assert held is not None
        rest = await all_of(stream)
        return sent, rest

    class Counting(Scripted):
        sent = 0

        async def _step(self, step, reader, writer):
            await super()._step(step, reader, writer)
            self.sent += len(step)

    async def run():
        async with Counting([HEAD, *[piece] * 400, sse(delta(finish="stop")), chunked(DONE), END]) as server:
            engine = OpenAIEngine(msgspec.structs.replace(QUICK, url=server.url))
            return await play(engine, server), server.sent

    (sent, rest), whole = asyncio.run(run())
    assert sent < whole / 2
    assert len(text_of(rest)) == 400 * 50 * 1000 - 0


# -- connections -------------------------------------------------------------------------------------------------------


def test_a_connection_serves_again_and_a_dead_one_is_replaced():
    async def play(engine, server):
        texts = [text_of(await all_of(engine.generate(chat("Hi", id=str(number))))) for number in range(3)]
        for _ in range(50):
            await asyncio.sleep(0)
        return texts, server.connections

    (texts, connections), _ = asked(GOOD, play=play)
    assert (texts, connections) == (["Hello"] * 3, 1)

    async def stale(engine, server):
        first = await all_of(engine.generate(chat("Hi")))
        second = await all_of(engine.generate(chat("Hi")))  # over the same connection, which is lost unanswered
        return text_of(first), text_of(second), server.connections

    found, server = asked(GOOD, [LOSE], GOOD, play=stale)
    assert found == ("Hello", "Hello", 2)
    assert len(server.requests) == 3


def test_more_at_once_than_may_be():
    async def play(engine, server):
        first = asyncio.ensure_future(all_of(engine.generate(chat("Hi", id="first"))))
        while not server.requests:
            await asyncio.sleep(0.001)
        second = await all_of(engine.generate(chat("Hi")))
        await engine.cancel("first")
        await first
        return second

    (second, *_), _ = asked([HANG], settings=msgspec.structs.replace(QUICK, most=1), play=play)
    assert (second.kind, second.retryable) == ("overloaded", True)


def test_the_key_goes_nowhere_else(tmp_path):
    """Not to where a redirect points, not into what is shown, and a key with a line end is refused."""

    async def run():
        async with Scripted(GOOD) as other:
            elsewhere = other.url.replace("127.0.0.1", "localhost") + "/chat/completions"
            async with Scripted(fault(307, location=elsewhere)) as server:
                engine = OpenAIEngine(msgspec.structs.replace(QUICK, url=server.url))
                events = await all_of(engine.generate(chat("Hi")))
                return events, other.requests, engine

    events, requests, engine = asyncio.run(run())
    assert (events[0].kind, requests) == ("upstream", [])
    shown = [repr(engine._settings), repr(engine._client.place), repr(engine), str(events)]
    assert not [text for text in shown if KEY in text]
    for settings, code in (
        (OpenAISettings(url="http://h/v1", key="a\r\nx-evil: 1"), "MS-3055"),
        (OpenAISettings(url="http://h/v1", headers={"x": "日"}), "MS-3055"),
        (OpenAISettings(url="http://user:pw@h/v1"), "MS-3054"),
        (OpenAISettings(url="ftp://h/v1"), "MS-3054"),
        (OpenAISettings(), "MS-3054"),
    ):
        with pytest.raises(ConfigError) as caught:
            open_engine(settings, tmp_path)
        assert (caught.value.code, bool(caught.value.fix)) == (code, True)
        assert "evil" not in str(caught.value.as_dict())
        assert "pw" not in str(caught.value.as_dict())


def test_over_tls(tmp_path):
    """With a certificate of our own authority; the same events, faults and cancelling; without it nothing is sent."""
    ca, context = certificates(tmp_path)
    trusting = msgspec.structs.replace(QUICK, ca=ca)
    events, server = asked(GOOD, settings=trusting, tls=context)
    assert text_of(events) == "Hello"
    assert f"authorization: Bearer {KEY}".lower() in server.requests[0][0].decode().lower()
    error = failure(fault(429, retry_after="7"), settings=trusting, tls=context)
    assert (error.kind, error.retry_after) == ("rate", 7.0)
    assert failure([HEAD, sse(delta("a")), LOSE], settings=trusting, tls=context).kind == "upstream"
    stalled = msgspec.structs.replace(trusting, inter_token=0.05)
    assert failure([HEAD, sse(delta("a")), HANG], settings=stalled, tls=context).kind == "timeout"
    untrusted = failure(GOOD, tls=context)
    assert "certificate" in untrusted.message

    async def cut(engine, server):
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

    (events, left), _ = asked([HEAD, sse(delta("a")), HANG], settings=trusting, tls=context, play=cut)
    assert ended(events).reasons == ("cancelled",)
    assert left == 1

    async def twice(engine, server):
        texts = [
            text_of(await all_of(engine.generate(chat("Hi")))) for _ in range(2) if await asyncio.sleep(0.05) is None
        ]
        return texts, server.connections

    assert asked(GOOD, settings=trusting, tls=context, play=twice)[0] == (["Hello"] * 2, 1)


# -- what is asked -----------------------------------------------------------------------------------------------------


def posted(request, settings=QUICK):
    _, server = asked(GOOD, request=request, settings=settings)
    return server.bodies()[-1], server.requests[-1][0].decode().split(" ")[1]


def test_everything_that_can_be_asked_for():
    tool = Tool("f", "does", {"type": "object"}, strict=True)
    turns = (
        Message("system", ("s",)),
        Message("user", ("look", Image(b"abc", "image/png")), name="ann"),
        Message("assistant", calls=(ToolCall("c1", "f", "{}"),)),
        Message("tool", ("42",), answers="c1"),
    )
    sampling = Sampling(0.5, 0.9, 40, 0.1, 7, ("x",), 9, 2, 0.1, 0.2, {5: -1.0}, 3)
    request = Generation(
        "r", "", turns, sampling=sampling, tools=(tool,), choice=ToolChoice("named", "f", parallel=False),
        schema=Schema({"type": "object"}, "s"), user="u", extra={"service_tier": "x", "model": "evil", "stream": False},
    )  # fmt: skip
    two = [HEAD, sse(delta("a", finish="stop"), delta("b", finish="stop", index=1)), chunked(DONE), END]
    events, server = asked(two, request=request, settings=msgspec.structs.replace(QUICK, images=True))
    assert (text_of(events, 0), text_of(events, 1)) == ("a", "b")
    assert server.bodies()[-1] == {
        "service_tier": "x",
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "name": "ann",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "42", "tool_call_id": "c1"},
        ],
        **{
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "min_p": 0.1,
            "seed": 7,
            "stop": ["x"],
            "max_tokens": 9,
            "n": 2,
        },
        **{
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "logit_bias": {"5": -1.0},
            "logprobs": True,
            "top_logprobs": 3,
        },
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "does", "parameters": {"type": "object"}, "strict": True},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True},
        },
        "user": "u",
    }


def test_bare_prompts_and_settings_of_the_upstream():
    old = [
        HEAD,
        sse(
            {
                "choices": [
                    {
                        "index": 0,
                        "text": "ab",
                        "finish_reason": "stop",
                        "logprobs": {
                            "tokens": ["a", "b"],
                            "token_logprobs": [None, -0.5],
                            "top_logprobs": [None, {"b": -0.5, "c": -2.0}],
                        },
                    }
                ]
            }
        ),
        chunked(DONE),
        END,
    ]
    request = Generation("r", "", prompt=(1, 2), echo=True, suffix="z", sampling=Sampling(logprobs=2, max_tokens=3))
    events, server = asked(old, request=request, settings=msgspec.structs.replace(QUICK, body={"ignore_eos": True}))
    assert server.requests[0][0].startswith(b"POST /v1/completions ")
    body = server.bodies()[0]
    assert {key: body[key] for key in ("prompt", "echo", "suffix", "logprobs", "max_tokens", "ignore_eos")} == {
        "prompt": [1, 2], "echo": True, "suffix": "z", "logprobs": 2, "max_tokens": 3, "ignore_eos": True,
    }  # fmt: skip
    (text,) = [event for event in events if isinstance(event, Text)]
    assert [(one.token, one.logprob, len(one.top)) for one in text.logprobs] == [("a", 0.0, 0), ("b", -0.5, 2)]


def test_azure():
    settings = msgspec.structs.replace(QUICK, api_version="2026-05-01", limit_field="max_completion_tokens")
    _, server = asked(GOOD, request=chat("Hi"), settings=settings)
    head = server.requests[0][0].decode()
    assert head.startswith("POST /v1/chat/completions?api-version=2026-05-01 HTTP/1.1")
    assert f"api-key: {KEY}\r\n" in head
    assert "authorization" not in head
    assert server.bodies()[0]["max_completion_tokens"] == 24
    newer = OpenAIEngine(OpenAISettings(url="https://x.openai.azure.com/openai/v1"))
    assert newer._limit == "max_completion_tokens"


def test_tools_however_loosely_they_come():
    def call(**more):
        return {"choices": [{"index": 0, "delta": {"tool_calls": [more]}}]}

    chunks = [
        delta(""),
        call(index=0, id="a", type="function", function={"name": "f", "arguments": ""}),
        call(index=0, function={"arguments": '{"x"'}),
        call(index=0, id="a", function={"name": "f", "arguments": ":1}"}),
        call(id="b", function={"name": "g", "arguments": {"y": 2}}),
        delta(finish="stop"),
    ]
    events, _ = asked([HEAD, sse(*chunks), chunked(DONE), END])
    assert calls_of(events) == {0: ("a", "f", '{"x":1}'), 1: ("b", "g", '{"y":2}')}
    assert ended(events).reasons == ("tool_calls",)
    names = [event.name for event in events if isinstance(event, ToolDelta)]
    assert names == ["f", "", "", "g"]


def test_thoughts_and_parts_and_refusals():
    chunks = [
        {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"index": 0, "delta": {"reasoning": "m"}}]},
        {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "a"}, {"type": "x"}]}}]},
        {"choices": [{"index": 0, "delta": {"refusal": "no"}, "finish_reason": "content_filter", "stop_reason": "x"}]},
    ]
    events, _ = asked([HEAD, sse(*chunks), chunked(DONE), END])
    assert events == [
        Start(), Reasoning("hm"), Reasoning("m"), Text("a"), Text("no"), End(("content_filter",), stopped_by=("x",)),
    ]  # fmt: skip


# -- models, counts, embeddings ----------------------------------------------------------------------------------------


def listed(*models):
    return [response(json.dumps({"data": list(models)}).encode())]


def started(*scripts, settings=QUICK, **more):
    return asked(*scripts, settings=settings, play=lambda engine, server: with_engine(engine), **more)


async def with_engine(engine):
    return await engine.start(), engine.capabilities(), health(engine)


def test_starting():
    unnamed = msgspec.structs.replace(QUICK, model="")
    (ready, can, shown), server = started(listed({"id": "only", "max_model_len": 99}), GOOD, settings=unnamed)
    assert isinstance(ready, Ready)
    assert (can.models, can.context, can.context_from) == (("only",), 99, "the upstream")
    assert shown == {"models": ["only"], "context": 99}
    assert server.bodies()[-1] | {"model": "only", "max_tokens": 1} == server.bodies()[-1]
    (failed, _, _), _ = started(listed({"id": "a"}, {"id": "b"}), settings=unnamed)
    assert (failed.why, failed.fix) == ("the upstream has no only model: it lists a, b", "llms.NAME.model names one")
    (ready, _, _), _ = started(fault(404), GOOD)
    assert isinstance(ready, Ready)
    (failed, _, _), _ = started(listed({"id": "other"}), fault(404, "no model m"))
    assert failed.why == "no model m; it lists other"
    (failed, _, _), _ = started(fault(401))
    assert "401" in failed.why


def test_counting_where_the_upstream_counts():
    vllm = [response(b'{"count": 120, "max_model_len": 100, "tokens": [1]}')]
    limited = msgspec.structs.replace(QUICK, context=100)
    long = chat("x" * 500)
    events, server = asked(vllm, request=long, settings=limited)
    assert events == [
        Error(
            "context_length", "the prompt has 120 tokens, the context of m 100; the setting context sets it", status=400
        )
    ]
    assert [head.split(b" ")[1] for head, _ in server.requests] == [b"/tokenize"]
    events, server = asked(fault(404), GOOD, request=long, settings=limited)
    assert text_of(events) == "Hello"

    async def none(engine, server):
        return [await engine.count(chat("Hi")) for _ in range(3)], await engine.tokenize("a"), len(server.requests)

    assert asked(fault(404), play=none)[0] == ([None] * 3, None, 1)


def test_embedding_answers():
    embedding = msgspec.structs.replace(QUICK, embeddings=True)

    def answer(*rows, **more):
        return [response(json.dumps({"data": list(rows), **more}).encode())]

    def found(script):
        request = EmbedRequest("e", "", ("a", (1, 2)), dims=2)
        return asked(script, settings=embedding, play=lambda engine, server: engine.embed(request))

    rows = [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": "AACAPwAAAAA="}]
    embeddings, server = found(answer(*rows, usage={"prompt_tokens": 3, "total_tokens": 3}))
    assert embeddings == Embeddings((b"\0\0\x80?\0\0\0\0", b"\0\0\0\0\0\0\x80?"), 2, Usage(3, 0))
    assert server.bodies()[0] == {"model": "m", "input": ["a", [1, 2]], "encoding_format": "base64", "dimensions": 2}
    for bad in (
        answer(rows[0]),
        answer(rows[0], {"index": 0, "embedding": [1.0]}),
        answer({"index": 0}, {}),
        [response(b"no")],
    ):
        assert found(bad)[0].kind == "upstream"
    assert found(fault(429, retry_after="3"))[0].retry_after == 3.0
    off = asked(GOOD, play=lambda engine, server: engine.embed(EmbedRequest("e", "", ("a",))))[0]
    assert off.kind == "invalid"


def test_an_upstream_that_only_embeds_is_healthy_by_a_vector():
    only = msgspec.structs.replace(QUICK, embeddings=True, chat=False, completion=False)
    body = json.dumps({"data": [{"index": 0, "embedding": [1.0]}]}).encode()
    (ready, _, _), server = started(fault(404), [response(body)], settings=only)
    assert isinstance(ready, Ready)
    assert server.requests[-1][0].startswith(b"POST /v1/embeddings")


def test_bytes_pass_as_they_are():
    async def play(engine, server):
        assert isinstance(engine, Relay)
        relayed = await engine.relay("x", "/chat/completions", b'{"any": 1}')
        data = b"".join([piece async for piece in relayed.chunks])
        refused = await engine.relay("y", "/chat/completions", b"{}")
        told = b"".join([piece async for piece in refused.chunks])
        lost = await engine.relay("z", "/chat/completions", b"{}")
        return relayed.status, data, refused.status, refused.headers["retry-after"], told, lost, len(engine._under_way)

    found, server = asked(GOOD, fault(429, "slow", retry_after="5"), [LOSE], play=play)
    status, data, refused, after, told, lost, under_way = found
    assert (status, refused, after, under_way) == (200, 429, "5", 0)
    assert data.endswith(DONE)
    assert orjson.loads(told)["error"]["message"] == "slow"
    assert (lost.kind, lost.retryable) == ("upstream", True)
    assert server.requests[0][1] == b'{"any": 1}'


def test_a_profile_chooses_it_by_its_address(tmp_path, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    (tmp_path / "mainspring.toml").write_text(
        'app = "a:app"\n[profiles.prod]\nllms.chat.url = "http://vllm:8000/v1"\nllms.chat.key = "env:UPSTREAM_KEY"\n'
        'llms.chat.model = "qwen"\n',
        "utf-8",
    )
    engine = Services.of_project(tmp_path, profile="prod").engine("chat")
    assert isinstance(engine, OpenAIEngine)
    assert engine._client.place.headers["authorization"] == f"Bearer {KEY}"
    assert engine.capabilities().models == ("qwen",)
    assert ADAPTER.schemes == ("http", "https")
