"""Assistants over a real socket: REST, OpenAI's SDK, MCP's own client."""

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import openai
import pytest
from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from assistants_kit import ADA, PAGES, asked, assistant, sqlite, tool
from assistants_live import Live
from mainspring.assistants.events import ToolResult, decode, fold, plain
from mainspring.assistants.outside import OutsideServer, open_outside
from mainspring.errors import ConfigError
from mainspring.ports.llm import Error
from mainspring.testing import Call, Script
from mainspring.testing.library import Library

TESTS = Path(__file__).parents[1]
ASK = {"input": "When may goods be returned?"}


def events_of(text):
    parts = [part for part in text.split("\n\n") if part]
    found = []
    for part in parts:
        name, data = part.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        found.append(value)
    return found


@pytest.fixture
def threads(tmp_path):
    store = sqlite(tmp_path)
    yield store
    store.close()


# -- REST -------------------------------------------------------------------------------------------------------------


def test_a_run_streamed_is_the_run_as_json(threads):
    service, _ = assistant(Script(lambda request: "Within 30 days [1]."), threads=threads)
    with Live([service]) as live:
        assert live.call("GET", "/assistants") == (
            200,
            {"assistants": [{"name": "help_desk", "knows": ["library"]}]},
        )
        status, thread = live.call("POST", "/assistants/help_desk/threads")
        assert status == 201
        path = f"/assistants/help_desk/threads/{thread['thread_id']}"
        status, text = live.call("POST", f"{path}/runs", ASK | {"stream": True})
        assert status == 200
        events = events_of(text)
        assert [event["seq"] for event in events] == list(range(len(events)))
        assert (events[0]["type"], events[-1]["type"]) == ("start", "end")
        status, whole = live.call("POST", f"{path}/runs", ASK)
        assert status == 200
        streamed = json.loads(json.dumps(plain(fold(decode(json.dumps(event).encode()) for event in events))))
        for differs in ("run", "end"):
            streamed.pop(differs), whole.pop(differs)
        for source in streamed["sources"] + whole["sources"]:
            source.pop("score")
        streamed["usage"]["prompt"] = whole["usage"]["prompt"]
        assert streamed == whole
        status, view = live.call("GET", path)
        assert [message["role"] for message in view["messages"]] == ["user", "assistant", "user", "assistant"]
        assert live.call("DELETE", path) == (204, None)
        assert live.faults == []
        assert live.call("GET", path)[0] == 404


def test_an_approval_over_rest(threads):
    made = []
    service, _ = assistant(
        [Call("refund", {"order_id": 1}), "Done."],
        usables=[tool(lambda arguments, caller: made.append(caller.user) or "ok", approve=True)],
        pages=None,
        threads=threads,
    )
    with Live([service]) as live:
        _, thread = live.call("POST", "/assistants/help_desk/threads")
        path = f"/assistants/help_desk/threads/{thread['thread_id']}"
        _, run = live.call("POST", f"{path}/runs", {"input": "Refund 1."})
        waiting = run["interrupt"]
        assert run["end"] is None
        assert waiting["action_requests"] == [
            {"name": "refund", "args": {"order_id": 1}, "description": "Does refund."}
        ]
        assert live.call("POST", f"{path}/runs", ASK)[0] == 409
        decide = f"{path}/interrupts/{waiting['id']}"
        approve = {"decisions": [{"type": "approve"}]}
        assert live.call("POST", decide, {"decisions": []})[0] == 400
        assert live.call("POST", decide, {"decisions": 3})[0] == 400
        assert live.call("POST", decide, approve, user="bob")[0] == 404
        assert live.call("POST", f"{path}/interrupts/other", approve)[0] == 404
        assert made == []
        status, done = live.call("POST", decide, approve)
        assert (status, done["text"], done["end"]["reason"]) == (200, "Done.", "stop")
        assert made == ["ada"]
        assert live.call("POST", decide, approve)[0] == 404
        assert made == ["ada"]


