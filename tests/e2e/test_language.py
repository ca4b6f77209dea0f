"""Language models through the real command line and server, with OpenAI's and Anthropic's own clients."""

from __future__ import annotations

import http.server
import json
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import openai
import pytest

from e2e.conftest import Served, call, mainspring, serve
from otlp_kit import exported

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


def test_a_budget_and_the_texts_of_a_declared_share_outlive_a_restart(talk: Path, clients, monkeypatch) -> None:
    monkeypatch.setenv("ADA_KEY", "ada-secret")
    (talk / "talk.py").write_text(APP.replace("app.endpoint(chat)", "app.endpoint(chat, log=1.0)"))
    (talk / "mainspring.toml").write_text(KEYED.replace("requests = 3", "money_micro = 1_000_000"))
    served = serve(talk)
    try:
        for model in ("chat", "support"):
            told = f"hello {model}, from ada@example.com"
            clients(served, "ada-secret").chat.completions.create(
                model=model, messages=[{"role": "user", "content": told}]
            )
    finally:
        assert served.stop() == 0, served.log.read_text()
    with closing(sqlite3.connect(talk / ".mainspring" / "log" / "calls.db")) as log:
        (cost,) = log.execute("select sum(cost_micro) from llm_call where key_id = 'ada'").fetchone()
        texts = [bytes(text).decode() for (text,) in log.execute("select bytes from llm_body")]
    assert cost > 0
    assert any("hello chat, from [email]" in text for text in texts), "the endpoint is declared to keep them"
    assert not any("support" in text for text in texts), "nobody has asked for these to be kept"

    (talk / "mainspring.toml").write_text(KEYED.replace("requests = 3", f"money_micro = {cost + 1}"))
    served = serve(talk)
    try:
        with pytest.raises(openai.RateLimitError, match=f"it may use {cost + 1} micro-units, 1 are left"):
            clients(served, "ada-secret").chat.completions.create(
                model="chat", messages=[{"role": "user", "content": "hello"}]
            )
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_of_models_beside_each_other_the_faster_one_answers(talk: Path, clients) -> None:
    app = APP.replace("chat.route(backup)", 'chat.route(beside=[backup], hedge="50ms")')
    (talk / "talk.py").write_text(app)
    (talk / "slow.json").write_text(json.dumps([{"text": "slow", "delay": 120}]))
    (talk / "fast.json").write_text(json.dumps([{"text": "fast"}]))
    slow, fast = 'script = "slow.json"\n[llms.backup]', 'adapter = "fake"\nscript = "fast.json"'
    (talk / "mainspring.toml").write_text(TOML.replace('[llms.backup]\nadapter = "fake"', f"{slow}\n{fast}"))
    served = serve(talk)
    try:
        client = clients(served, "none")
        for number in range(4):
            ask = [{"role": "user", "content": f"number {number}"}]
            answer = client.chat.completions.create(model="support", messages=ask)
            assert answer.choices[0].message.content == "fast"
    finally:
        assert served.stop() == 0, served.log.read_text()
    with closing(sqlite3.connect(talk / ".mainspring" / "log" / "calls.db")) as log:
        found = log.execute("select upstream, hedged from llm_call").fetchall()
    assert {upstream for upstream, _ in found} == {"backup"}
    assert {hedged for _, hedged in found} == {0, 1}, "prompts are spread over both; some met the slow one first"


def test_a_price_for_no_model_is_refused(talk: Path) -> None:
    (talk / "mainspring.toml").write_text(TOML + "[prices.chatt]\ninput = 3\n")
    failed = mainspring("serve", cwd=talk, status=3)
    assert "MS-3028" in failed.stderr


PROMPTED = """
from mainspring import App

app = App("talk")
chat = app.llm("chat", max_tokens=50)
greet = app.prompt("Say hello to {{ who }}.", variables={"who": str}, llm=chat)
app.endpoint(chat)
"""


