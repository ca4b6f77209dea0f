"""MCP servers outside as an app declares them: asked in the terminal, served, down, and set wrongly."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from e2e.conftest import call, free_port, mainspring, serve

SERVER = str(Path(__file__).parents[1] / "mcp_tickets.py")
APP = """
from mainspring import App

app = App("desk")
chat = app.llm("chat")
tickets = app.mcp("tickets", approve=["close"])
desk = app.assistant("desk", chat, may=[tickets])
app.endpoint(desk)
"""
SCRIPT = [
    {"when": "^ticket 7 speaks", "text": "Ticket 7 does."},
    {"when": "does not answer", "text": "I cannot look now."},
    {"when": "nobody was there", "text": "It stays open."},
    {"when": "which ticket", "calls": [{"name": "tickets_find", "arguments": {"word": "pumps"}}]},
    {"when": "close it", "calls": [{"name": "tickets_close", "arguments": {"ticket": 7}}]},
]
MODEL = 'app = "desk:app"\n[llms.chat]\nadapter = "fake"\nscript = "script.json"\n[mcp.tickets]\n'
STDIO = f"command = {json.dumps([sys.executable, SERVER])}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(SERVER).parent / "lean"))
    (tmp_path / "desk.py").write_text(APP)
    (tmp_path / "script.json").write_text(json.dumps(SCRIPT))
    return tmp_path


def test_the_terminal_uses_them_and_nobody_there_approves_nothing(project: Path) -> None:
    token = 'environment.TICKETS_TOKEN = "env:TICKETS_TOKEN"\n'
    (project / "mainspring.toml").write_text(MODEL + STDIO + 'tools = ["find", "close"]\n' + token)
    refused = mainspring("check", cwd=project, status=3).stderr
    assert "MS-3007" in refused
    assert "TICKETS_TOKEN" in refused
    env = {"TICKETS_TOKEN": "t0p"}
    mainspring("check", cwd=project, env=env)
    assert (
        "the assistant comes first: mainspring ask desk"
        in mainspring("ask", "How do I stop?", cwd=project, env=env, status=2).stderr
    )
    assert "MS-2609" in mainspring("ask", "desk", " ", cwd=project, env=env, status=2).stderr
    done = mainspring("ask", "desk", "which ticket speaks of pumps?", cwd=project, env=env)
    assert "Ticket 7 does." in done.stdout
    assert "calls tickets_find(word='pumps')" in done.stderr
    told = json.loads(mainspring("ask", "desk", "close it", "--json", cwd=project, env=env).stdout)
    assert told["text"] == "It stays open."
    assert [(tool["name"], tool["status"]) for tool in told["tools"]] == [("tickets_close", "refused")]
    shown = mainspring("show", "mcp/tickets", cwd=project, env=env).stdout
    assert "close" in shown


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ('tools = ["find", "close"]\n', "MS-3065", "no place"),
        (STDIO + 'url = "http://127.0.0.1:9/mcp"\ntools = ["find", "close"]\n', "MS-3065", "two places"),
        (STDIO, "MS-3066", "no list of tools"),
        (STDIO + 'tools = ["find"]\n', "MS-3067", "'close'"),
        (STDIO + 'tool = ["find"]\n', "MS-3004", "tools"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_runs(
    project: Path, settings: str, code: str, words: str
) -> None:
    (project / "mainspring.toml").write_text(MODEL + settings)
    told = mainspring("check", cwd=project, status=3).stderr
    assert code in told
    assert words in told


def test_a_tool_that_the_server_has_not_is_an_error_of_the_settings(project: Path) -> None:
    (project / "mainspring.toml").write_text(MODEL + STDIO + 'tools = ["find", "close", "fnd"]\n')
    told = mainspring("ask", "desk", "which ticket?", cwd=project, status=3).stderr
    assert "MS-3063" in told
    assert "mainspring.toml:6" in told


def test_a_server_answers_without_them_and_says_so(project: Path) -> None:
    down = f'url = "http://127.0.0.1:{free_port()}/mcp"\ntools = ["find", "close"]\n'
    (project / "mainspring.toml").write_text(MODEL + down)
    assert "I cannot look now." in mainspring("ask", "desk", "which ticket?", cwd=project).stdout
    served = serve(project)
    try:
        asked = {"model": "desk", "messages": [{"role": "user", "content": "which ticket speaks of pumps?"}]}
        status, body, _ = call(f"{served.url}/v1/chat/completions", asked)
        assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "I cannot look now."), body
        health = json.loads(call(f"{served.console}/actuator/health")[1])
        assert health["components"]["mcp.tickets"]["status"] == "DOWN", health
        status, page, _ = call(f"{served.console}/mcp/tickets", headers={"Accept": "text/html"})
        assert status == 200, page
        assert "MS-4304" in served.log.read_text()
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_serving_lets_go_of_the_program(project: Path) -> None:
    (project / "mainspring.toml").write_text(MODEL + STDIO + 'tools = ["find", "close", "given"]\n')
    served = serve(project)
    asked = {"model": "desk", "messages": [{"role": "user", "content": "which ticket speaks of pumps?"}]}
    status, body, _ = call(f"{served.url}/v1/chat/completions", asked)
    assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "Ticket 7 does."), body
    children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children")
    started = [pid for pid in children.read_text().split() if SERVER in Path(f"/proc/{pid}/cmdline").read_text()]
    assert started, "the program runs as long as the server"
    assert served.stop() == 0, served.log.read_text()
    assert not [pid for pid in started if os.path.exists(f"/proc/{pid}")]
