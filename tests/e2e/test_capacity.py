"""`mainspring plan` of an app with a language model: what the profile's GPUs carry, to people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.conftest import mainspring

TOML = """
app = "talk:app"
[capacity.chat]
gpu = "h100-sxm"
config = "llama.json"
params = 8.03e9
length = 2048
[profiles.small]
catalog.adapter = "sqlite"
capacity.chat.gpu = "L4"
capacity.chat.length = 131072
[profiles.wrong]
catalog.adapter = "sqlite"
capacity.chat.gpu = "h100-80"
"""
CONFIG = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    (tmp_path / "talk.py").write_text('from mainspring import App\n\napp = App("talk")\nchat = app.llm("chat")\n')
    (tmp_path / "mainspring.toml").write_text(TOML)
    (tmp_path / "llama.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_plan_prints_the_specs_numbers(talk: Path) -> None:
    told = mainspring("plan", cwd=talk, status=2).stdout
    assert "+ /llm/chat" in told
    assert "capacity of llm/chat on 1 x H100 SXM, sequences of 2,048 tokens" in told
    assert "weights as bf16, cache as bf16" in told
    for number in (
        "14.96 GiB, of 67.06 GiB",
        "131,072 bytes a token",
        "50.10 GiB: 410,400 tokens, 200.4 sequences at once",
        "143.6 tokens/s expected, 208.6 at most",
        "6,724 tokens/s expected when full",
        "29.7 ms",
        "up to 295 streams",
        "with weights in fp8: 230.3 sequences",
        "with weights in int4: 243.4 sequences",
        "capacity.chat.runtime",
    ):
        assert number in told, (number, told)


def test_as_json_and_by_profile(talk: Path) -> None:
    found = json.loads(mainspring("plan", "--json", cwd=talk, status=2).stdout)
    (one,) = found["capacity"]
    assert (one["llm"], one["gpu"], one["found"]["tokens"], one["found"]["fits"]) == ("chat", "H100 SXM", 410_400, True)
    assert [change["url"] for change in found["changes"]] == ["/llm/chat"]
    # 22.49 GiB x 0.9 - 14.96 - 2 = 3.28 GiB: 26,880 tokens, a fifth of 131,072
    told = mainspring("plan", "--profile", "small", cwd=talk, status=2).stdout
    assert "1 x L4" in told
    assert "does not fit: 3.28 GiB are left for the cache, 0.21 of a sequence" in told


def test_what_is_wrong_is_refused_with_its_line_and_the_remedy(talk: Path) -> None:
    told = mainspring("plan", "--profile", "wrong", cwd=talk, status=3).stderr
    assert "error MS-3087" in told
    assert "did you mean 'H100 SXM'?" in told
    assert "mainspring.toml:" in told
    assert "[profiles.wrong]" in told
    unknown = 'app = "talk:app"\n[llms.chat]\nadapter = "fake"\n[capacity.caht]\ngpu = "L4"\n'
    (talk / "mainspring.toml").write_text(unknown)
    assert "did you mean 'chat'?" in mainspring("check", cwd=talk, status=3).stderr


def test_an_app_without_a_capacity_prints_its_changes_alone(talk: Path) -> None:
    (talk / "mainspring.toml").write_text('app = "talk:app"\n')
    assert "capacity" not in mainspring("plan", cwd=talk, status=2).stdout
    assert json.loads(mainspring("plan", "--json", cwd=talk, status=2).stdout)["capacity"] == []
