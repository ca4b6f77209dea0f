"""The app's declarations hold together, and a visit's features are what they should be."""

from pathlib import Path

from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.server.planning import plan_of

PROJECT = Path(__file__).parent.parent


def test_the_app_is_sound() -> None:
    plan = plan_of(load_app(Services.of_project(PROJECT).settings))
    assert plan.node("/model/returns") is not None