def test_only_the_owner_reaches_a_thread(threads):
    service, _ = assistant(["One.", "Two."], pages=None, threads=threads)
    with Live([service]) as live:
        _, thread = live.call("POST", "/assistants/help_desk/threads")
        path = f"/assistants/help_desk/threads/{thread['thread_id']}"
        for method, where, body in (
            ("GET", path, None),
            ("DELETE", path, None),
            ("POST", f"{path}/runs", ASK),
            ("POST", f"{path}/runs/r/cancel", None),
        ):
            status, error = live.call(method, where, body, user="bob")
            assert status == 404
            assert "ada" not in json.dumps(error)
            assert live.call(method, where, body, user="nobody")[0] == 401
        assert live.call("GET", "/assistants/help_desk/threads", user="bob") == (200, {"threads": []})
        _, mine = live.call("GET", "/assistants/help_desk/threads")
        assert len(mine["threads"]) == 1
        assert live.call("DELETE", "/assistants/help_desk/threads", user="bob") == (200, {"erased": 0})
        assert live.call("DELETE", "/assistants/help_desk/threads") == (200, {"erased": 1})


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/assistants/nobody/threads", None, 404),
        ("POST", "/assistants/help_desk/runs", b"{", 400),
        ("POST", "/assistants/help_desk/runs", {}, 400),
        ("POST", "/assistants/help_desk/runs", {"input": 3}, 400),
        ("POST", "/assistants/help_desk/runs", {"input": "x", "user": "ada"}, 400),
        ("POST", "/assistants/help_desk/runs", {"input": "x", "run": "a/b"}, 400),
        ("POST", "/assistants/help_desk/runs", {"messages": [{"role": "tool", "content": "x"}]}, 400),
        ("GET", "/assistants/help_desk/threads/nobody", None, 404),
        ("POST", "/assistants/help_desk/threads/nobody/runs", ASK, 404),
    ],
)
def test_what_does_not_fit_is_refused(threads, method, path, body, status):
    service, script = assistant(["x"], threads=threads)
    with Live([service]) as live:
        assert live.call(method, path, body)[0] == status
    assert script.requests == []


def test_cancelling_and_leaving_stop_the_model(threads):
    service, script = assistant(Script(lambda request: ["Slow ", 60.0]), pages=None, threads=threads)
    with Live([service]) as live:
        _, thread = live.call("POST", "/assistants/help_desk/threads")
        path = f"/assistants/help_desk/threads/{thread['thread_id']}"
        connection, answer = live.stream(f"{path}/runs", {"input": "x", "stream": True, "run": "r1"})
        read = b""
        while b"Slow" not in read:
            read += answer.read1()
        assert live.call("POST", f"{path}/runs/r1/cancel") == (200, {"cancelled": True})
        last = events_of((read + answer.read()).decode())[-1]
        assert (last["type"], last["reason"]) == ("end", "cancelled")
        connection.close()
        assert live.call("POST", f"{path}/runs/r1/cancel") == (200, {"cancelled": False})
        for stream in (True, False):
            before = len(script.cancelled)
            if stream:
                connection, answer = live.stream(f"{path}/runs", {"input": "x", "stream": True})
                while b"Slow" not in answer.read1():
                    pass
                connection.sock.close() if connection.sock else None
                answer.close()
                connection.close()
            else:
                with pytest.raises(httpx.TimeoutException):
                    httpx.post(live.url + f"{path}/runs", json={"input": "x"}, headers={"x-user": "ada"}, timeout=1.0)
            deadline = time.monotonic() + 60
            while len(script.cancelled) == before and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(script.cancelled) == before + 1, f"the client has left, stream={stream}"


# -- OpenAI -----------------------------------------------------------------------------------------------------------


def test_the_openai_sdk_talks_to_an_assistant(threads):
    service, _ = assistant(Script(lambda request: "Within 30 days [1]."), threads=threads)
    with Live([service]) as live:
        client = openai.OpenAI(base_url=live.url + "/v1", api_key="ada", max_retries=0)
        assert "help_desk" in [model.id for model in client.models.list()]
        assert client.models.retrieve("help_desk").owned_by == "mainspring-assistant"
        ask = [{"role": "user", "content": "When may goods be returned?"}]
        answer = client.chat.completions.create(model="help_desk", messages=ask)
        message = answer.choices[0].message
        assert message.content == "Within 30 days [1]."
        (annotation,) = message.annotations
        assert (annotation.type, annotation.url_citation.url) == ("url_citation", "manuals/returns.md")
        cited = annotation.url_citation
        assert message.content[cited.start_index : cited.end_index] == "Within 30 days"
        own = message.model_extra["mainspring"]
        assert own["citations"][0]["quote"] == "Goods may be returned within 30 days of delivery."
        assert (own["index_version"], own["thread_id"], own["interrupt"]) == ({"library": 1}, None, None)
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
        chunks = list(
            client.chat.completions.create(
                model="help_desk", messages=ask, stream=True, stream_options={"include_usage": True}
            )
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == message.content
        told = [c.choices[0].delta.model_extra for c in chunks if c.choices and c.choices[0].delta.model_extra]
        assert [one["mainspring"] for one in told] == [own]
        assert [one["annotations"][0]["url_citation"]["url"] for one in told] == ["manuals/returns.md"]
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage == answer.usage


def test_a_thread_of_the_callers_goes_on_over_the_openai_wire(threads):
    service, script = assistant(["One.", "Two."], pages=None, threads=threads)
    with Live([service]) as live:
        _, thread = live.call("POST", "/assistants/help_desk/threads")
        client = openai.OpenAI(
            base_url=live.url + "/v1",
            api_key="ada",
            max_retries=0,
            default_headers={"x-mainspring-thread": thread["thread_id"]},
        )
        messages = [{"role": "user", "content": "First."}]
        first = client.chat.completions.create(model="help_desk", messages=messages)
        messages += [{"role": "assistant", "content": "One."}, {"role": "user", "content": "Second."}]
        client.chat.completions.create(model="help_desk", messages=messages)
        assert first.choices[0].message.model_extra["mainspring"]["thread_id"] == thread["thread_id"]
        assert [message.text for message in script.requests[1].messages] == ["First.", "One.", "Second."]
        bob = client.with_options(api_key="bob")
        with pytest.raises(openai.NotFoundError):
            bob.chat.completions.create(model="help_desk", messages=messages)


def test_faults_over_the_openai_wire(threads):
    service, _ = assistant(Script(lambda request: Error("overloaded", "too many", retryable=True)), pages=None)
    with Live([service]) as live:
        client = openai.OpenAI(base_url=live.url + "/v1", api_key="ada", max_retries=0)
        ask = [{"role": "user", "content": "x"}]
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="help_desk", messages=ask)
        assert caught.value.status_code == 503
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-9", messages=ask)
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="help_desk", messages=ask, n=2)
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="nobody").chat.completions.create(model="help_desk", messages=ask)


