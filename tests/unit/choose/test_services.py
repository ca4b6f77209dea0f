"""The settings of adapters: checked without opening anything, and shared where several adapters serve one port."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mainspring.choose.discover import adapters
from mainspring.choose.services import port_settings
from mainspring.config.schema import PORTS
from mainspring.config.settings import Settings, load_settings
from mainspring.errors import ConfigError


def settings(tmp_path: Path, text: str, profile: str | None = None) -> Settings:
    (tmp_path / "mainspring.toml").write_text(text)
    return load_settings(tmp_path, profile=profile)


def by_name(port: str, found: Settings) -> dict[str, object]:
    return {name: msgspec.structs.asdict(held) for name, held in port_settings(port, found).items()}


def test_each_adapter_of_a_shared_port_is_handed_the_keys_it_knows(tmp_path: Path) -> None:
    held = by_name("runtime", settings(tmp_path, '[runtime]\nthreads = 3\ntrust = ["shop.Mean"]\n'))
    assert held == {
        "onnxruntime": {"threads": 3},
        "lightgbm": {"threads": 3},
        "sklearn": {"threads": 3, "trust": ("shop.Mean",)},
        "xgboost": {"threads": 3},
        "python": {},
    }


@pytest.mark.parametrize(
    ("text", "port", "fix"),
    [
        ("[runtime]\nthread = 3\n", "runtime", "did you mean 'threads'?"),
        ("[converter]\nopsett = 17\n", "converter", "did you mean 'opset'?"),
        ("[online]\nsizee = 3\n", "online", "did you mean 'map_size'?"),
        ("[objects]\nurll = 'file:///x'\n", "objects", "did you mean 'url'?"),
    ],
)
def test_a_key_that_no_adapter_of_the_port_knows_is_refused(tmp_path: Path, text: str, port: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        port_settings(port, settings(tmp_path, text))
    assert (caught.value.code, caught.value.fix) == ("MS-3014", fix)
    assert caught.value.origin == f"mainspring.toml:2 [{port}]"


def test_a_value_that_does_not_fit_names_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        port_settings("runtime", settings(tmp_path, "[runtime]\ntrust = []\nthreads = 0\n"))
    assert (caught.value.code, caught.value.origin) == ("MS-3014", "mainspring.toml:3 [runtime]")
    assert "runtime.threads = 0" in caught.value.what
    assert caught.value.fix


def test_the_settings_know_the_ports_that_something_serves() -> None:
    """Sources have sections of their own, each with its own keys: ``[source]`` is a mistake."""
    assert {*PORTS, "source"} == {adapter.port for adapter in adapters()}


def test_a_secret_in_an_adapter_s_settings_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOM", "hunter2")
    with pytest.raises(ConfigError) as caught:
        port_settings("online", settings(tmp_path, '[online]\nmap_size = "env:ROOM"\n'))
    assert "hunter2" not in caught.value.lines()
