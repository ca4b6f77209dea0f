"""llama.cpp with a real small model, against the one contract, and what is its own: its process, its template."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import orjson
import pytest

from mainspring.adapters.llamacpp import ADAPTER
from mainspring.adapters.llamacpp.engine import LlamaCppEngine, model_path, open_engine
from mainspring.adapters.llamacpp.health import health
from mainspring.adapters.llamacpp.settings import LlamaCppSettings
from mainspring.choose.services import Services
from mainspring.errors import ConfigError
from mainspring.ports.llm import (
    EmbedRequest,
    End,
    Error,
    Failed,
    Generation,
    Message,
    Ready,
    Relay,
    Sampling,
    Schema,
    Start,
    Text,
    ToolChoice,
)
from mainspring.testing.llm import (
    CLOCK,
    GREEDY,
    WEATHER,
    EngineContract,
    OnLoop,
    all_of,
    calls_of,
    chat,
    ended,
    text_of,
)

SMALL = LlamaCppSettings(context=1024, slots=3, threads=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("project") / ".mainspring"


@pytest.fixture(scope="module")
def llm(place):
    with OnLoop(lambda: open_engine(SMALL, place)) as one:
        yield one


@pytest.fixture
def opening(place):
    with contextlib.ExitStack() as stack:
        yield lambda settings=SMALL, where=place: stack.enter_context(OnLoop(lambda: open_engine(settings, where)))


class TestLlamaCpp(EngineContract):
    @pytest.fixture
    def another(self, opening):
        return opening


TWICE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
LONG = msgspec.structs.replace(GREEDY, max_tokens=600)
HERMES = """{%- if tools %}{{ '<|im_start|>system\\nTools:\\n' }}{% for tool in tools %}{{ tool | tojson }}
{%- endfor %}{{ 'For each call' }}{{ ' return <tool_call>\\n' }}
{{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call>' }}
{{- '<|im_end|>\\n' }}{% endif %}{% for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}{{ '<|im_start|>assistant' }}
{%- for call in message.tool_calls %}{{ '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- else %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


@pytest.fixture(scope="module")
def patched(place):
    """A function that writes a copy of the model with some of its bytes replaced."""
    made = []

    def patch(name, change):
        path = place.parent / name
        path.write_bytes(change(model_path("smollm2", place).read_bytes()))
        made.append(path)
        return str(path)

    yield patch
    for path in made:
        path.unlink()


async def until(true, tries=600):
    for _ in range(tries):
        if true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come to be")


# -- the process ------------------------------------------------------------------------------------------------------


def test_the_first_prompt_token_counts_come_before_the_text(llm):
    first, *_ = llm.events(chat("Count me."))
    assert isinstance(first, Start)
    assert first.prompt_tokens == llm.run(llm.engine.count(chat("Count me.")))
    again = llm.events(chat("Count me."))
    assert again[0].cached > 0
    assert ended(again).usage.cached == again[0].cached


def test_what_others_may_see_of_the_process(llm):
    """Its key is not in its arguments or its environment, its socket is its user's only, and its path is not told."""
    shown = b"".join(Path(f"/proc/{llm.engine.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    child = llm.engine._supervisor._child
    assert child.key.encode() not in shown
    assert child.key not in repr(llm.engine._supervisor.client.place)
    assert os.stat(Path(child.socket).parent).st_mode & 0o077 == 0
    models = llm.run(llm.engine._ask("GET", "/v1/models"))
    assert [one["id"] for one in models["data"]] == ["smollm2"]


def test_a_killed_engine_tells_its_streams_and_comes_back(opening):
    llm = opening()

    async def play():
        engine = llm.engine
        streams = [engine.generate(chat("Tell a story.", id=f"s{number}", sampling=LONG)) for number in range(3)]
        for stream in streams:
            while not isinstance(await anext(stream), Text):
                pass
        first, key = engine.pid, engine._supervisor._child.key
        os.kill(first, signal.SIGKILL)
        ends = [(await all_of(stream))[-1] for stream in streams]
        await until(lambda: not engine.pid)
        down = await all_of(engine.generate(chat("Hello", id="down")))
        await until(lambda: engine.pid)
        assert engine.pid != first
        assert engine._supervisor._child.key != key
        return ends, down, await all_of(engine.generate(chat("Hello")))

    ends, down, back = llm.run(play())
    assert [(end.kind, end.retryable) for end in ends] == [("crashed", True)] * 3
    assert [type(one) for one in down] == [Error]
    assert (down[0].kind, down[0].retryable) == ("crashed", True)
    assert down[0].retry_after > 0
    assert text_of(back)
    assert llm.engine.starts == 2
    assert health(llm.engine)["starts"] == 2


def test_when_one_engine_is_killed_others_go_on(opening, tmp_path):
    """In the midst of their answers, which come to their ends; each engine is a process of its own."""
    killed = opening()

    async def play():
        other = open_engine(SMALL, tmp_path / "other")
        assert isinstance(await other.start(), Ready)
        try:
            each = ((killed.engine, LONG), (other, msgspec.structs.replace(LONG, max_tokens=60)))
            streams = [engine.generate(chat("Tell a story.", sampling=sampling)) for engine, sampling in each]
            for stream in streams:
                while not isinstance(await anext(stream), Text):
                    pass
            os.kill(killed.engine.pid, signal.SIGKILL)
            return [(await all_of(stream))[-1] for stream in streams], other.starts
        finally:
            await other.drain(0.0)

    (crashed, whole), starts = killed.run(play())
    assert (crashed.kind, crashed.retryable) == ("crashed", True)
    assert isinstance(whole, End)
    assert whole.usage.completion > 1
    assert starts == 1


APP = """
import asyncio, pathlib, sys, os
from mainspring.adapters.llamacpp.engine import open_engine
from mainspring.adapters.llamacpp.settings import LlamaCppSettings

async def main():
    engine = open_engine(LlamaCppSettings(context=512, slots=1, threads=1), pathlib.Path("/nowhere/.mainspring"))
    print(await engine.start(), file=sys.stderr)
    if os.fork() == 0:  # a child that keeps every pipe of its parent open
        await asyncio.sleep(600)
    print(engine.pid, engine._supervisor._child.socket, os.getpid(), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_killed_app_leaves_no_engine_behind(opening):
    app = subprocess.Popen([sys.executable, "-c", APP], stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        pid, socket, _ = app.stdout.readline().split()
        assert Path(f"/proc/{pid}").exists()
        app.kill()
        app.wait()
        for _ in range(1200):
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.05)
        assert not Path(f"/proc/{pid}").exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(app.pid, signal.SIGKILL)
        app.stdout.close()
    assert Path(socket).parent.exists()
    opening(msgspec.structs.replace(SMALL, slots=1))
    assert not Path(socket).parent.exists(), "the next start removes what a killed app has left"


def test_draining_ends_the_process_and_its_socket(opening):
    llm = opening()
    pid, socket = llm.engine.pid, llm.engine._supervisor._child.socket
    llm.run(llm.engine.drain(1.0))
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(socket).parent.exists()
    assert llm.engine.pid == 0
    assert isinstance(llm.run(llm.engine.start()), Ready)
    assert text_of(llm.events(chat("Hello")))


def test_a_cancel_frees_the_slot(opening):
    """The one slot is free again long before the cancelled answer would have been whole."""
    llm = opening(msgspec.structs.replace(SMALL, slots=1))

    async def play():
        stream = llm.engine.generate(chat("Tell a story.", id="a", sampling=LONG))
        while not isinstance(await anext(stream), Text):
            pass
        await stream.aclose()
        return await all_of(llm.engine.generate(chat("Hello", id="b")))

    assert text_of(llm.run(play()))
    assert len(llm.engine._under_way) == 0


def test_a_queue_that_is_full(opening):
    llm = opening(msgspec.structs.replace(SMALL, slots=1, queue=1))

    async def play():
        streams = [llm.engine.generate(chat("Tell a story.", id=f"q{number}", sampling=LONG)) for number in range(3)]
        reading = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        third = await reading[2]
        for number in range(2):
            await llm.engine.cancel(f"q{number}")
        await asyncio.wait(reading)
        for stream in streams:
            await stream.aclose()
        return third

    third = llm.run(play())
    assert (third.kind, third.retryable, third.retry_after) == ("overloaded", True, 1.0)


# -- models -----------------------------------------------------------------------------------------------------------


def test_a_model_without_a_template_refuses_conversations(opening, patched):
    path = patched("bare.gguf", lambda data: data.replace(b"tokenizer.chat_template", b"tokenizer.chat_templatX", 1))
    llm = opening(msgspec.structs.replace(SMALL, model=path))
    (error,) = llm.events(chat("Hello"))
    assert (error.kind, "template" in error.message) == ("invalid", True)
    assert not llm.engine.capabilities().chat
    assert text_of(llm.events(Generation("p", "", prompt="Once upon a time", sampling=GREEDY)))


def test_a_bos_is_put_before_once(opening, patched, place):
    """Of a model that puts one before each prompt, with a template that writes one too."""
    key = b"tokenizer.ggml.add_bos_token\x07\0\0\0"

    def with_bos(data):
        assert key + b"\0" in data
        return data.replace(key + b"\0", key + b"\1", 1)

    (place.parent / "bos.jinja").write_text(TWICE, "utf-8")
    path = patched("bos.gguf", with_bos)
    llm = opening(msgspec.structs.replace(SMALL, model=path, template="bos.jinja"))
    bare = llm.run(llm.engine.tokenize("Hello there"))
    assert llm.run(llm.engine.count(chat("Hello there"))) == len(bare) + 1
    assert ended(llm.events(chat("Hello there"))).usage.prompt == len(bare) + 1


def test_a_model_that_is_cut(place, patched):
    path = patched("cut.gguf", lambda data: data[: len(data) // 2])
    engine = open_engine(msgspec.structs.replace(SMALL, model=path), place)
    failed = asyncio.run(engine.start())
    assert isinstance(failed, Failed)
    assert "cut.gguf" in failed.why
    assert failed.fix
    assert engine.pid == 0


def test_files_that_are_no_models(place):
    (place.parent / "text.gguf").write_text("What is this?", "utf-8")
    cases = {"nowhere.gguf": "MS-3074", "text.gguf": "MS-3075"}
    for model, code in cases.items():
        with pytest.raises(ConfigError) as caught:
            open_engine(LlamaCppSettings(model=model), place)
        assert (caught.value.code, bool(caught.value.fix)) == (code, True)
    with pytest.raises(ConfigError) as caught:
        open_engine(LlamaCppSettings(context=100_000), place)
    assert (caught.value.code, "8192" in caught.value.fix) == ("MS-3053", True)


def test_it_is_what_a_laptop_gets(tmp_path):
    """Without any setting, in dev; elsewhere it must be named."""
    (tmp_path / "mainspring.toml").write_text('app = "a:app"\n[profiles.prod]\nserver.port = 1\n', "utf-8")
    assert isinstance(Services.of_project(tmp_path).engine("chat"), LlamaCppEngine)
    with pytest.raises(ConfigError) as caught:
        Services.of_project(tmp_path, profile="prod").engine("chat")
    assert caught.value.code == "MS-3012"
    assert ADAPTER.embedded


# -- what it can ------------------------------------------------------------------------------------------------------


def test_it_embeds_when_it_is_told_to(opening):
    llm = opening(msgspec.structs.replace(SMALL, embedding=True, slots=1))
    TestLlamaCpp().test_embedding(llm)
    assert text_of(llm.events(chat("Hello")))
    cases = [EmbedRequest("e", "", ()), EmbedRequest("e", "", ("a", "")), EmbedRequest("e", "", ("a",), dims=3)]
    assert [llm.run(llm.engine.embed(case)).kind for case in cases] == ["invalid"] * 3
    assert llm.run(llm.engine.embed(EmbedRequest("e", "other", ("a",)))).kind == "not_found"
    tokens = tuple(llm.run(llm.engine.tokenize("some words")))
    by_text, by_tokens = (llm.run(llm.engine.embed(EmbedRequest("e", "", (one,)))) for one in ("some words", tokens))
    assert by_text.vectors == by_tokens.vectors


def test_tools_of_a_template_that_knows_them(opening, place):
    """Are left to llama.cpp's own parser, with the same events."""
    (place.parent / "hermes.jinja").write_text(HERMES, "utf-8")
    llm = opening(msgspec.structs.replace(SMALL, template="hermes.jinja", context=2048))
    contract = TestLlamaCpp()
    contract.test_a_named_tool_is_called(llm)
    contract.test_some_tool_is_required(llm)
    contract.test_no_tool_is_called_when_none_may_be(llm)
    contract.test_what_a_tool_answered_is_part_of_the_conversation(llm)
    auto = msgspec.structs.replace(chat("Hello"), tools=(WEATHER, CLOCK))
    events = llm.events(auto)
    assert ended(events).usage.prompt == llm.run(llm.engine.count(auto))
    two = msgspec.structs.replace(auto, sampling=Sampling(temperature=1.0, max_tokens=6, n=2))
    usage = ended(llm.events(two)).usage
    assert usage.completion > 6

    async def cut():
        events = []
        async for event in llm.engine.generate(msgspec.structs.replace(auto, id="cut", sampling=LONG)):
            events.append(event)
            if isinstance(event, Text):
                await llm.engine.cancel("cut")
        return events

    usage = ended(llm.run(cut())).usage
    assert usage.completion > 0
    assert usage.prompt > 0


def test_a_call_that_the_model_chooses_to_make(llm):
    """Told in the prompt, made between tags: the model is led to it by biasing it to a call that it has begun."""
    said = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
    tokens = llm.run(llm.engine.tokenize(said))
    request = msgspec.structs.replace(
        chat(f"Say exactly this and nothing else: {said}", sampling=msgspec.structs.replace(GREEDY, max_tokens=32)),
        tools=(CLOCK, WEATHER),
    )
    biased = msgspec.structs.replace(request.sampling, logit_bias=dict.fromkeys(tokens, 8.0))
    events = llm.events(msgspec.structs.replace(request, sampling=biased))
    assert [call[1:] for call in calls_of(events).values()][:1] == [("clock", "{}")]


def test_choices_beyond_the_slots_and_what_it_cannot(llm):
    cases = [
        chat("Hi", sampling=Sampling(n=4)),
        Generation("p", "", prompt="a", suffix="b"),
        Generation("p", "", prompt="a", echo=True, sampling=Sampling(logprobs=1)),
        msgspec.structs.replace(chat("Hi"), tools=(msgspec.structs.replace(WEATHER, parameters={"not": {}}),)),
    ]
    for request in cases:
        (error,) = llm.events(request)
        assert (error.kind, bool(error.message)) == ("invalid", True)


def test_an_echo_comes_before_the_completion(llm):
    prompt = "The capital of France is"
    tokens = tuple(llm.run(llm.engine.tokenize(prompt)))
    for given in (prompt, tokens):
        events = llm.events(Generation("p", "", prompt=given, echo=True, sampling=GREEDY))
        assert text_of(events).startswith(prompt)
        assert len(text_of(events)) > len(prompt)
        assert ended(events).usage.completion == 24


def test_a_stop_text_is_named(llm):
    events = llm.events(chat("Count: 1 2 3", sampling=msgspec.structs.replace(LONG, stop=(" ", "\n"))))
    assert ended(events).reasons == ("stop",)
    assert ended(events).stopped_by[0] in (" ", "\n")


def test_a_prompt_and_answer_that_fill_the_context(opening):
    """End for their length; nothing is shifted out."""
    llm = opening(msgspec.structs.replace(SMALL, context=256, slots=1))
    context = llm.engine.capabilities().context
    words = "word " * (context - 60)
    request = Generation("p", "", prompt=words, sampling=Sampling(temperature=0.0, logit_bias={2: -100.0}))
    events = llm.events(request)
    end = ended(events)
    assert end.reasons == ("length",)
    assert end.usage.prompt + end.usage.completion <= context


def test_who_set_the_context_is_said(llm):
    (error,) = llm.events(chat("word " * 5000))
    assert "the setting context" in error.message


def test_bytes_pass_as_they_are(llm):
    assert isinstance(llm.engine, Relay)
    assert llm.engine.capabilities().wire == "openai"
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "stream": True, "temperature": 0}

    async def play(path, value, id="x"):
        relayed = await llm.engine.relay(id, path, orjson.dumps(value))
        return relayed.status, relayed.headers, b"".join([piece async for piece in relayed.chunks])

    status, headers, data = llm.run(play("/chat/completions", body))
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert data.endswith(b"data: [DONE]\n\n")
    chunks = [orjson.loads(line[6:]) for line in data.split(b"\n\n") if line.startswith(b"data: {")]
    assert {chunk["model"] for chunk in chunks} == {"smollm2"}
    status, _, data = llm.run(play("/chat/completions", {"messages": 3}))
    assert status == 400

    async def cut():
        relayed = await llm.engine.relay("cut", "/chat/completions", orjson.dumps(body | {"max_tokens": 900}))
        await anext(relayed.chunks)
        await llm.engine.cancel("cut")
        with pytest.raises(Exception, match="closed"):
            async for _ in relayed.chunks:
                pass
        unread = await llm.engine.relay("unread", "/chat/completions", orjson.dumps(body))
        await unread.chunks.aclose()
        return len(llm.engine._under_way)

    assert llm.run(cut()) == 0


def test_connections_are_used_again(llm):
    """Those of small questions; after a stream llama.cpp hangs up."""
    client = llm.engine._supervisor.client

    async def play():
        used = set()
        for _ in range(4):
            await llm.engine.count(chat("Hello"))
            used |= set(client._idle)
        return used

    assert len(llm.run(play())) == 1


def test_a_forced_answer_of_several_choices(llm):
    sampling = Sampling(temperature=1.0, seed=5, max_tokens=80, n=2)
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["a"],
        "additionalProperties": False,
    }
    events = llm.events(msgspec.structs.replace(chat("Hi", sampling=sampling), schema=Schema(schema)))
    for choice in range(2):
        assert isinstance(orjson.loads(text_of(events, choice))["a"], int)
    request = msgspec.structs.replace(chat("Hi", sampling=sampling), tools=(CLOCK,), choice=ToolChoice("required"))
    assert ended(llm.events(request)).reasons == ("tool_calls", "tool_calls")


ENFORCED = [
    *({"type": "string", "format": name} for name in ("date", "uuid", "ipv4", "ipv6", "hostname", "time", "date-time")),
    {"type": "string", "format": "email"},
    {"type": "string", "format": "duration"},
    {"oneOf": [{"type": "integer", "maximum": 3, "minimum": 1}, {"type": "number", "maximum": 0, "minimum": 0}]},
    {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"type": "object", "required": ["b"]}]},
    {
        "patternProperties": {"^x[12]$": {"const": 3}},
        "type": "object",
        "additionalProperties": False,
        "required": ["x1"],
    },
    {"type": "array", "prefixItems": [{"const": 1}, {"const": "a"}], "items": False, "minItems": 2},
    {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 3},
    {"type": "integer", "multipleOf": 5, "exclusiveMinimum": 4, "exclusiveMaximum": 51},
    {"type": ["string", "null"], "minLength": 1, "maxLength": 3},
    {"type": "string", "pattern": "^[a-c]{2,3}$"},
    {"$ref": "#/$defs/n", "$defs": {"n": {"enum": [3, {"x": [None]}]}}, "$id": "x", "$comment": "c", "title": "t"},
    {"$ref": "#/definitions/n", "definitions": {"n": {"anyOf": [{"type": "boolean"}, {"const": "é🙂"}]}}},
]


def test_every_keyword_that_is_taken_is_enforced(llm):
    """llama.cpp would say so on stderr only, and generate freely."""
    child = llm.engine._supervisor._child
    child.lines.clear()
    for schema in ENFORCED:
        request = chat("Say anything.", sampling=msgspec.structs.replace(GREEDY, max_tokens=48))
        events = llm.events(msgspec.structs.replace(request, schema=Schema(schema)))
        assert ended(events).reasons in (("stop",), ("length",))
    llm.run(asyncio.sleep(0.05))
    assert not list(child.lines)


def test_a_grammar_that_was_not_applied_is_an_error(llm, monkeypatch):
    monkeypatch.setattr("mainspring.adapters.llamacpp.asking.unsupported", lambda schema: "")
    request = chat("Say anything.", sampling=msgspec.structs.replace(GREEDY, max_tokens=48))
    events = llm.events(msgspec.structs.replace(request, schema=Schema({"type": "object", "not": {"const": 1}})))
    assert [type(event) for event in events] == [Start, Error]
    assert events[-1].kind == "invalid"


def test_turns_of_every_role(llm):
    turns = (Message("system", ("Be brief.",)), Message("user", ("Hi",)), Message("assistant", ("Hello",)))
    request = msgspec.structs.replace(chat("x"), messages=(*turns, Message("user", ("And", " now?"))))
    assert isinstance(llm.events(request)[-1], End)
