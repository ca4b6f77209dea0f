"""The conditions report: what is optional and not set is no fault, and what is set has to fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainspring.choose.report import PortReport, conditions_report
from mainspring.config.settings import load_settings


def reranker(project: Path, text: str, profile: str = "dev") -> PortReport:
    (project / "mainspring.toml").write_text(f'app = "shop:app"\n{text}')
    settings = load_settings(project, profile=profile, environment={}, flags={})
    (report,) = conditions_report(settings, "reranker")["ports"]
    return report


@pytest.mark.parametrize("profile", ["dev", "prod"])
def test_an_optional_port_that_nothing_is_set_of_is_no_fault(tmp_path: Path, profile: str) -> None:
    report = reranker(tmp_path, "[profiles.prod]\n", profile)
    assert (report["chosen"], report["error"]) == (None, None)
    assert "optional" in report["why"]
    assert report["candidates"]


def test_an_optional_port_is_chosen_once_it_is_configured(tmp_path: Path) -> None:
    assert reranker(tmp_path, '[reranker]\nurl = "http://127.0.0.1:1"\n')["chosen"] == "model_server"


@pytest.mark.parametrize("text", ['url = "ftp://x"', 'adapter = "nobody"', "timeout = 1.0"])
def test_an_optional_port_that_is_configured_wrongly_is_a_fault(tmp_path: Path, text: str) -> None:
    report = reranker(tmp_path, f"[reranker]\n{text}\n")
    assert report["chosen"] is None
    assert report["error"]


def test_a_port_that_is_needed_is_a_fault_still(tmp_path: Path) -> None:
    (tmp_path / "mainspring.toml").write_text('app = "shop:app"\n[profiles.prod]\n')
    settings = load_settings(tmp_path, profile="prod", environment={}, flags={})
    (report,) = conditions_report(settings, "catalog")["ports"]
    assert report["error"]