def test_an_approval_over_the_openai_wire(threads):
    service, _ = assistant(
        [Call("refund", {"order_id": 1}), "Done."],
        usables=[tool(lambda a, c: "ok", approve=True)],
        pages=None,
        threads=threads,
    )
    with Live([service]) as live:
        client = openai.OpenAI(base_url=live.url + "/v1", api_key="ada", max_retries=0)
        answer = client.chat.completions.create(model="help_desk", messages=[{"role": "user", "content": "Refund 1."}])
        own = answer.choices[0].message.model_extra["mainspring"]
        path = f"/assistants/help_desk/threads/{own['thread_id']}/interrupts/{own['interrupt']['id']}"
        assert live.call("POST", path, {"decisions": [{"type": "approve"}]})[1]["text"] == "Done."


# -- MCP --------------------------------------------------------------------------------------------------------------


async def tried(session):
    """What every client does: looks, searches, reads, asks."""
    started = await session.initialize()
    tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    found = await session.call_tool("search_library", {"query": "goods returned", "k": 2})
    link = next(part for part in found.content if part.type == "resource_link")
    text = await session.read_resource(link.uri)
    templates = (await session.list_resource_templates()).resourceTemplates
    said = await session.call_tool("ask_help_desk", {"question": "When may goods be returned?"})
    wrong = await session.call_tool("search_library", {"query": 3})
    try:
        await session.call_tool("format_disk", {})
    except McpError as error:
        unknown = error.error.code
    try:
        await session.read_resource("mainspring://library/nothing")
    except McpError as error:
        missing = error.error.code
    await session.send_ping()
    return started, tools, found, text, templates, said, wrong, unknown, missing


def checked(result, sees_secret):
    started, tools, found, text, templates, said, wrong, unknown, missing = result
    assert started.protocolVersion == "2025-11-25"
    assert set(tools) == {"search_library", "ask_help_desk"}
    assert tools["search_library"].annotations.readOnlyHint is True
    assert tools["search_library"].outputSchema["type"] == "object"
    hits = found.structuredContent["hits"]
    assert json.loads(found.content[0].text) == found.structuredContent
    assert hits[0]["text"] == "Goods may be returned within 30 days of delivery."
    assert any("margin" in hit["text"] for hit in hits) is sees_secret
    assert text.contents[0].text == PAGES[0].text
    assert templates[0].uriTemplate == "mainspring://library/{document_id}"
    assert said.structuredContent["answer"] == "Within 30 days [1]."
    assert said.structuredContent["citations"][0]["uri"] == "manuals/returns.md"
    assert wrong.isError
    assert (unknown, missing) == (-32602, -32002)


