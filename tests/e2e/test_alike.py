"""Questions that are alike, through the real server and the real embedder: one caller's answer is no other's."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from e2e.conftest import call, mainspring, serve

APP = """
from mainspring import App

app = App("talk")
chat = app.llm("chat", temperature=0)
help = chat.route(cache="1h", alike=0.9)
app.endpoint(help)
"""
TOML = """
app = "talk:app"
[llms.chat]
adapter = "fake"
[callers.ada]
key = "env:ADA_KEY"
tenant = "acme"
[callers.ben]
key = "env:BEN_KEY"
tenant = "acme"
"""


def test_alike_questions_of_one_caller_have_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "talk.py").write_text(APP)
    (tmp_path / "mainspring.toml").write_text(TOML)
    for name in ("ADA", "BEN"):
        monkeypatch.setenv(f"{name}_KEY", f"{name}-secret-of-theirs")
    assert "embedder" in mainspring("conditions", cwd=tmp_path).stdout
    served = serve(tmp_path)
    try:

        def ask(key: str, text: str) -> str:
            asked = {"model": "help", "messages": [{"role": "user", "content": text}]}
            status, body, _ = call(
                f"{served.url}/v1/chat/completions", asked, {"authorization": f"Bearer {key}-secret-of-theirs"}
            )
            assert status == 200, body
            return body.decode()

        ask("ADA", "How do I return a parcel?")  # the embedder is opened; its first vector may take over a second
        ask("ADA", "How do I track a parcel?")
        ask("ADA", "How do I send it?")
        ask("ADA", "How can I send it?")
        ask("BEN", "How could I send it?")
        ask("ADA", "How do I pay 30?")
        ask("ADA", "How do I pay 31?")
        _, page, _ = call(f"{served.console}/actuator/prometheus")
    finally:
        assert served.stop() == 0, served.log.read_text()
    with closing(sqlite3.connect(tmp_path / ".mainspring" / "log" / "calls.db")) as log:
        found = list(log.execute("select key_id, cache, similarity from llm_call order by at_ns"))
    assert [(key, cache) for key, cache, _ in found[2:]] == [
        ("ada", ""), ("ada", "semantic"), ("ben", ""), ("ada", ""), ("ada", ""),
    ]  # fmt: skip
    assert 0.9 <= found[3][2] <= 1.0
    assert all(similarity is None for _, cache, similarity in found if cache != "semantic")
    assert "only equal requests" not in served.log.read_text()
    lines = [line for line in page.decode().splitlines() if line.startswith("mainspring_llm_cache_total")]
    assert any('cache="semantic"' in line and 'result="hit"' in line and line.endswith(" 1.0") for line in lines), lines


def test_a_server_that_knows_nobody_says_that_it_compares_nothing(tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(APP)
    (tmp_path / "mainspring.toml").write_text(TOML.split("[callers.ada]")[0])
    served = serve(tmp_path)
    assert served.stop() == 0, served.log.read_text()
    assert "help: only equal requests are answered from the cache, as callers have no keys" in served.log.read_text()
