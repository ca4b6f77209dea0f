"""The app's declarations hold together, and what it builds answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mainspring.testing import Project, open_project

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The app, with a state folder of its own."""
    with open_project(PROJECT, state=tmp_path_factory.mktemp("state")) as opened:
        yield opened


def test_the_app_is_sound(project: Project) -> None:
    project.check()
    assert project.plan.node("/model/returns") is not None


def test_the_endpoint_answers(project: Project) -> None:
    project.build()
    answer = project.ask("returns", {"customer": "c01", "amount": 20.0})
    assert 0 <= answer.score <= 1
    assert answer.statuses == {"habits": "PRESENT"}
