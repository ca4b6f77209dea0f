"""Language models through the real command line and server, with OpenAI's and Anthropic's own clients."""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pytest

from e2e.conftest import Served, call, mainspring, serve

APP = """
from mainspring import App

app = App("talk")
chat, backup = app.llm("chat", max_tokens=50), app.llm("backup")
support = chat.route(backup)
app.endpoint(chat)
app.endpoint(support)
"""
TOML = """
app = "talk:app"
[llms.chat]
adapter = "fake"
[llms.backup]
adapter = "fake"
"""
KEYED = (
    TOML
    + """
[callers.ada]
key = "env:ADA_KEY"
[limits.ada]
requests = 3
[prices.chat]
input = 1000000
output = 2000000
"""
)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    project = tmp_path / "talk"
    project.mkdir()
    (project / "talk.py").write_text(APP)
    (project / "mainspring.toml").write_text(TOML)
    return project


@pytest.fixture
def clients():
    """Makes OpenAI's own client of a server; all are closed in the end."""
    opened = []

    def make(served: Served, key: str) -> openai.OpenAI:
        opened.append(openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_an_app_of_language_models_alone(talk: Path, clients) -> None:
    mainspring("check", cwd=talk)
    mainspring("apply", cwd=talk)
    served = serve(talk)
    try:
        client = clients(served, "none")
        assert {"chat", "support"} <= {model.id for model in client.models.list()}
        plain = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "hello you"}])
        parts = client.chat.completions.create(
            model="support", messages=[{"role": "user", "content": "hello you"}], stream=True
        )
        text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        assert text == plain.choices[0].message.content
        assert text
        assert plain.usage is not None
        assert plain.usage.total_tokens > 0
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "x"}])
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_keys_and_limits_of_callers(talk: Path, clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADA_KEY", "ada-secret")
    (talk / "mainspring.toml").write_text(KEYED)
    served = serve(talk)
    try:
        client = clients(served, "ada-secret")
        ask = [{"role": "user", "content": "hello"}]
        for _ in range(3):
            client.chat.completions.create(model="chat", messages=ask)
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="chat", messages=ask)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="backup", messages=ask)
        status, body, _ = call(f"{served.url}/v1/chat/completions", {"model": "chat", "messages": ask})
        assert status == 401
        assert json.loads(body)["error"]["type"] == "authentication_error"
        assert "ada-secret" not in served.log.read_text()
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_a_price_for_no_model_is_refused(talk: Path) -> None:
    (talk / "mainspring.toml").write_text(TOML + "[prices.chatt]\ninput = 3\n")
    failed = mainspring("serve", cwd=talk, status=3)
    assert "MS-3028" in failed.stderr
