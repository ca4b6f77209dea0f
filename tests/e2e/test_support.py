"""The support example as a user runs it: indexed, asked in the terminal, over OpenAI's wire, threads and MCP."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import openai
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from e2e.conftest import Served, call, mainspring, serve

ROOT = Path(__file__).parents[2]
TABLE = "# Errors\n\n| code | what | fix |\n|---|---|---|\n| MS-1 | it leaks | dry it |\n"
SCRIPT = [
    {"when": "valve", "text": "Turn the red valve [1]."},
    {"when": "", "text": "The manuals do not say."},
]


@pytest.fixture(scope="module")
def support(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with few manuals and a scripted model, built."""
    project = tmp_path_factory.mktemp("support") / "support"
    (project / "manuals").mkdir(parents=True)
    shutil.copyfile(ROOT / "examples" / "support" / "support.py", project / "support.py")
    (project / "manuals" / "pump.md").write_text("# The pump\n\nTurn the red valve to start the pump.\n")
    (project / "manuals" / "errors.md").write_text(TABLE)
    (project / "script.json").write_text(json.dumps(SCRIPT))
    (project / "mainspring.toml").write_text(
        'app = "support:app"\n[llms.chat]\nadapter = "fake"\nscript = "script.json"\n[serving]\nreplay = false\n'
    )
    mainspring("check", cwd=project)
    mainspring("apply", cwd=project)
    return project


def test_the_terminal_answers_with_sources(support: Path) -> None:
    done = mainspring("ask", "help_desk", "Which valve starts the pump?", cwd=support)
    assert "Turn the red valve [1]." in done.stdout
    assert "[1] The pump (pump.md)" in done.stdout
    told = json.loads(mainspring("ask", "help_desk", "Which valve starts the pump?", "--json", cwd=support).stdout)
    assert told["text"] == "Turn the red valve [1]."
    assert told["citations"][0]["citation"]["uri"] == "pump.md"
    assert "no assistant is called" in mainspring("ask", "nobody", "x", cwd=support, status=2).stderr
    with closing(sqlite3.connect(support / ".mainspring" / "log" / "runs.db")) as log:
        asked = log.execute("select count(*) from assistant_run where assistant = 'help_desk'").fetchone()
    with closing(sqlite3.connect(support / ".mainspring" / "log" / "calls.db")) as log:
        called = log.execute("select count(*) from llm_call where api = 'inside'").fetchone()
    assert asked == (2,), "what is asked in a terminal is on record as what is asked of a server"
    assert called >= asked


def test_a_model_that_cannot_start_ends_the_question_and_says_why(support: Path) -> None:
    gone = {"MAINSPRING_LLMS_CHAT_ADAPTER": "openai", "MAINSPRING_LLMS_CHAT_URL": "http://127.0.0.1:1/v1"}
    project = support.parent / "gone"
    shutil.copytree(support, project)
    text = (project / "mainspring.toml").read_text().replace('adapter = "fake"\nscript = "script.json"\n', "")
    (project / "mainspring.toml").write_text(text)
    done = mainspring("ask", "help_desk", "Which valve starts the pump?", cwd=project, status=4, env=gone)
    assert "MS-4250" in done.stderr
    assert "the language model 'chat' cannot start" in done.stderr


@pytest.fixture(scope="module")
def served(support: Path):
    found = serve(support)
    yield found
    assert found.stop() == 0, found.log.read_text()


def test_the_assistant_is_a_model_of_openai_s_wire(served: Served) -> None:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        assert "help_desk" in {model.id for model in client.models.list()}
        asked = [{"role": "user", "content": "Which valve starts the pump?"}]
        plain = client.chat.completions.create(model="help_desk", messages=asked)
        assert plain.choices[0].message.content == "Turn the red valve [1]."
        (note,) = plain.choices[0].message.annotations
        assert (note.url_citation.url, note.url_citation.title) == ("pump.md", "The pump")
        parts = client.chat.completions.create(model="help_desk", messages=asked, stream=True)
        text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        assert text == plain.choices[0].message.content


def test_threads_remember_and_are_their_owner_s(served: Served) -> None:
    status, body, _ = call(f"{served.url}/assistants/help_desk/threads", b"")
    assert status in (200, 201), body
    thread = json.loads(body)["thread_id"]
    runs = f"{served.url}/assistants/help_desk/threads/{thread}/runs"
    status, body, _ = call(runs, {"input": "Which valve starts the pump?"})
    assert (status, json.loads(body)["text"]) == (200, "Turn the red valve [1].")
    status, body, headers = call(runs, {"input": "And the valve?", "stream": True})
    assert headers["content-type"].startswith("text/event-stream")
    assert b'"type":"end"' in body
    seen = json.loads(call(f"{served.url}/assistants/help_desk/threads/{thread}")[1])
    assert [one["role"] for one in seen["messages"]].count("user") == 2
    assert call(f"{served.url}/assistants/help_desk/threads/unknown")[0] == 404


def test_mcp_offers_the_index_and_the_assistant(served: Served) -> None:
    async def go() -> None:
        async with (
            streamable_http_client(f"{served.url}/mcp") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name for tool in (await session.list_tools()).tools}
            assert tools == {"search_library", "ask_help_desk"}
            found = await session.call_tool("search_library", {"query": "valve", "k": 1})
            assert found.structuredContent["hits"][0]["uri"] == "pump.md"
            spoken = await session.call_tool("ask_help_desk", {"question": "Which valve starts the pump?"})
            assert spoken.structuredContent["answer"] == "Turn the red valve [1]."

    asyncio.run(go())
