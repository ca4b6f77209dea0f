"""The official SDKs of OpenAI and Anthropic, unchanged, against a real server: Python, and Node where it is there."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from gateway_kit import Live, Scripted, route
from mainspring.llm.gateway import Gateway
from mainspring.llm.keys import digest_of
from mainspring.llm.values import Key, Limits
from mainspring.ports.llm import End, Error, Event, Generation, Start, Text, TokenLogprob, ToolDelta, Usage

USAGE = Usage(10, 4, cached=3)


def script(request: Generation) -> list[Event | float]:
    """A model that calls a tool when it has one and no result, answers JSON when it must, and else repeats."""
    asked = request.messages[-1] if request.messages else None
    said = asked.text if asked is not None else str(request.prompt)
    if said == "break":
        return [Start(10), Text("half", 1), Error("crashed", "the engine died")]
    if request.tools and request.choice.mode != "none" and asked is not None and asked.role != "tool":
        pieces = [
            ToolDelta(0, "call_7", "weather", ""),
            ToolDelta(0, arguments='{"city":'),
            ToolDelta(0, arguments='"Bern"}'),
        ]
        return [Start(10), *pieces, End(("tool_calls",), USAGE)]
    text = '{"name": "Ann", "age": 41}' if request.schema is not None else f"You said: {said}"
    logs = (TokenLogprob("You", -0.1, 1, (TokenLogprob("You", -0.1, 1), TokenLogprob("I", -2.0, 2))),)
    first = Text(text[:3], 1, 0, logs if request.sampling.logprobs is not None else ())
    return [Start(10, 3), first, Text(text[3:6], 1), Text(text[6:], 2), End(("stop",), USAGE)]


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    keys = [
        Key(id="k", digest=digest_of("sk-test"), tenant="t"),
        Key(id="empty", digest=digest_of("sk-empty"), limits=Limits(requests=0)),
    ]
    with Live(Gateway([route(Scripted(script))], keys=keys)) as found:
        yield found


@pytest.fixture
def client(server: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0) as found:
        yield found


@pytest.fixture
def claude(server: Live) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="sk-test", max_retries=0) as found:
        yield found


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HI: Any = [{"role": "user", "content": "hi"}]


def test_openai_chat(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="chat", messages=HI, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.content == "You said: hi"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (10, 4, 14)
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 3
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [top.token for top in logprobs.content[0].top_logprobs] == ["You", "I"]
    assert whole._request_id is not None
    with client.chat.completions.stream(
        model="chat", messages=HI, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.usage == whole.usage
    assert final.choices[0].logprobs is not None
    assert final.choices[0].logprobs.content == logprobs.content


def test_openai_tools(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="chat", messages=HI, tools=[TOOL], tool_choice="required")
    calls = whole.choices[0].message.tool_calls
    assert calls is not None
    assert whole.choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(model="chat", messages=HI, tools=[TOOL]) as stream:
        final = stream.get_final_completion()
    streamed = final.choices[0].message.tool_calls
    assert streamed is not None
    assert [(c.id, c.function.name, c.function.arguments) for c in streamed] == [  # type: ignore[union-attr]
        (c.id, c.function.name, c.function.arguments)  # type: ignore[union-attr]
        for c in calls
    ]
    follow: Any = [*HI, whole.choices[0].message, {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}]
    answer = client.chat.completions.create(model="chat", messages=follow, tools=[TOOL])
    assert answer.choices[0].message.content == "You said: sunny"


class Person(BaseModel):
    name: str
    age: int


def test_openai_structured_answers(client: openai.OpenAI) -> None:
    found = client.chat.completions.parse(model="chat", messages=HI, response_format=Person)
    assert found.choices[0].message.parsed == Person(name="Ann", age=41)
    response = client.responses.parse(model="chat", input="hi", text_format=Person)
    assert response.output_parsed == Person(name="Ann", age=41)


def test_openai_completions_embeddings_and_models(client: openai.OpenAI) -> None:
    texts = client.completions.create(model="chat", prompt=["one", "two"])
    assert [choice.text for choice in texts.choices] == ["You said: one", "You said: two"]
    pieces = client.completions.create(model="chat", prompt="one", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == "You said: one"
    found = client.embeddings.create(model="chat", input=["ab", "abc"])  # the SDK asks for base64
    plain = client.embeddings.create(model="chat", input=["ab", "abc"], encoding_format="float")
    assert [item.embedding for item in found.data] == [item.embedding for item in plain.data]
    assert found.data[1].embedding == [3.0, 0.5, -1.25]
    assert [model.id for model in client.models.list()] == ["chat"]
    assert client.models.retrieve("chat").id == "chat"


def test_openai_responses_with_state(client: openai.OpenAI) -> None:
    first = client.responses.create(model="chat", input="hi", instructions="be kind", metadata={"a": "b"})
    assert first.output_text == "You said: hi"
    assert first.status == "completed"
    assert first.usage is not None
    assert first.usage.input_tokens_details.cached_tokens == 3
    assert client.responses.retrieve(first.id).output_text == first.output_text
    assert [item.type for item in client.responses.input_items.list(first.id)] == ["message"]
    with client.responses.stream(model="chat", input="and?", previous_response_id=first.id) as stream:
        kinds = [event.type for event in stream]
        second = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert second.output_text == "You said: and?"
    assert second.previous_response_id == first.id
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="chat", input="x", previous_response_id=first.id)
    unkept = client.responses.create(model="chat", input="hi", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)


def test_a_response_goes_on_where_the_one_before_ended(server: Live, client: openai.OpenAI) -> None:
    engine = server.gateway.lanes["chat"].upstreams[0].target.engine
    assert isinstance(engine, Scripted)
    tool: Any = {"type": "function", **TOOL["function"]}
    first = client.responses.create(model="chat", input="hi", tools=[tool], instructions="first")
    call = first.output[0]
    assert call.type == "function_call"
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = client.responses.create(
        model="chat", input=result, previous_response_id=first.id, tools=[tool], instructions="second"
    )
    assert second.output_text == "You said: sunny"
    turns = [(message.role, message.text, len(message.calls)) for message in engine.requests[-1].messages]
    assert turns == [("system", "second", 0), ("user", "hi", 0), ("assistant", "", 1), ("tool", "sunny", 0)]


def test_openai_errors_are_the_sdks_own(server: Live, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=HI)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="chat", messages=[])
    assert bad.value.param == "messages"
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-empty", max_retries=0) as poor,
        pytest.raises(openai.RateLimitError) as limited,
    ):
        poor.chat.completions.create(model="chat", messages=HI)
    assert limited.value.code == "rate_limit_exceeded"
    with pytest.raises(openai.APIError, match="the engine died"):
        list(client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "break"}], stream=True))


def test_openai_async(server: Live) -> None:
    async def scenario() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0) as client:
            whole = await client.chat.completions.create(model="chat", messages=HI)
            parts = [
                chunk.choices[0].delta.content or ""
                async for chunk in await client.chat.completions.create(model="chat", messages=HI, stream=True)
                if chunk.choices
            ]
            assert "".join(parts) == whole.choices[0].message.content == "You said: hi"
            async with client.responses.stream(model="chat", input="hi") as stream:
                assert (await stream.get_final_response()).output_text == "You said: hi"

    asyncio.run(scenario())


CLAUDE_TOOL: Any = {"name": "weather", "input_schema": TOOL["function"]["parameters"]}


def test_anthropic_messages(claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(model="chat", max_tokens=50, messages=HI, system="be kind")
    assert whole.content[0].type == "text"
    assert whole.content[0].text == "You said: hi"
    assert whole.stop_reason == "end_turn"
    assert (whole.usage.input_tokens, whole.usage.cache_read_input_tokens, whole.usage.output_tokens) == (7, 3, 4)
    with claude.messages.stream(model="chat", max_tokens=50, messages=HI) as stream:
        assert "".join(stream.text_stream) == "You said: hi"
        final = stream.get_final_message()
    assert [block.model_dump() for block in final.content] == [block.model_dump() for block in whole.content]
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert claude.messages.count_tokens(model="chat", messages=HI).input_tokens == 1
    stopped = claude.messages.create(model="chat", max_tokens=50, messages=HI, stop_sequences=["said"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "said")
    assert stopped.content[0].type == "text"
    assert stopped.content[0].text == "You "


def test_anthropic_tools(claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(
        model="chat", max_tokens=50, messages=HI, tools=[CLAUDE_TOOL], tool_choice={"type": "any"}
    )
    block = whole.content[0]
    assert block.type == "tool_use"
    assert (block.name, block.input, whole.stop_reason) == ("weather", {"city": "Bern"}, "tool_use")
    with claude.messages.stream(model="chat", max_tokens=50, messages=HI, tools=[CLAUDE_TOOL]) as stream:
        final = stream.get_final_message()
    assert final.content[0].model_dump() == block.model_dump()
    follow: Any = [
        *HI,
        {"role": "assistant", "content": [block.model_dump()]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}]},
    ]
    answer = claude.messages.create(model="chat", max_tokens=50, messages=follow, tools=[CLAUDE_TOOL])
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "You said: sunny"


def test_anthropic_errors_are_the_sdks_own(server: Live, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="nope", max_tokens=5, messages=HI)
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(model="chat", max_tokens=0, messages=HI)
    with (
        anthropic.Anthropic(base_url=server.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model="chat", max_tokens=5, messages=HI)
    with (
        pytest.raises(anthropic.APIStatusError, match="the engine died"),
        claude.messages.stream(model="chat", max_tokens=5, messages=[{"role": "user", "content": "break"}]) as stream,
    ):
        stream.get_final_message()


def test_anthropic_async(server: Live) -> None:
    async def scenario() -> None:
        async with anthropic.AsyncAnthropic(base_url=server.url, api_key="sk-test", max_retries=0) as claude:
            whole = await claude.messages.create(model="chat", max_tokens=5, messages=HI)
            async with claude.messages.stream(model="chat", max_tokens=5, messages=HI) as stream:
                final = await stream.get_final_message()
            assert final.content[0].model_dump() == whole.content[0].model_dump()

    asyncio.run(scenario())


def node_sdks() -> Path:
    """The folder whose node_modules hold the SDKs, or a skip that says how to get them."""
    folder = Path(__file__).parents[1] / "node"
    if shutil.which("node") is None or not (folder / "node_modules" / "openai").exists():
        pytest.skip("needs Node and the SDKs: apt-get install nodejs npm, then npm ci --prefix tests/node")
    return folder


def test_the_node_sdks_work_unchanged(server: Live) -> None:
    folder = node_sdks()
    done = subprocess.run(
        ["node", str(folder / "sdks.mjs"), server.url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {
        "chat": "You said: hi",
        "streamed": "You said: hi",
        "usage": 14,
        "tool": ["weather", '{"city":"Bern"}'],
        "embedding": [2, 0.5, -1.25],
        "response": "You said: hi",
        "responseEvents": ["response.created", "response.completed"],
        "retrieved": "You said: hi",
        "deleted": 404,
        "models": ["chat"],
        "wrongKey": 401,
        "message": "You said: hi",
        "messageStreamed": "You said: hi",
        "toolUse": {"city": "Bern"},
        "counted": 1,
        "unknownModel": 404,
    }
