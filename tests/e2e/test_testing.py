"""What users import in their tests: a project built and asked in the process of the test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mainspring.errors import ConfigError, UsageError
from mainspring.testing import Project, open_project


@pytest.fixture(scope="module")
def project(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    sys.modules.pop("shop", None)
    with open_project(built, state=tmp_path_factory.mktemp("state")) as opened:
        yield opened
    sys.modules.pop("shop", None)
    sys.path.remove(str(built))


def test_an_endpoint_answers_when_it_is_built_at_the_moment_that_is_asked(project: Project) -> None:
    row = {"customer": "c01", "amount": 20.0}
    with pytest.raises(ConfigError) as caught:
        project.ask("returns", row)
    assert caught.value.code == "MS-3019"
    assert {step.status for step in project.build().steps} == {"ok"}
    assert {step.status for step in project.build().steps} == {"hit"}
    assert project.ask("returns", row).statuses == {"habits": "PRESENT"}
    before = datetime(2020, 1, 1, tzinfo=UTC)
    assert project.ask("returns", row, at=before).statuses == {"habits": "MISSING"}


def test_what_cannot_be_asked_is_told(project: Project) -> None:
    project.build()
    with pytest.raises(UsageError) as caught:
        project.ask("retruns", {})
    assert caught.value.fix == "did you mean 'returns'?"
    with pytest.raises(UsageError) as caught:
        project.ask("returns", {}, at=datetime(2025, 1, 1))
    assert caught.value.code == "MS-2621"


def test_a_step_that_fails_raises_what_made_it_fail(
    project: Project, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINSPRING_SOURCES_VISITS_PATH", "data/gone.csv")
    with open_project(built, state=tmp_path) as opened, pytest.raises(Exception, match="has no file"):
        opened.build()
    with open_project(built, state=tmp_path) as opened, pytest.raises(Exception, match="has no file"):
        opened.check()