def test_a_prompts_versions_are_on_record_and_an_alias_chooses(talk: Path) -> None:
    def say(text: str) -> None:
        (talk / "talk.py").write_text(PROMPTED.replace("Say hello to", text))

    def asked(served: Served, user: str, version: str | None = None) -> str:
        use = {"id": "greet", "variables": {"who": "Ada"}} | ({} if version is None else {"version": version})
        status, body, _ = call(f"{served.url}/v1/chat/completions", {"model": "chat", "prompt": use, "user": user})
        assert status == 200, body
        return json.loads(body)["choices"][0]["message"]["content"]

    (talk / "mainspring.toml").write_text(TOML.replace('[llms.backup]\nadapter = "fake"\n', ""))
    say("Say hello to")
    assert "MS-5044" in mainspring("promote", "prompt/greet", "7", cwd=talk, status=5).stderr
    assert "MS-5044" in mainspring("promote", "prompt/greet", "1", "--share", "0.5", cwd=talk, status=5).stderr
    assert "greet@prod: version 1 for 100% of users" in mainspring("promote", "prompt/greet", "1", cwd=talk).stdout
    say("Wave at")
    mainspring("apply", cwd=talk)
    assert "\n2  " in mainspring("show", "prompt/greet", cwd=talk).stdout, "what is applied is on record"
    served = serve(talk)
    try:
        assert asked(served, "ada") == "Say hello to Ada.", "what is declared anew waits until somebody promotes it"
        assert asked(served, "ada", "latest") == "Wave at Ada."
        told = json.loads(mainspring("promote", "prompt/greet", "2", "--share", "0.3", "--json", cwd=talk).stdout)
        assert told == {"prompt": "greet", "alias": "prod", "shares": {"2": 0.3, "1": 0.7}}
        deadline = time.monotonic() + 30
        while "prompt greet: prod is set" not in served.log.read_text():
            assert time.monotonic() < deadline, served.log.read_text()
            time.sleep(0.1)
        users = [f"user{number}" for number in range(60)]
        first = [asked(served, user) for user in users]
        assert 5 <= first.count("Wave at Ada.") <= 32
        assert [asked(served, user) for user in users] == first, "a user stays with a version"
    finally:
        assert served.stop() == 0, served.log.read_text()
    shown = mainspring("show", "prompt/greet", cwd=talk).stdout
    assert "prod: version 1 70%, version 2 30%" in shown
    mainspring("promote", "prompt/greet", "2", cwd=talk)
    assert "version 1 for 70%" in mainspring("rollback", "prompt/greet", cwd=talk).stdout
    assert "version 1 for 100%" in mainspring("rollback", "prompt/greet", cwd=talk).stdout
    assert "MS-5045" in mainspring("rollback", "prompt/greet", cwd=talk, status=5).stderr