@pytest.mark.parametrize(("user", "sees"), [("ada", True), ("bob", False)])
def test_mcps_own_client_over_http(user, sees):
    service, _ = assistant(Script(lambda request: "Within 30 days [1]."))

    async def go(url):
        async with (
            httpx.AsyncClient(headers={"x-user": user}) as http,
            streamable_http_client(url, http_client=http) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            return await tried(session)

    with Live([service]) as live:
        checked(asyncio.run(go(live.url + "/mcp")), sees)
        assert live.faults == []


STDIO = """
import asyncio, sys
from assistants_kit import ADA, assistant
from mainspring.protocols.mcp.server import McpServer
from mainspring.protocols.mcp.stdio import serve_stdio
from mainspring.protocols.mcp.tools import Offer
from mainspring.testing import Script

service, script = assistant(Script(lambda request: "Within 30 days [1]."))
server = McpServer(Offer(lambda: service._parts.searchers, lambda: {"help_desk": service}), "mainspring", "1")

async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    await serve_stdio(server, ADA, reader, asyncio.StreamWriter(transport, protocol, reader, loop))

asyncio.run(main())
"""


def test_mcps_own_client_over_stdio():
    parameters = StdioServerParameters(
        command=sys.executable, args=["-c", STDIO], env=os.environ | {"PYTHONPATH": str(TESTS)}
    )

    async def go():
        async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
            return await tried(session)

    checked(asyncio.run(go()), True)


def test_stdio_survives_what_is_no_message():
    lines = [
        b"{",
        b"[]",
        b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}',
        b'{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        b'{"jsonrpc": "2.0", "id": 2, "method": "nothing"}',
        b'{"jsonrpc": "2.0", "id": "x", "method": "ping"}',
        b'{"pad": "' + b"x" * (2 << 20) + b'"}',
    ]
    done = subprocess.run(
        [sys.executable, "-c", STDIO],
        input=b"\n".join(lines) + b"\n",
        capture_output=True,
        timeout=60,
        check=True,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    codes = [answer["error"]["code"] for answer in answers if "error" in answer]
    assert codes.count(-32700) >= 1
    assert codes.count(-32601) == 1
    assert codes.count(-32600) >= 3
    assert [answer["result"] for answer in answers if answer.get("id") == "x"] == [{}]


def test_mcp_over_http_keeps_other_sites_and_strange_versions_out():
    service, _ = assistant(["x"])
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    with Live([service]) as live:
        assert live.call("POST", "/mcp", ping) == (200, {"jsonrpc": "2.0", "id": 1, "result": {}})
        assert live.call("POST", "/mcp", ping, origin=live.url)[0] == 200
        assert live.call("POST", "/mcp", ping, origin="https://evil.example")[0] == 403
        assert live.call("POST", "/mcp", ping, mcp_protocol_version="1999-01-01")[0] == 400
        assert live.call("POST", "/mcp", ping, user="nobody")[0] == 401
        assert live.call("POST", "/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}) == (202, None)
        assert live.call("GET", "/mcp")[0] == 405
        status, error = live.call("POST", "/mcp", b"{")
        assert (status, error["error"]["code"]) == (200, -32700)


def test_an_assistant_uses_only_the_allowed_tools_of_an_mcp_server():
    server, _ = assistant(Script(lambda request: "Within 30 days [1]."))

    async def go(url):
        there = OutsideServer("desk", ("search_library",), url=url + "/mcp", headers={"x-user": "bob"})
        outside = open_outside(there)
        await outside.ready()
        service, script = assistant(
            [Call("desk_search_library", {"query": "goods returned"}), Call("desk_ask_help_desk", {}), "Done."],
            pages=None,
            outside=[outside],
        )
        events = [event async for event in service.run(asked("Search."), ADA)]
        await outside.close()
        strange = open_outside(replace(there, tools=("format_disk",)))
        try:
            if not outside.fault:
                with pytest.raises(ConfigError, match="no tool 'format_disk'"):
                    await strange.ready()
        finally:
            await strange.close()
        return events, script

    with Live([server]) as live:
        events, script = asyncio.run(go(live.url))
        assert [tool.name for tool in script.requests[0].tools] == ["desk_search_library"]
        (result,) = [event for event in events if isinstance(event, ToolResult)]
        assert result.status == "ok"
        assert "30 days of delivery" in result.content
        assert "margin" not in result.content
    events, _ = asyncio.run(go(live.url))
    (result,) = [event for event in events if isinstance(event, ToolResult)]
    assert result.status == "error"
    assert "does not answer" in result.content


def test_an_mcp_server_that_hangs_does_not_hold_up_the_run():
    class Slow(Library):
        def search(self, request, caller):
            time.sleep(3)
            return super().search(request, caller)

    server, _ = assistant(["x"])
    server._parts.searchers["library"] = Slow(PAGES)

    async def go(url):
        outside = open_outside(OutsideServer("desk", ("search_library",), url=url + "/mcp", timeout=1.5))
        await outside.ready()
        service, _ = assistant([Call("desk_search_library", {"query": "x"}), "Sorry."], pages=None, outside=[outside])
        try:
            return [event async for event in service.run(asked("Search."), ADA)]
        finally:
            await outside.close()

    with Live([server]) as live:
        (result,) = [event for event in asyncio.run(go(live.url)) if isinstance(event, ToolResult)]
        assert result.status == "timeout"