def test_requests_are_spans_where_a_collector_is_configured(talk: Path, clients, monkeypatch) -> None:
    seen: list[tuple[str, str, dict]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = exported(self.headers["content-type"], self.rfile.read(int(self.headers["content-length"])))
            seen.append((self.path, self.headers["authorization"], body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        monkeypatch.setenv("OTLP_TOKEN", "for-the-collector")
        otlp = f'[telemetry]\notlp = "http://127.0.0.1:{collector.server_port}"\nsample = 1.0\n'
        otlp += 'otlp_token = "env:OTLP_TOKEN"\n'
        (talk / "mainspring.toml").write_text(TOML + otlp)
        served = serve(talk)
        try:
            ask = [{"role": "user", "content": "hello"}]
            clients(served, "none").chat.completions.create(model="chat", messages=ask)
        finally:
            assert served.stop() == 0, served.log.read_text()
            collector.shutdown()
            thread.join()
    spans = []
    for path, token, body in seen:
        assert (path, token) == ("/v1/traces", "Bearer for-the-collector")
        (resource,) = body["resourceSpans"]
        assert resource["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "talk"}}]
        spans += resource["scopeSpans"][0]["spans"]
    assert {span["name"] for span in spans} == {"chat chat", "POST chat_completions"}
    assert len({span["traceId"] for span in spans}) == 1, "the model's call is part of the request"
    assert "for-the-collector" not in served.log.read_text()


GUARDED = """
from mainspring import App, Guard

app = App("talk")
cards = Guard("cards", r"[0-9]{16}", replace="[card]", longest=16)
chat = app.llm("chat", guards=[cards, Guard("secrets", r"sk-[a-z]+", on="input")])
app.endpoint(chat)
app.endpoint(chat.route(called="support"))
"""


def test_guards_hold_for_every_name_of_a_model(talk: Path, clients) -> None:
    (talk / "talk.py").write_text(GUARDED)
    script = [{"when": "which", "pieces": ["it is 4111", "1111", "11111111", " of you"]}, {"when": "", "echo": True}]
    (talk / "script.json").write_text(json.dumps(script))
    (talk / "mainspring.toml").write_text('app = "talk:app"\n[llms.chat]\nadapter = "fake"\nscript = "script.json"\n')
    mainspring("check", cwd=talk)
    mainspring("plan", cwd=talk, status=2)
    served = serve(talk)
    try:
        client = clients(served, "none")
        for model in ("chat", "support"):
            ask = [{"role": "user", "content": "which card?"}]
            parts = list(client.chat.completions.create(model=model, messages=ask, stream=True))
            text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
            assert text == "it is [card] of you"
            echo = [{"role": "user", "content": "mine is 4111111111111111"}]
            said = client.chat.completions.create(model=model, messages=echo).choices[0].message.content
            assert said == "mine is [card]"
            with pytest.raises(openai.BadRequestError, match="refused by secrets"):
                client.chat.completions.create(model=model, messages=[{"role": "user", "content": "use sk-abc"}])
    finally:
        assert served.stop() == 0, served.log.read_text()
    (talk / "talk.py").write_text(GUARDED.replace("sk-[a-z]+", "sk-[a-z+"))
    refused = mainspring("check", cwd=talk, status=1)
    assert "MS-1092" in refused.stderr
    assert "talk.py:6" in refused.stderr


SCRIPT = [
    {"when": "break", "pieces": ["half ", "way"], "error": "crashed", "after": 1},
    {"when": "sea", "pieces": ["and ", "salt"]},
]


def test_text_is_generated_over_the_open_inference_protocol(talk: Path) -> None:
    (talk / "script.json").write_text(json.dumps(SCRIPT))
    (talk / "mainspring.toml").write_text(
        TOML.replace('[llms.chat]\nadapter = "fake"', '[llms.chat]\nadapter = "fake"\nscript = "script.json"')
    )
    served = serve(talk)

    def ask(verb: str, body: object, model: str = "chat") -> tuple[int, bytes]:
        status, answer, _ = call(f"{served.url}/v2/models/{model}/{verb}", body)
        return status, answer

    def events(answer: bytes) -> list[dict[str, str]]:
        return [json.loads(line[6:]) for line in answer.splitlines() if line.startswith(b"data: ")]

    try:
        asked = {"id": "7", "text_input": "the sea", "parameters": {"max_tokens": 8, "temperature": 0, "stop": "\n"}}
        status, answer = ask("generate", asked)
        head = {"id": "7", "model_name": "chat", "model_version": "1"}
        assert (status, json.loads(answer)) == (200, head | {"text_output": "and salt"})
        assert ask("generate", asked, "chat/versions/1")[0] == 200
        status, answer = ask("generate_stream", asked)
        assert (status, events(answer)) == (200, [head | {"text_output": "and "}, head | {"text_output": "salt"}])
        first, last = events(ask("generate_stream", {"text_input": "break"})[1])
        assert first["text_output"] == "half "
        assert set(last) == {"error"}
        for body, model, wanted in (
            (asked, "nobody", 404),
            (asked, "chat/versions/2", 404),
            ({"text_input": 5}, "chat", 400),
            ({}, "chat", 400),
            (b"{", "chat", 400),
            ({"text_input": "x", "parameters": {"temperature": 9}}, "chat", 400),
            ({"text_input": "x", "parameters": {"unknown": 1}}, "chat", 400),
        ):
            for verb in ("generate", "generate_stream"):
                status, answer = ask(verb, body, model)
                assert (status, list(json.loads(answer))) == (wanted, ["error"]), (body, model, answer)
                assert isinstance(json.loads(answer)["error"], str)
    finally:
        assert served.stop() == 0, served.log.read_text()
